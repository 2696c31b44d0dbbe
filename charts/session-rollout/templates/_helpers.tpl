{{- define "session-rollout.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end -}}

{{- define "session-rollout.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "session-rollout.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "session-rollout.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "session-rollout.serviceAccountName" -}}
{{- default (include "session-rollout.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "session-rollout.selectorLabels" -}}
app.kubernetes.io/name: {{ include "session-rollout.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- /* The recommended labels, of a list: the context, and the component. */ -}}
{{- define "session-rollout.recommendedLabels" -}}
{{- $root := first . -}}
{{ include "session-rollout.selectorLabels" $root }}
app.kubernetes.io/component: {{ last . }}
app.kubernetes.io/part-of: session-rollout
app.kubernetes.io/version: {{ $root.Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{- /* The labels of every object: in addition to those of Pods, the version of the chart and the labels of the user. */ -}}
{{- define "session-rollout.labels" -}}
{{- $root := first . -}}
{{ include "session-rollout.recommendedLabels" . }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "session-rollout.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The namespace of the test's rollout: the first one that is watched, or that of the release. */ -}}
{{- define "session-rollout.homeNamespace" -}}
{{- default .Release.Namespace (first .Values.namespaces) -}}
{{- end -}}

{{- define "session-rollout.configuration" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "namespaces" .Values.namespaces -}}
{{- $_ := set $config "runAsUser" .Values.runAsUser -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* What podSecurityContext sets overrides the IDs of runAsUser. */ -}}
{{- define "session-rollout.podSecurityContext" -}}
{{- $context := dict -}}
{{- with .Values.runAsUser -}}
{{- $context = dict "runAsUser" (int .) "runAsGroup" (int .) "fsGroup" (int .) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $context (deepCopy (default dict .Values.podSecurityContext))) -}}
{{- end -}}

{{- /* Objects of `helm test` are deleted when it succeeds; its Pod is kept until the next test, for its log. */ -}}
{{- define "session-rollout.testHook" }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-weight: {{ . | quote }}
    helm.sh/hook-delete-policy: {{ if eq . "3" }}before-hook-creation{{ else }}before-hook-creation,hook-succeeded{{ end }}
{{- end }}

{{- /* The port of a URL. */ -}}
{{- define "session-rollout.port" -}}
{{- $url := urlParse . -}}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (eq $url.scheme "https" | ternary "443" "80") $named -}}
{{- end -}}
