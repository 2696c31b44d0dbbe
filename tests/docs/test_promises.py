"""Promises of the README that no other test tries to break: what a custom resource cannot contain, and prerequisites.

The others are broken where they belong: tests/core, tests/adapters, tests/migrations, tests/integration and the demos.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext

from lab.lab import ROOT
from session_rollout.core.flags import Audience, FlagSource, compile_document

CRDS = sorted((ROOT / "crds").glob("sessionrollout*.yaml"))
# Parts of a Pod template, addresses, and references into another namespace.
FORBIDDEN = re.compile(
    r"^(?:.*url|.*uri|host|address|endpoint|image.*|command|args|env.*|volume.*|serviceAccount.*|securityContext|namespace.*"
    r"|template|podSpec|containers|nodeName)$",
    re.IGNORECASE,
)
USERS = [f"user-{number}" for number in range(2000)]


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a schema by its name, however deep."""
    for name, field in schema.get("properties", {}).items():
        yield name, field
        yield from fields(field)
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from fields(inner)


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
def test_a_custom_resource_contains_neither_an_address_nor_a_pod_template(path: Path) -> None:
    """And refers to nothing in another namespace: all of that is the configuration's."""
    [version] = yaml.safe_load(path.read_text())["spec"]["versions"]
    spec = dict(fields(version["schema"]["openAPIV3Schema"]["properties"]["spec"]))
    assert len(spec) > 10
    assert [name for name in spec if FORBIDDEN.match(name)] == []
    assert [name for name, field in spec.items() if field.get("x-kubernetes-preserve-unknown-fields")] == []


def test_every_user_of_a_dependent_feature_has_its_prerequisite(tmp_path: Path) -> None:
    """A smaller audience is part of a larger one, with an evaluator that applications use."""
    audiences = {"offlineMode": Audience(Decimal(20), ("beta",)), "sync": Audience(Decimal(50), ("beta",))}
    path = tmp_path / "flags.flagd.json"
    path.write_text(compile_document(FlagSource("dependencies", "shop", audiences)).text)
    api.set_provider_and_wait(
        FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(path), deadline_ms=500)
    )
    try:
        client = api.get_client()

        def having(feature: str, *groups: str) -> set[str]:
            contexts = {user: EvaluationContext(user, {"groups": list(groups)}) for user in USERS}
            return {user for user, context in contexts.items() if client.get_boolean_value(feature, False, context)}

        assert set() < having("offlineMode") < having("sync") < set(USERS)
        assert having("offlineMode", "beta") == having("sync", "beta") == set(USERS)
    finally:
        api.shutdown()
