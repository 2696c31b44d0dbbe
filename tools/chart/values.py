"""What may stand in the chart's values, as models: the schema, values.yaml and the README's table are written from them.

Parts of the operator's configuration are the operator's own models, so that the chart refuses what the operator would.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from session_rollout.settings import CheckProfile, Diagnostic, Profile, Provider, Section, Sink

Objects = list[dict[str, Any]]
Labels = dict[str, str]
Name = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
NoName = Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[str, Field(pattern=r"^[0-9]{1,5}(ms|s|m|h)$")]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
IMAGE: Final = "session-rollout"


class Image(Section):
    """One image for the operator, migration Jobs and the plugin."""

    repository: Annotated[str, Field(min_length=1, pattern=r"^[a-z0-9][a-z0-9._/:-]*$", description="With the registry.")] = (
        IMAGE
    )
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,128}$", description="Empty: the chart's appVersion.")] = ""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$", description="Wins over the tag.")] = ""
    pull_policy: PullPolicy = "IfNotPresent"
    pull_secrets: Annotated[list[Name], Field(description="Names of Secrets in the release's namespace.")] = []


class CustomResources(Section):
    """The two CustomResourceDefinitions."""

    install: Annotated[bool, Field(description="false: they are applied by somebody else, before this chart.")] = True
    keep: Annotated[bool, Field(description="`helm uninstall` leaves them, and with them every rollout and its flags.")] = True


class Rbac(Section):
    """Roles: the operator's own, and those for people."""

    create: Annotated[bool, Field(description="The operator's roles and bindings.")] = True
    workloads: Annotated[
        bool, Field(description="Let the operator restart and undo Deployments, which actions can ask for.")
    ] = True
    people: Annotated[
        bool, Field(description="ClusterRoles for viewers, approvers and people on call, to be bound by you.")
    ] = True
    aggregate: Annotated[bool, Field(description="Add the kinds to Kubernetes' own view, edit and admin.")] = True


class ServiceAccount(Section):
    """Who the operator is."""

    create: bool = True
    name: Annotated[NoName, Field(description="Empty: the release's name.")] = ""
    annotations: Labels = {}


class Policies(Section):
    """ValidatingAdmissionPolicies; they need no webhook."""

    actions: Annotated[
        bool, Field(description="An action takes its own verb: who may approve need not be who may override.")
    ] = True
    jobs: Annotated[bool, Field(description="Who writes a rollout with migrations must be allowed to create Jobs there.")] = (
        True
    )
    secrets: Annotated[
        bool, Field(description="A rollout may name only Secrets with the label `sessionrollout.dev/database: allowed`.")
    ] = True


class PodDisruptionBudget(Section):
    """Made only where there is more than one replica."""

    enabled: bool = True
    min_available: Annotated[int, Field(ge=1)] = 1


class NetworkPolicy(Section):
    """What the operator's Pods may talk to."""

    enabled: bool = True
    metrics_from: Annotated[Objects, Field(description="Peers that may scrape the metrics; empty: everybody.")] = []
    api_server_ports: Annotated[list[Port], Field(min_length=1)] = [443, 6443]
    extra_egress: Annotated[
        Objects, Field(description="Rules beside the API server, Pods of this cluster, providers and sinks.")
    ] = []


class Monitor(Section):
    """Scraping by the Prometheus operator."""

    enabled: bool = False
    interval: Seconds = "30s"
    labels: Annotated[Labels, Field(description="What your Prometheus selects by.")] = {}


class Rules(Section):
    """A PrometheusRule."""

    enabled: bool = False
    labels: Annotated[Labels, Field(description="What your Prometheus selects by.")] = {}
    operator: Annotated[bool, Field(description="Alerts on rollouts and on the operator itself.")] = True
    session: Annotated[bool, Field(description="Alerts of the session persistence programme.")] = False
    runbook_url: Annotated[str, Field(description="Where docs/runbooks is published; {alert} is replaced.")] = ""


class Dashboards(Section):
    """Grafana dashboards as ConfigMaps for its sidecar."""

    enabled: bool = False
    label: Annotated[str, Field(min_length=1, max_length=63)] = "grafana_dashboard"
    label_value: Annotated[str, Field(min_length=1, max_length=63)] = "1"
    folder: Annotated[str, Field(max_length=128)] = "SessionRollout"
    session: Annotated[bool, Field(description="The dashboard of the session persistence programme, too.")] = False


