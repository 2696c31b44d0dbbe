"""The annotation of a flag document in a real API server: whatever is in it, it keeps no feature on.

Not here: what an operator does with it (tests/core, tests/integration).
"""

from datetime import UTC, datetime

import pytest

from api.connection import connected
from api.corpus import GOOD
from lab.lab import Lab
from session_rollout.adapters.api_server import ApiServer
from session_rollout.adapters.flags import ConfigMapPublisher
from session_rollout.api.parsing import rollout_of
from session_rollout.api.protection import Protection, ProtectionKind
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import FlagSource, compile_document
from session_rollout.core.observed import Publish

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def published(lab: Lab, protections: tuple[Protection, ...]) -> PublishedDocument:
    """A flag document that is written with these protections, as it is read back."""
    document = compile_document(FlagSource("protected", "default", {}, metadata={"rollout": "shop", "revision": 1}))
    raw = {"metadata": {"name": "shop", "namespace": "default", "uid": "u", "generation": 1}, "spec": GOOD}
    rollout = rollout_of(raw)

    async def written(api: ApiServer) -> PublishedDocument:
        publisher = ConfigMapPublisher(api)
        before = await publisher.read("default", document.config_map)
        version = before.version if before is not None else None
        wanted = Publish(document.config_map, document.text, document.sha256, version, protections)
        return await publisher.publish(rollout, wanted, urgent=True)

    return connected(lab, written)


@pytest.mark.parametrize(
    "reason", ["payments fail \U0001f525", "\u2028\u0085\ufffe\x7f\x01", '\\ud83d " \\ é', "\U0010ffff"], ids=ascii
)
def test_protection_is_kept_whatever_its_reason_says(lab: Lab, reason: str) -> None:
    """An apply is YAML, which allows less than JSON: a reason must not keep a feature on."""
    emergency = Protection(kind=ProtectionKind.EMERGENCY, uid="u-1", time=NOW, features=("alpha",), reason=reason)
    assert published(lab, (emergency,)).protections == (emergency,)


def test_more_protections_than_an_annotation_holds_keep_nothing_on(lab: Lab) -> None:
    """The newest are kept; the text is written in any case."""
    features = tuple(f"feature-{number:03}-{'x' * 30}" for number in range(400))
    emergencies = tuple(
        Protection(kind=ProtectionKind.EMERGENCY, uid=f"u-{number}", time=NOW, features=features) for number in range(100)
    )
    kept = published(lab, emergencies).protections
    assert 0 < len(kept) < len(emergencies)
    assert kept == emergencies[-len(kept) :]
