"""The sections of the chart's values, as models; `tools.chart.values` puts them together."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from session_rollout.settings import CheckProfile, Diagnostic, Profile, Provider, Section, Sink

Objects = list[dict[str, Any]]
Mapping = dict[str, Any]
Labels = dict[str, str]
Name = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
NoName = Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[str, Field(pattern=r"^[0-9]{1,5}(ms|s|m|h)$")]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
IMAGE: Final = "session-rollout"
HTTP: Final = {"port": "metrics"}
LIVENESS: Final = {
    "httpGet": {"path": "/healthz", **HTTP},
    "initialDelaySeconds": 10,
    "periodSeconds": 10,
    "timeoutSeconds": 5,
    "failureThreshold": 3,
}
READINESS: Final = {"httpGet": {"path": "/readyz", **HTTP}, "periodSeconds": 5, "timeoutSeconds": 3}
POD_SECURITY: Final = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class Image(Section):
    """The image of the operator, of migration Jobs and of the test Pod."""

    repository: Annotated[
        str,
        Field(
            min_length=1,
            pattern=r"^[a-z0-9][a-z0-9._/:-]*$",
            description="Image repository, including the registry. The default has no registry, so the nodes must already have the image.",
            examples=["registry.example.com/platform/session-rollout"],
        ),
    ] = IMAGE
    tag: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9._-]{0,128}$",
            description="Image tag. If empty, the appVersion of the chart is used.",
            examples=["0.1.0"],
        ),
    ] = ""
    digest: Annotated[
        str,
        Field(
            pattern=r"^(sha256:[0-9a-f]{64})?$",
            description="Image digest, `sha256:` and 64 hexadecimal digits. It overrides `tag` when set.",
        ),
    ] = ""
    pull_policy: Annotated[PullPolicy, Field(description="Image pull policy: Always, IfNotPresent or Never.")] = "IfNotPresent"


class SecretReference(Section):
    """A Secret in the namespace of the release."""

    name: Annotated[Name, Field(description="Name of the Secret.")]


class CustomResources(Section):
    """The two CustomResourceDefinitions, SessionRollout and SessionRolloutAction."""

    install: Annotated[
        bool, Field(description="Install the CRDs with this chart. Set it to false to manage the CRDs outside this chart.")
    ] = True
    keep: Annotated[
        bool,
        Field(description="Keep the CRDs on `helm uninstall`. Deleting the CRDs deletes every rollout and every action."),
    ] = True


class Rbac(Section):
    """Roles of the operator and of Kubernetes users."""

    create: Annotated[bool, Field(description="Create the roles of the operator and their bindings.")] = True
    workloads: Annotated[
        bool,
        Field(
            description="Allow the operator to restart Deployments and to roll them back, for the `RestartWorkload` and `UndoWorkload` actions and for `rollback.workload`."
        ),
    ] = True
    user_roles: Annotated[
        bool,
        Field(
            description="Create the ClusterRoles viewer, approver and operator-on-call, and the Role operator-support in the namespace of the release. The chart does not bind them."
        ),
    ] = True
    aggregate: Annotated[
        bool,
        Field(
            description="Add rollouts and actions to the ClusterRoles view, edit and admin of Kubernetes. Kubernetes users with `edit` may then change rollouts, and those with `admin` may create every action."
        ),
    ] = True


class ServiceAccount(Section):
    """Service account of the operator."""

    create: Annotated[bool, Field(description="Create the service account. If false, it must exist.")] = True
    name: Annotated[
        NoName, Field(description="Name of the service account. If empty, the full name of the release is used.")
    ] = ""
    annotations: Annotated[
        Labels,
        Field(
            description="Annotations of the service account.",
            examples=[{"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/session-rollout"}],
        ),
    ] = {}


class Policies(Section):
    """ValidatingAdmissionPolicies of the API server; they do not require a webhook."""

    actions: Annotated[
        bool,
        Field(
            description="Require a separate verb for each action, for example `approve` on sessionrolloutactions. Without it, `create` allows every action."
        ),
    ] = True
    jobs: Annotated[
        bool,
        Field(description="Require that Kubernetes users who write a rollout with migrations may create Jobs."),
    ] = True
    secrets: Annotated[
        bool,
        Field(
            description="Reject a rollout that references an existing Secret without the label `sessionrollout.dev/database: allowed`."
        ),
    ] = True


class PodDisruptionBudget(Section):
    """PodDisruptionBudget of the operator; created only with more than one replica."""

    enabled: Annotated[bool, Field(description="Create the PodDisruptionBudget.")] = True
    min_available: Annotated[
        int, Field(ge=1, description="Number of Pods that a voluntary disruption must leave available.")
    ] = 1


class NetworkPolicy(Section):
    """NetworkPolicy of the operator's Pods."""

    enabled: Annotated[bool, Field(description="Create the NetworkPolicy.")] = True
    metrics_from: Annotated[
        Objects,
        Field(
            description="NetworkPolicy peers that may scrape the metrics. If empty, every Pod may scrape them.",
            examples=[[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]],
        ),
    ] = []
    api_server_ports: Annotated[
        list[Port], Field(min_length=1, description="Ports at which the operator reaches the API server.")
    ] = [443, 6443]
    extra_egress: Annotated[
        Objects,
        Field(
            description="Additional egress rules. DNS, the API server, Pods of the cluster, metric providers, webhooks and the trace collector are allowed already.",
            examples=[[{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 465}]}]],
        ),
    ] = []


