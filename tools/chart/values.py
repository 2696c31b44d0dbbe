"""The values of the chart as models; values.yaml, the schema and the table in the README are generated from them.

`config` uses the operator's own models, so that the chart rejects what the operator would reject.
"""

from typing import Annotated, Any

from pydantic import Field

from session_rollout.settings import Section
from tools.chart.sections import (
    CONTAINER_SECURITY,
    LIVENESS,
    POD_SECURITY,
    READINESS,
    Configuration,
    CustomResources,
    Dashboards,
    Image,
    Labels,
    Mapping,
    Name,
    NetworkPolicy,
    NoName,
    Objects,
    PodDisruptionBudget,
    PodMonitor,
    Policies,
    Rbac,
    Resources,
    Rules,
    SecretReference,
    Service,
    ServiceAccount,
    ServiceMonitor,
    Test,
    Tracing,
)


class Values(Section):
    """Values of the chart."""

    name_override: Annotated[
        NoName, Field(description="Name for the label `app.kubernetes.io/name`. If empty, the name of the chart is used.")
    ] = ""
    fullname_override: Annotated[
        NoName, Field(description="Name of the objects. If empty, it is derived from the names of the release and the chart.")
    ] = ""
    replica_count: Annotated[
        int,
        Field(
            ge=0,
            le=10,
            description="Number of replicas. One holds the Lease and reconciles; the others stand by. Use 2 for high availability.",
        ),
    ] = 1
    image: Image = Image()
    image_pull_secrets: Annotated[
        list[SecretReference],
        Field(
            description="Secrets with registry credentials for the operator and the test Pod. Jobs get theirs from their service account.",
            examples=[[{"name": "registry"}]],
        ),
    ] = []
    namespaces: Annotated[
        list[Name],
        Field(
            description="Namespaces that the operator watches, with a Role in each. If empty, it watches all namespaces, with a ClusterRole.",
            examples=[["shop", "desk"]],
        ),
    ] = []
    config: Configuration = Configuration()
    credentials_secret: Annotated[
        NoName,
        Field(
            description="Secret that is mounted at /etc/session-rollout/credentials, for the tokens, certificates and URLs that `config` refers to as files. If empty, no Secret is mounted."
        ),
    ] = ""
    crds: CustomResources = CustomResources()
    rbac: Rbac = Rbac()
    service_account: ServiceAccount = ServiceAccount()
    policies: Policies = Policies()
    pod_disruption_budget: PodDisruptionBudget = PodDisruptionBudget()
    network_policy: NetworkPolicy = NetworkPolicy()
    service: Service = Service()
    service_monitor: ServiceMonitor = ServiceMonitor()
    pod_monitor: PodMonitor = PodMonitor()
    prometheus_rule: Rules = Rules()
    dashboards: Dashboards = Dashboards()
    tracing: Tracing = Tracing()
    run_as_user: Annotated[
        int,
        Field(
            ge=1,
            le=2**31 - 1,
            description="User ID, group ID and fsGroup of every Pod, including those of Jobs. Set it to null on OpenShift, which assigns them.",
        ),
    ] = 10001
    pod_security_context: Annotated[
        Mapping,
        Field(
            description="Security context of the operator's and the test's Pod, in addition to `runAsUser`. The default meets the Pod Security Standard `restricted`."
        ),
    ] = POD_SECURITY
    security_context: Annotated[
        Mapping,
        Field(
            description="Security context of the operator's and the test's container. The default meets the Pod Security Standard `restricted`."
        ),
    ] = CONTAINER_SECURITY
    liveness_probe: Annotated[
        Mapping,
        Field(description="Liveness probe. It fails when a loop of the operator hangs. Set it to null to remove the probe."),
    ] = LIVENESS
    readiness_probe: Annotated[
        Mapping,
        Field(
            description="Readiness probe. It succeeds while the operator holds the Lease or stands by. Set it to null to remove the probe."
        ),
    ] = READINESS
    startup_probe: Annotated[
        Mapping,
        Field(
            description="Startup probe. If empty, there is none, because the liveness probe starts after 10 seconds.",
            examples=[{"httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 2, "failureThreshold": 30}],
        ),
    ] = {}
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"})
    priority_class_name: Annotated[
        NoName, Field(description="PriorityClass of the operator's Pods. If empty, the default class of the cluster is used.")
    ] = ""
    node_selector: Annotated[
        Labels, Field(description="Labels of the nodes that may run the operator.", examples=[{"kubernetes.io/os": "linux"}])
    ] = {}
    tolerations: Annotated[
        Objects,
        Field(
            description="Tolerations of the operator's Pods.",
            examples=[[{"key": "platform", "operator": "Exists", "effect": "NoSchedule"}]],
        ),
    ] = []
    affinity: Annotated[
        Mapping,
        Field(
            description="Affinity of the operator's Pods.",
            examples=[
                {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["platform"]}]}
                            ]
                        }
                    }
                }
            ],
        ),
    ] = {}
    topology_spread_constraints: Annotated[
        Objects,
        Field(
            description="Topology spread constraints of the operator's Pods. If empty, several replicas prefer different nodes.",
            examples=[[{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}]],
        ),
    ] = []
    extra_env: Annotated[
        Objects,
        Field(
            description="Additional environment variables of the operator's container.",
            examples=[[{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}]],
        ),
    ] = []
    extra_volumes: Annotated[
        Objects,
        Field(
            description="Additional volumes of the operator's Pods.",
            examples=[[{"name": "trust", "configMap": {"name": "trust"}}]],
        ),
    ] = []
    extra_volume_mounts: Annotated[
        Objects,
        Field(
            description="Additional volume mounts of the operator's container.",
            examples=[[{"name": "trust", "mountPath": "/etc/ssl/own", "readOnly": True}]],
        ),
    ] = []
    pod_labels: Annotated[
        Labels, Field(description="Additional labels of the operator's Pods.", examples=[{"team": "platform"}])
    ] = {}
    pod_annotations: Annotated[
        Labels, Field(description="Additional annotations of the operator's Pods.", examples=[{"example.com/team": "platform"}])
    ] = {}
    common_labels: Annotated[
        Labels, Field(description="Additional labels of every object of the chart.", examples=[{"cost-center": "42"}])
    ] = {}
    tests: Test = Test()
    extra_objects: Annotated[
        Objects,
        Field(
            description="Complete objects that are installed with the chart.",
            examples=[[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "trust"}, "data": {"ca.crt": "..."}}]],
        ),
    ] = []
    global_: Annotated[
        dict[str, Any],
        Field(
            alias="global", description="Values that a parent chart shares with its subcharts. This chart does not read them."
        ),
    ] = {}
