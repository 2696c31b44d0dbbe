"""R1, R5: generated objects and the statuses of their lives, judged by a real API server; then the real operator with a batch of them.

The API server is the independent judge of the generators: what they call accepted, it accepts. The operator decides about
each object without an exception, and each of its status writes is accepted. `make generated` does the same with more.
"""

import json
import os
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from api.consistency import accepted, accepted_actions, candidates
from core.lives import LIVES, life
from lab import rights
from lab.gauge import scraped
from lab.kube import ApiError, Object
from lab.lab import Lab

OBJECTS: Final = int(os.environ.get("GENERATED_ON_SERVER", "40"))
SEED: Final = int(os.environ.get("GENERATED_SEED", "0"))
BATCH: Final = max(OBJECTS // 4, 1)
NAMESPACE: Final = "generated"
ROOT: Final = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}"
DRY: Final = {"dryRun": "All", "fieldValidation": "Strict"}


def plain(objects: int) -> settings:
    """No shrinking: a server is asked, and the object that it refused is printed as it is."""
    checks = list(HealthCheck)
    return settings(max_examples=objects, deadline=None, suppress_health_check=checks, database=None, phases=[Phase.generate])


@pytest.fixture(scope="module")
def namespace(lab: Lab) -> Lab:
    """A namespace of their own."""
    lab.namespace(NAMESPACE)
    return lab


def refusal(lab: Lab, method: str, path: str, body: Object) -> str:
    """Why the API server refuses a request; empty when it accepts it."""
    try:
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        lab.kube.request(method, f"{ROOT}/{path}", body, content=content, **DRY)
    except ApiError as error:
        return f"{error.code} {error.message[:400]}: {json.dumps(body)[:2000]}"
    return ""


def test_the_api_server_accepts_what_is_generated(namespace: Lab) -> None:
    """Rollouts and actions; drafts before `validate` has seen them, too."""
    refused: list[str] = []

    @seed(SEED)
    @plain(OBJECTS)
    @given(candidates(), accepted_actions())
    def create(rollout: Object, action: Object) -> None:
        refused.extend(
            filter(
                None,
                (
                    refusal(namespace, "POST", "sessionrollouts", rollout),
                    refusal(namespace, "POST", "sessionrolloutactions", action),
                ),
            )
        )

    create()
    print(f"the API server accepts {OBJECTS:,} rollouts and actions: {refused[:1] or 'all'}")
    assert refused == []


def test_the_api_server_accepts_every_status(namespace: Lab) -> None:
    """The last ones of whole lives, written as the operator writes them."""
    refused: list[str] = []
    path = f"{ROOT}/sessionrollouts"

    @seed(SEED)
    @plain(OBJECTS)
    @given(LIVES)
    def write(drawn: tuple[Object, int, list[tuple[str, Any]]]) -> None:
        born = life(*drawn[:2], lambda _: None)
        for event in drawn[2]:
            born.happen(event)
        body = {"status": born.status.to_wire()}
        refused.append(refusal(namespace, "PATCH", f"sessionrollouts/{born.name}/status", body))

    for name in sorted({"s", "shop", "0-9", "a" * 63, "x" + "-" * 61 + "0"}):
        namespace.kube.create(path, _smallest(name))
    try:
        write()
    finally:
        for item in namespace.kube.get(path)["items"]:
            namespace.kube.delete(f"{path}/{item['metadata']['name']}")
    assert len(refused) >= OBJECTS // 2
    assert [sentence for sentence in refused if sentence] == []


def _smallest(name: str) -> Object:
    spec = {"flagSet": name[:40] + "0", "features": [{"name": "a"}]}
    spec["phases"] = [{"name": "a", "features": ["a"], "steps": [{"percent": 0, "hold": "365d"}]}]
    return {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRollout",
        "metadata": {"name": name},
        "spec": {**spec, "suspend": True},
    }


def test_the_operator_decides_about_each(namespace: Lab) -> None:
    """No traceback in its log; a status for each; no status write refused but for a conflict."""
    drawn: list[tuple[Object, Object]] = []

    @seed(SEED + 1)
    @plain(BATCH)
    @given(accepted(), accepted_actions())
    def draw(rollout: Object, action: Object) -> None:
        drawn.append((rollout, action))

    draw()
    with scraped(namespace):
        operator = namespace.start_operator()
        try:
            for number, (rollout, action) in enumerate(drawn):
                name = f"{number}-{rollout['metadata']['name']}"[:63].rstrip("-")
                rollout["metadata"]["name"] = name
                rollout["spec"]["flagSet"] = (
                    f"g{number // 4 * 4 if number % 4 == 1 else number}"  # one in four shares another's
                )
                action["spec"]["rollout"], action["metadata"]["name"] = name, f"a{number}"
                namespace.kube.create(f"{ROOT}/sessionrollouts", rollout)
                namespace.kube.create(f"{ROOT}/sessionrolloutactions", action)
            namespace.until(lambda: not undecided(namespace), 30 + 5 * BATCH, "a decision about each")
            log = operator.log.read_text()
        finally:
            operator.stop()
            for plural in ("sessionrollouts", "sessionrolloutactions"):
                for item in namespace.kube.get(f"{ROOT}/{plural}")["items"]:
                    path = f"{ROOT}/{plural}/{item['metadata']['name']}"
                    namespace.kube.merge(path, {"metadata": {"finalizers": None}})
                    namespace.kube.delete(path)
    print(f"the operator decided about {BATCH:,} rollouts, and heard as many actions")
    assert "Traceback" not in log
    refused = [
        f"{line['responseStatus']['code']} {line['requestURI']}: {line['responseStatus'].get('message')}"
        for line in rights.audit(namespace)
        if line.get("objectRef", {}).get("subresource") == "status" and f"/{NAMESPACE}/" in line["requestURI"]
        if line["responseStatus"].get("code", 200) in {400, 413, 422, 500}
    ]
    assert refused == []


def undecided(lab: Lab) -> list[str]:
    """Rollouts without a decision."""
    items = lab.kube.get(f"{ROOT}/sessionrollouts")["items"]
    return [item["metadata"]["name"] for item in items if not item.get("status", {}).get("decision", {}).get("reason")]
