"""The labels that Kubernetes recommends, on every object that the operator creates: tools group and filter by them.

They are for users and tools. The operator finds its objects by its own labels (`sessionrollout.dev/...`), because the
version changes with every release and `name` is also on the operator's own Pods.
"""

from functools import cache
from importlib.metadata import version
from typing import Final

NAME: Final = "session-rollout"


def recommended(component: str) -> dict[str, str]:
    """The labels of an object that belongs to this part of the product."""
    prefix = "app.kubernetes.io"
    return {
        f"{prefix}/name": NAME,
        f"{prefix}/part-of": NAME,
        f"{prefix}/component": component,
        f"{prefix}/version": _version(),
        f"{prefix}/managed-by": NAME,
    }


@cache
def _version() -> str:
    """The version, read from the disk once; that of a build from a commit has a plus, which a label must not have."""
    return version(NAME).replace("+", "_")
