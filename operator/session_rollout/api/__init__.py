"""The two kinds as frozen pydantic models, and every value that programs read from them. No I/O."""

from typing import Final

GROUP: Final = "sessionrollout.dev"
VERSION: Final = "v1alpha1"
ROLLOUTS: Final = "sessionrollouts"
ACTIONS: Final = "sessionrolloutactions"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CRD: Final = f"{ROLLOUTS}.{GROUP}"  # name of the definition of the first kind
