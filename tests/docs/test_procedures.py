"""Procedures of the how-to pages that need no cluster: the flag document edited by hand, a Kustomize overlay, a restored rollout.

Not here: commands (test_docs.py), and that a restored object keeps its document in a real API server (tests/integration).
"""

import json
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

from core.world import World, at, ended, spec, with_another_plan
from lab.lab import ROOT
from session_rollout.adapters.flag_evaluator import validate
from session_rollout.api.enums import DecisionReason
from session_rollout.core.documents import read_document
from session_rollout.core.flags import KEY, Audience, FlagSource, compile_document

HOW_TO = ROOT / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page, also those in a list."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", (HOW_TO / page).read_text(), re.DOTALL | re.MULTILINE)
    return [str(text) for text in found]


@pytest.mark.skipif(shutil.which("jq") is None, reason="the command of the page needs jq")
def test_a_flag_turned_off_by_hand_is_off_for_all_users() -> None:
    """The jq filter of the on-call page on a document that the operator compiled: groups and overrides included."""
    everybody = Audience(Decimal(100), ("beta",))
    text = compile_document(FlagSource("checkout", "shop", {"newCheckout": everybody, "giftCards": everybody})).text
    (command,) = [block for block in blocks("on-call.md", "sh") if "jq" in block]
    pipeline = re.sub(r"^kubectl get .*?\|\n|\|\s*kubectl replace -f -\s*$", "", command, flags=re.DOTALL)
    config_map = json.dumps({"data": {KEY: text}})
    done = subprocess.run(["bash", "-euc", pipeline], input=config_map, capture_output=True, text=True, check=True)
    typo = pipeline.replace("--arg feature newCheckout", "--arg feature newChekout")
    refused = subprocess.run(["bash", "-euc", typo], input=config_map, capture_output=True, text=True, check=False)
    assert refused.returncode != 0, "a new flag without variants would make evaluators reject the document"
    assert refused.stdout == ""
    edited = json.loads(done.stdout)["data"][KEY]
    validate(edited)
    core = FlagdCore()
    core.set_flags(edited)
    context = EvaluationContext("alice", {"groups": ["beta"], "overridesOn": ["newCheckout"]})
    assert core.resolve_boolean_value("newCheckout", default_value=True, ctx=context).value is False
    assert core.resolve_boolean_value("giftCards", default_value=False, ctx=context).value is True


def test_the_kustomize_overlay_is_complete(tmp_path: Path) -> None:
    """The three files of the page: one image everywhere, the configuration, and the mounted Secret."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (tmp_path / "session-rollout").symlink_to(ROOT)
    for text in blocks("install.md", "yaml"):
        if name := re.match(r"# (\w+\.yaml)", text):
            (overlay / name[1]).write_text(text)
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    (deployment,) = [document for document in documents if document["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert container["image"] == environment["SESSION_ROLLOUT_IMAGE"] == "registry.example/session-rollout:0.1.0"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["credentials"] == "/etc/session-rollout/credentials"
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    (configuration,) = [document for document in documents if "operator.yaml" in document.get("data", {})]
    assert "credentials/slack" in configuration["data"]["operator.yaml"]
    assert {"name": configuration["metadata"]["name"]}.items() <= next(
        volume["configMap"].items() for volume in pod["volumes"] if "configMap" in volume
    )


def test_a_json_patch_adds_a_sink(tmp_path: Path) -> None:
    """The overlay of the notifications page; the same change as a strategic merge patch would drop the sink of the base."""
    rollout = yaml.safe_load((ROOT / "examples" / "minimal.yaml").read_text())
    rollout["metadata"]["name"] = "checkout"
    rollout["spec"]["notifications"] = [{"sink": "chat", "events": ["Promoted"]}]
    (patched,) = [text for text in blocks("notifications.md", "yaml") if "/spec/notifications/-" in text]
    for directory, text in (("base", "resources: [rollout.yaml]"), ("overlay", patched)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "kustomization.yaml").write_text(text)
    (tmp_path / "base" / "rollout.yaml").write_text(yaml.safe_dump(rollout))

    def sinks() -> list[str]:
        command = ["kubectl", "kustomize", str(tmp_path / "overlay")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [entry["sink"] for entry in yaml.safe_load(done.stdout)["spec"]["notifications"]]

    assert sinks() == ["chat", "on-call"]
    added = {key: rollout[key] for key in ("apiVersion", "kind", "metadata")}
    patch = {**added, "spec": {"notifications": [{"sink": "on-call", "events": ["Stalled"]}]}}
    merged = {"resources": ["../base"], "patches": [{"patch": yaml.safe_dump(patch)}]}
    (tmp_path / "overlay" / "kustomization.yaml").write_text(yaml.safe_dump(merged))
    assert sinks() == ["on-call"]


def _restored() -> tuple[World, World]:
    """A rollout in its second phase, and the same one after only its spec and its document came back."""
    original = World(spec())
    original.until(at("two", 1))
    restored = World(spec(), now=original.now)
    restored.document = original.document
    restored.run(600)
    return original, restored


def test_a_restored_rollout_keeps_its_audiences() -> None:
    """D6: until `adopt`, and then it continues with the step that is published."""
    original, restored = _restored()
    assert restored.documents == []
    assert restored.reason is DecisionReason.ADOPTION_REQUIRED
    assert restored.answer(_run(restored, "Abort"))[0] is False
    assert restored.answer(_run(restored, "Adopt"))[0] is True
    restored.until(at("two", 1))
    assert original.document is not None
    for text in restored.documents:
        assert read_document(text).audiences == original.document.audiences


def test_an_emergency_action_on_a_restored_rollout_turns_off_its_feature_alone() -> None:
    """D6: a restored action without a response is carried out."""
    _, restored = _restored()
    assert restored.answer(_run(restored, "EmergencyDisable", features=["gamma"]))[0] is True
    assert [_has(restored, name) for name in ("alpha", "gamma")] == [True, False]


def _run(world: World, action: str, **fields: Any) -> str:
    name = world.request(action, **fields)
    world.run(10)
    return name


def test_a_rolled_back_rollout_stays_off_while_suspended() -> None:
    """Converting its manifest may change its plan, which would start it again."""
    world = World(spec())
    world.until(at("one", 1))
    assert _has(world, "alpha")
    world.request("Abort")
    world.until(ended)
    world.edit(with_another_plan(suspend=True))
    world.run(600)
    assert not _has(world, "alpha")
    world.edit(with_another_plan())
    world.until(at("one", 1))
    assert _has(world, "alpha"), "it has started again"


def _has(world: World, feature: str) -> bool:
    """Whether a member of the groups of the examples has the feature."""
    core = FlagdCore()
    core.set_flags(world.documents[-1])
    context = EvaluationContext("alice", {"groups": ["beta", "staff"]})
    return bool(core.resolve_boolean_value(feature, default_value=False, ctx=context).value)
