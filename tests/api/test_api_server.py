"""Both kinds in a real API server: the corpus, immutability, defaults, examples, columns and the size of the CRDs.

Every object is sent as a dry run with strict field validation, as `kubectl apply` does. Not here: the operator.
"""

import re
from typing import Any

import promql_parser
import pytest
import yaml

from api.corpus import ACTION, BAD_ACTIONS, FINE, GOOD, spoiled
from api.invalid import BAD
from api.invalid_checks import FINE_CHECKS
from api.invalid_steps import FINE_STEPS
from lab.kube import ApiError
from lab.lab import ROOT, Lab
from session_rollout.settings import Settings

TAKEN = (*FINE, *FINE_CHECKS, *FINE_STEPS)
ROLLOUTS = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrollouts"
ACTIONS = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions"


def rollout(spec: dict[str, Any], name: str = "shop") -> dict[str, Any]:
    """An object."""
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": {"name": name}, "spec": spec}


def action(**spec: Any) -> dict[str, Any]:
    """An action; None removes a field."""
    wanted = {key: value for key, value in {**ACTION, **spec}.items() if value is not None}
    return {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRolloutAction",
        "metadata": {"generateName": "shop-"},
        "spec": wanted,
    }


def refusal(lab: Lab, path: str, body: dict[str, Any]) -> str:
    """The message of the API server; fails when it accepts the object."""
    with pytest.raises(ApiError) as caught:
        lab.kube.create(path, body, dryRun="All", fieldValidation="Strict")
    assert caught.value.code in {400, 422}
    return caught.value.message


def test_the_corpus_is_large_enough() -> None:
    """At least 100 bad objects and 30 good ones, each with a name of its own."""
    assert len({name for name, _, _ in BAD}) == len(BAD) >= 100
    assert len({name for name, _ in FINE}) == len(FINE) >= 30


