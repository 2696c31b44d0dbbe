"""The Role for the runbooks of the operator's alerts: it allows what their commands need, and nothing else.

Not here: what an API server says to a user with this Role (tests/cli/test_roles.py).
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tools.chart import build

pytestmark = pytest.mark.lab  # helm is built once
ROLE = "session-rollout-operator-support"
RUNBOOKS = build.ROOT / "docs" / "runbooks"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"kubectl -n session-rollout ([^)\n]+)")
Needed = tuple[str, str, str]  # resource, verb, and the name if the Role is restricted to it
PLURAL = {"pod": "pods", "pods": "pods", "lease": "leases", "deployment": "deployments"}
RESTRICTED = {"leases", "deployments"}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command for the operator's namespace, with its runbook."""
    for path in sorted(RUNBOOKS.glob("SessionRollout*.md")):
        for block in BLOCK.findall(path.read_text()):
            for command in COMMAND.findall(block):
                yield path.stem, shlex.split(command)


def needs(words: list[str]) -> set[Needed]:
    """What kubectl requests for a command. Raises KeyError for a command that is not known here."""
    verb, *arguments = words
    if verb == "logs":
        return {("pods/log", "get", ""), ("pods", "list" if "-l" in arguments else "get", "")}
    resource = PLURAL[arguments[0]]
    name = arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") else ""
    restricted = name if resource in RESTRICTED else ""
    return {
        "get": {(resource, "get" if name else "list", restricted)},
        "describe": {(resource, "get", restricted), ("events", "list", "")},
        "delete": {(resource, each, restricted) for each in ("delete", "get", "list", "watch")},  # it waits for the end
    }[verb]


def granted() -> set[Needed]:
    """Every verb of the Role."""
    [role] = [document for document in build.render({}) if document["metadata"]["name"] == ROLE]
    assert (role["kind"], role["metadata"]["namespace"]) == ("Role", build.NAMESPACE)
    rules: list[dict[str, Any]] = role["rules"]
    return {
        (resource, verb, name)
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def test_the_role_allows_exactly_the_commands_of_the_runbooks() -> None:
    """A verb that no runbook needs is one too many."""
    needed = {need for _, words in commands() for need in needs(words)}
    assert needed == granted()


def test_runbooks_with_such_commands_name_the_role() -> None:
    """And they are those of the operator itself."""
    runbooks = {runbook for runbook, _ in commands()}
    assert runbooks == {f"SessionRollout{name}" for name in ("ApiErrors", "OperatorDown", "ReconcileOverdue", "ReconcileStuck")}
    assert [name for name in runbooks if ROLE not in (RUNBOOKS / f"{name}.md").read_text()] == []


def test_the_role_is_a_user_role() -> None:
    """Without user roles, it is not there either."""
    names = {document["metadata"]["name"] for document in build.render({"rbac": {"userRoles": False}})}
    assert ROLE not in names