class Service(Section):
    """Service for the metrics of the operator."""

    enabled: Annotated[bool, Field(description="Create the Service. A ServiceMonitor requires it.")] = True
    port: Annotated[Port, Field(description="Port of the Service; its name is `metrics`.")] = 8080
    annotations: Annotated[
        Labels,
        Field(
            description="Annotations of the Service.", examples=[{"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}]
        ),
    ] = {}
    labels: Annotated[Labels, Field(description="Additional labels of the Service.", examples=[{"monitoring": "enabled"}])] = {}


class ServiceMonitor(Section):
    """ServiceMonitor for Prometheus Operator."""

    enabled: Annotated[bool, Field(description="Create the ServiceMonitor. It requires `service.enabled`.")] = False
    interval: Annotated[Seconds, Field(description="Scrape interval, as a duration.")] = "30s"
    labels: Annotated[
        Labels,
        Field(
            description="Additional labels, for example to match `serviceMonitorSelector` of your Prometheus.",
            examples=[{"release": "prometheus"}],
        ),
    ] = {}


class PodMonitor(Section):
    """PodMonitor for Prometheus Operator, instead of a Service and a ServiceMonitor."""

    enabled: Annotated[bool, Field(description="Create the PodMonitor.")] = False
    interval: Annotated[Seconds, Field(description="Scrape interval, as a duration.")] = "30s"
    labels: Annotated[
        Labels,
        Field(
            description="Additional labels, for example to match `podMonitorSelector` of your Prometheus.",
            examples=[{"release": "prometheus"}],
        ),
    ] = {}


class Rules(Section):
    """PrometheusRule for Prometheus Operator."""

    enabled: Annotated[bool, Field(description="Create the PrometheusRule.")] = False
    labels: Annotated[
        Labels,
        Field(
            description="Additional labels, for example to match `ruleSelector` of your Prometheus.",
            examples=[{"release": "prometheus"}],
        ),
    ] = {}
    operator: Annotated[bool, Field(description="Include alerts about rollouts and about the operator.")] = True
    session: Annotated[bool, Field(description="Include the alerts of the demo application.")] = False
    runbook_url: Annotated[
        str,
        Field(
            description="URL of the runbooks; `{alert}` is replaced with the name of the alert. If empty, alerts have no `runbook_url`.",
            examples=["https://docs.example.com/runbooks/{alert}"],
        ),
    ] = ""


class Dashboards(Section):
    """Grafana dashboards as ConfigMaps, for the sidecar of Grafana's chart."""

    enabled: Annotated[bool, Field(description="Create the ConfigMaps.")] = False
    label: Annotated[
        str, Field(min_length=1, max_length=63, description="Name of the label that the sidecar searches for.")
    ] = "grafana_dashboard"
    label_value: Annotated[str, Field(min_length=1, max_length=63, description="Value of that label.")] = "1"
    folder: Annotated[str, Field(max_length=128, description="Folder in Grafana, set as the annotation `grafana_folder`.")] = (
        "SessionRollout"
    )
    session: Annotated[bool, Field(description="Include the dashboard of the demo application.")] = False


class Tracing(Section):
    """OpenTelemetry traces of the operator, sent by OTLP over HTTP."""

    endpoint: Annotated[
        str,
        Field(
            pattern=r"^(https?://\S+)?$",
            description="URL of the OTLP collector. If empty, tracing is off.",
            examples=["http://collector.tracing:4318"],
        ),
    ] = ""
    ratio: Annotated[float, Field(ge=0, le=1, description="Share of reconciliations that are traced, from 0 to 1.")] = 1.0


class Configuration(Section):
    """Configuration of the operator; docs/reference/configuration.md describes every field. Rollouts refer to its entries by name."""

    prometheus: Annotated[
        dict[Name, Provider],
        Field(
            description="Prometheus servers, or servers with the Prometheus query API, by name. A rollout uses `default` unless `spec.prometheus` names another one.",
            examples=[
                {"default": {"url": "https://prometheus.example.com", "caFile": "/etc/session-rollout/credentials/ca.crt"}}
            ],
        ),
    ] = {"default": Provider(url="http://prometheus-operated.monitoring.svc:9090")}
    profiles: Annotated[
        dict[Name, Profile],
        Field(
            description="Settings of migration Jobs by name. A rollout uses `default` unless `spec.database.profile` names another one.",
            examples=[{"default": {"serviceAccount": "migrations", "copyDutyCycle": 0.5}}],
        ),
    ] = {"default": Profile()}
    checks: Annotated[
        dict[Name, CheckProfile],
        Field(
            description="Jobs by name that the `job` of a gate can run.",
            examples=[{"smoke-tests": {"image": "registry.example.com/shop-tests:1.2", "command": ["./smoke"]}}],
        ),
    ] = {}
    diagnostics: Annotated[
        dict[Name, list[Diagnostic]],
        Field(
            description="Queries by topic, for `kubectl sessionrollout diagnose TOPIC`.",
            examples=[{"errors": [{"name": "error-rate", "query": "session_error_rate", "below": "1%"}]}],
        ),
    ] = {}
    alerts: Annotated[
        list[str],
        Field(
            description="Names of alert rules that the built-in gate `Alerts` expects Prometheus to have loaded.",
            examples=[["HighSessionErrorRate"]],
        ),
    ] = []
    sinks: Annotated[
        dict[Name, Sink],
        Field(
            description="Receivers of notifications by name: a webhook, or a file with an Apprise URL.",
            examples=[
                {
                    "on-call": {
                        "webhook": {
                            "url": "https://on-call.example.com/hook",
                            "secretFile": "/etc/session-rollout/credentials/key",
                        }
                    }
                }
            ],
        ),
    ] = {}
    service_address: Annotated[
        str,
        Field(
            pattern=r"^\S+$",
            description="Host and port at which an `http` gate reaches a Service. `{service}`, `{namespace}` and `{port}` are replaced.",
        ),
    ] = "{service}.{namespace}.svc:{port}"
    metric_workers: Annotated[
        int,
        Field(ge=1, le=64, description="Largest number of metric queries that run at the same time on each Prometheus server."),
    ] = 8


class Resources(Section):
    """Resources of the operator's container. Measured: 110 MiB with 100 rollouts, 279 MiB with 1,000 rollouts."""

    requests: Annotated[Labels, Field(description="CPU and memory that the scheduler reserves.")] = {}
    limits: Annotated[
        Labels, Field(description="Memory limit. A CPU limit is not recommended, because throttling delays decisions.")
    ] = {}


class Test(Section):
    """`helm test`: creates a small rollout, waits until it is promoted, and deletes it."""

    enabled: Annotated[bool, Field(description="Create the objects of the test when `helm test` runs.")] = True
    timeout: Annotated[Seconds, Field(description="Time limit for the promotion of the rollout, as a duration.")] = "120s"