@pytest.mark.parametrize(("mistake", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_objects_are_refused_with_the_field_and_what_is_allowed(lab: Lab, mistake: Any, words: tuple[str, ...]) -> None:
    """The message names both."""
    message = refusal(lab, ROLLOUTS, rollout(spoiled(mistake)))
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("change", [row[1] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_good_objects_are_taken(lab: Lab, change: Any) -> None:
    """No rule is too strict."""
    lab.kube.create(ROLLOUTS, rollout(spoiled(change)), dryRun="All", fieldValidation="Strict")


@pytest.mark.parametrize(("spec", "words"), [row[1:] for row in BAD_ACTIONS], ids=[row[0] for row in BAD_ACTIONS])
def test_bad_actions_are_refused(lab: Lab, spec: dict[str, Any], words: tuple[str, ...]) -> None:
    """The same for actions."""
    message = refusal(lab, ACTIONS, action(**spec))
    assert [word for word in words if word not in message] == [], message


def test_flag_set_and_actions_are_immutable(lab: Lab) -> None:
    """Another salt would select other users, and another request is another action."""
    lab.kube.create(ROLLOUTS, rollout(GOOD, "immutable"))
    lab.kube.merge(f"{ROLLOUTS}/immutable", {"spec": {"flagSet": "free-until-it-is-published"}})
    lab.kube.merge(f"{ROLLOUTS}/immutable/status", {"status": {"flags": {"sha256": "sha256:0"}}})
    with pytest.raises(ApiError, match="flagSet"):
        lab.kube.merge(f"{ROLLOUTS}/immutable", {"spec": {"flagSet": "other"}})
    lab.kube.delete(f"{ROLLOUTS}/immutable")
    name = lab.kube.create(ACTIONS, action(rollout="nobody"))["metadata"]["name"]
    with pytest.raises(ApiError, match="immutable"):
        lab.kube.merge(f"{ACTIONS}/{name}", {"spec": {"action": "Resume"}})
    lab.kube.delete(f"{ACTIONS}/{name}")


def test_defaults_are_visible(lab: Lab) -> None:
    """`kubectl get -o yaml` shows the whole intent, without empty lists, which rules would take for a choice of the author."""
    spec = {key: GOOD[key] for key in ("flagSet", "features", "phases", "metrics", "migrations", "database")}
    made = lab.kube.create(ROLLOUTS, rollout(spec), dryRun="All")["spec"]
    assert (made["checkInterval"], made["prometheus"], made["bake"]) == ("30s", "default", "0s")
    keeps = {"migrations": "Keep", "restoreData": False, "allowDataLoss": False, "workload": "Keep"}
    assert made["rollback"] == {"scope": "Phase", **keeps}
    assert "windows" not in made


EXAMPLES = [
    path for path in sorted((ROOT / "examples").rglob("*.yaml")) if "gitops" not in path.parts
]  # tests/gitops has those


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_taken(lab: Lab, path: Any) -> None:
    """Every example is an object the API server accepts as it is."""
    for document in yaml.safe_load_all(path.read_text()):
        namespace = document["metadata"].get("namespace", "default")
        lab.namespace(namespace)
        plural = document["kind"].lower() + "s"
        if document["kind"] in {"SessionRollout", "SessionRolloutAction"}:
            where = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{namespace}/{plural}"
        else:
            where = f"/api/v1/namespaces/{namespace}/{plural}"
        lab.kube.create(where, document, dryRun="All", fieldValidation="Strict")


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```yaml\n(.*?)```|<<'?EOF'?\n(.*?)\nEOF", re.DOTALL)


def documented() -> list[tuple[str, dict[str, Any]]]:
    """Every whole object of both kinds in the documentation, with its page."""
    texts = [(page, yaml_block or heredoc) for page in PAGES for yaml_block, heredoc in BLOCK.findall(page.read_text())]
    documents = [
        (page, document) for page, text in texts for document in yaml.safe_load_all(text) if isinstance(document, dict)
    ]
    kinds = {"SessionRollout", "SessionRolloutAction"}
    return [(str(page.relative_to(ROOT)), document) for page, document in documents if document.get("kind") in kinds]


def test_objects_of_the_documentation_are_taken(lab: Lab) -> None:
    """What users copy first works."""
    objects = documented()
    assert {"README.md", "docs/index.md"} <= {page for page, _ in objects}
    assert {document["kind"] for _, document in objects} == {"SessionRollout", "SessionRolloutAction"}
    refused = []
    for page, document in objects:
        path = ROLLOUTS if document["kind"] == "SessionRollout" else ACTIONS
        document["metadata"].pop("namespace", None)
        try:
            lab.kube.create(path, document, dryRun="All", fieldValidation="Strict")
        except ApiError as error:
            refused.append(f"{page}: {error.message}")
    assert refused == []


def test_fragments_of_the_readme_are_taken(lab: Lab) -> None:
    """The database half, added to the first rollout, and the operator's configuration in the values of the chart."""
    text = (ROOT / "README.md").read_text()
    first, data, values = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    phase = {**first["spec"]["phases"][0], **data["phases"][0]}
    spec = {**first["spec"], **data, "phases": [phase]}
    lab.kube.create(ROLLOUTS, {**first, "spec": spec}, dryRun="All", fieldValidation="Strict")
    assert Settings.model_validate(values["config"]).profiles["default"].service_account == "migrations"


def test_examples_of_administrators_can_be_read() -> None:
    """The operator's configuration and the alert rules: every query parses, and every alert that it expects is a rule."""
    configuration = yaml.safe_load((ROOT / "examples" / "operator-configuration.yaml").read_text())["data"]["operator.yaml"]
    settings = Settings.model_validate(yaml.safe_load(configuration))
    queries = [diagnostic for topic in settings.diagnostics.values() for diagnostic in topic]
    assert {"errors", "memory", "performance", "database", "cache", "capacity"} < set(settings.diagnostics)
    assert [diagnostic.name for diagnostic in queries if promql_parser.parse(diagnostic.query) is None] == []
    rules = yaml.safe_load((ROOT / "examples" / "session-persistence-alerts.yaml").read_text())["data"]["rules.yaml"]
    [group] = yaml.safe_load(rules)["groups"]
    assert tuple(rule["alert"] for rule in group["rules"]) == settings.alerts
    assert all(promql_parser.parse(rule["expr"]) for rule in group["rules"])


def test_minimal_example_is_short() -> None:
    """Under 30 lines."""
    assert len((ROOT / "examples" / "minimal.yaml").read_text().splitlines()) < 30


def test_crd_files_are_small_enough_for_plain_apply(lab: Lab) -> None:
    """Below 262,144 bytes, and plain `kubectl apply` takes them."""
    for path in sorted((ROOT / "crds").glob("sessionrollout*.yaml")):
        assert path.stat().st_size < 262_144
        assert "configured" in lab.kubectl("apply", "--dry-run=server", "-f", str(path)).stdout


def test_status_in_an_object_is_dropped(lab: Lab) -> None:
    """A status that is written with the object is dropped; only the subresource accepts it."""
    made = lab.kube.create(ROLLOUTS, {**rollout(GOOD), "status": {"outcome": "Promoted"}}, dryRun="All")
    assert "status" not in made


def test_columns_of_kubectl_get(lab: Lab) -> None:
    """STATUS comes first; -o wide adds what only some users need."""
    lab.kube.create(ROLLOUTS, rollout(GOOD, "columns"))
    name = lab.kube.create(ACTIONS, action(rollout="columns"))["metadata"]["name"]
    try:
        shown = {
            (kind, wide): lab.kubectl("get", kind, *(["-o", "wide"] if wide else [])).stdout.splitlines()[0].split()
            for kind in ("sro", "sroa")
            for wide in (False, True)
        }
    finally:
        lab.kube.delete(f"{ROLLOUTS}/columns")
        lab.kube.delete(f"{ACTIONS}/{name}")
    assert shown["sro", False] == ["NAME", "STATUS", "PHASE", "STEP", "AUDIENCE", "MESSAGE", "AGE"]
    assert shown["sro", True] == [*shown["sro", False], "UNTIL", "PROGRESS", "OUTCOME", "GENERATION"]
    assert shown["sroa", False] == ["NAME", "ROLLOUT", "ACTION", "ACCEPTED", "MESSAGE", "AGE"]
    assert shown["sroa", True] == [*shown["sroa", False], "REASON"]


@pytest.mark.parametrize("kind", ["sro", "sroa"])
def test_kubectl_explains_every_field(lab: Lab, kind: str) -> None:
    """No field is listed without a description."""
    for half in ("spec", "status"):
        text = lab.kubectl("explain", f"{kind}.{half}", "--recursive=false").stdout
        assert "DESCRIPTION:" in text
        assert "<no description>" not in text
        assert "<empty>" not in text
