"""Versions of the real parts, pinned in one place."""

from typing import Final

KUBERNETES: Final = "1.37.2"
ENVTEST_URL: Final = "https://github.com/kubernetes-sigs/controller-tools/releases/download/envtest-v{version}/envtest-v{version}-{os}-{arch}.tar.gz"
PROMETHEUS: Final = "3.5.3"
PROMETHEUS_URL: Final = (
    "https://github.com/prometheus/prometheus/releases/download/v{version}/prometheus-{version}.{os}-{arch}.tar.gz"
)
HELM: Final = "3.22.0"
SYFT: Final = "1.57.0"
