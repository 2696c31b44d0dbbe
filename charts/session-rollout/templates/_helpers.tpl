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

{{- define "session-rollout.labels" -}}
{{ include "session-rollout.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: session-rollout
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
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

{{- /* Where rollouts are looked at and tested: the first of the namespaces, or the release's own. */ -}}
{{- define "session-rollout.homeNamespace" -}}
{{- default .Release.Namespace (first .Values.namespaces) -}}
{{- end -}}

{{- define "session-rollout.configuration" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "namespaces" .Values.namespaces -}}
{{- $_ := set $config "runAsUser" .Values.runAsUser -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "session-rollout.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "session-rollout.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int . }}
runAsGroup: {{ int . }}
fsGroup: {{ int . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* What helm test makes goes again; the Pod stays until the next one, for its log. */ -}}
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