class Tracing(Section):
    """OpenTelemetry traces of what the operator does, by OTLP over HTTP."""

    endpoint: Annotated[
        str, Field(pattern=r"^(https?://\S+)?$", description="Such as http://collector.tracing:4318; empty: off.")
    ] = ""
    ratio: Annotated[float, Field(ge=0, le=1, description="Share of looks at a rollout that are traced.")] = 1.0


class Configuration(Section):
    """The operator's configuration file, all of which is in docs/reference/configuration.md; a rollout names its entries."""

    prometheus: Annotated[dict[Name, Provider], Field(description="Anything that answers Prometheus' query API.")] = {
        "default": Provider(url="http://prometheus-operated.monitoring.svc:9090")
    }
    profiles: Annotated[dict[Name, Profile], Field(description="How migration Jobs run.")] = {"default": Profile()}
    checks: Annotated[dict[Name, CheckProfile], Field(description="Jobs that a gate names.")] = {}
    diagnostics: Annotated[dict[Name, list[Diagnostic]], Field(description="Topics of `kubectl sessionrollout diagnose`.")] = {}
    alerts: Annotated[list[str], Field(description="Alert rules that the check `Alerts` looks for.")] = []
    sinks: Annotated[dict[Name, Sink], Field(description="Where notices go.")] = {}
    service_address: Annotated[str, Field(pattern=r"^\S+$", description="Where an HTTP check finds a Service.")] = (
        "{service}.{namespace}.svc:{port}"
    )
    metric_workers: Annotated[int, Field(ge=1, le=64, description="Queries asked at the same time.")] = 8


class Resources(Section):
    """Of the operator's container; measured: 110 MiB with 100 rollouts, 279 MiB with 1,000."""

    requests: Labels = {}
    limits: Labels = {}


class Test(Section):
    """`helm test`: a tiny rollout, promoted and removed."""

    enabled: bool = True
    timeout: Seconds = "120s"


class Values(Section):
    """Values of the chart."""

    name_override: Annotated[NoName, Field(description="Instead of the chart's name.")] = ""
    fullname_override: Annotated[NoName, Field(description="Instead of the release's name.")] = ""
    image: Image = Image()
    replicas: Annotated[
        int, Field(ge=0, le=10, description="One leads by a Lease, the others stand by; 2 for high availability.")
    ] = 1
    namespaces: Annotated[
        list[Name], Field(description="Where rollouts are looked at, with a Role in each; empty: all, with a ClusterRole.")
    ] = []
    config: Configuration = Configuration()
    credentials_secret: Annotated[
        NoName,
        Field(
            description="Secret mounted at /etc/session-rollout/credentials: tokens, CAs and URLs that `config` names as files."
        ),
    ] = ""
    crds: CustomResources = CustomResources()
    rbac: Rbac = Rbac()
    service_account: ServiceAccount = ServiceAccount()
    policies: Policies = Policies()
    pod_disruption_budget: PodDisruptionBudget = PodDisruptionBudget()
    network_policy: NetworkPolicy = NetworkPolicy()
    service: Annotated[bool, Field(description="A Service for the metrics.")] = True
    service_monitor: Monitor = Monitor()
    pod_monitor: Monitor = Monitor()
    prometheus_rule: Rules = Rules()
    dashboards: Dashboards = Dashboards()
    tracing: Tracing = Tracing()
    run_as_user: Annotated[
        int,
        Field(ge=1, le=2**31 - 1, description="Uid and gid of every Pod, Jobs included; null on OpenShift, which gives them."),
    ] = 10001
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"})
    priority_class_name: NoName = ""
    node_selector: Labels = {}
    tolerations: Objects = []
    affinity: dict[str, Any] = {}
    topology_spread_constraints: Annotated[Objects, Field(description="Empty: replicas spread over nodes where they can.")] = []
    extra_env: Objects = []
    extra_volumes: Objects = []
    extra_volume_mounts: Objects = []
    pod_labels: Labels = {}
    pod_annotations: Labels = {}
    common_labels: Labels = {}
    tests: Test = Test()
    extra_objects: Annotated[Objects, Field(description="Whole objects to install beside.")] = []
    global_: Annotated[dict[str, Any], Field(alias="global", description="Helm's own.")] = {}
