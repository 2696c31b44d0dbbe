"""The chart's admission policies, asked as people with few rights."""

from collections.abc import Iterator
from typing import Any

import pytest

from lab.lab import Lab

NAMESPACE = "policies"
SPEC = {
    "flagSet": "policies",
    "features": [{"name": "alpha"}],
    "phases": [{"name": "one", "features": ["alpha"], "steps": [{"percent": 100, "hold": "1h"}]}],
}
MIGRATING = {
    **SPEC,
    "database": {"secretKeyRef": {"name": "labelled", "key": "url"}},
    "migrations": [{"name": "tables", "configMapRef": {"name": "sql"}}],
    "phases": [{**SPEC["phases"][0], "migrations": {"before": ["tables"]}}],  # type: ignore[dict-item]
}


@pytest.fixture(scope="module")
def people(lab: Lab) -> Iterator[Lab]:
    """`writer` may write rollouts; `editor` has Kubernetes' own role `edit`; two Secrets, one of them labelled."""
    lab.namespace(NAMESPACE)
    lab.database_secret("labelled", "postgresql://x", NAMESPACE)
    bare = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bare"}, "stringData": {"url": "x"}}
    lab.apply(bare, NAMESPACE)
    lab.kubectl("-n", NAMESPACE, "create", "role", "writer", "--verb=create,update,patch,get", "--resource=sessionrollouts")
    lab.kubectl("-n", NAMESPACE, "create", "rolebinding", "writer", "--role=writer", "--user=writer")
    lab.kubectl("-n", NAMESPACE, "create", "rolebinding", "editor", "--clusterrole=edit", "--user=editor")
    lab.until(lambda: _may(lab, "editor", "create", "sessionrollouts.sessionrollout.dev"), 30, "the aggregated role")
    yield lab
    lab.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _may(lab: Lab, user: str, verb: str, resource: str) -> bool:
    done = lab.kubectl("-n", NAMESPACE, "auth", "can-i", verb, resource, "--as", user, check=False)
    return done.stdout.strip() == "yes"


def refusal(lab: Lab, user: str, spec: Any, name: str = "one") -> str:
    """What the API server says to this rollout of this user; empty: accepted."""
    import json

    body = {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRollout",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
    done = lab.kubectl("apply", "--dry-run=server", "--as", user, "-f", "-", stdin=json.dumps(body), check=False)
    return done.stderr if done.returncode else ""


def test_a_rollout_without_migrations_needs_no_right_on_jobs(people: Lab) -> None:
    assert refusal(people, "writer", SPEC) == ""


def test_who_writes_migrations_must_be_allowed_to_create_jobs(people: Lab) -> None:
    message = refusal(people, "writer", MIGRATING)
    assert 'spec.migrations: User "writer" cannot create resource "jobs" in API group "batch"' in message
    assert refusal(people, "editor", MIGRATING) == ""


@pytest.mark.parametrize("field", ["secretKeyRef", "dataSecretKeyRef"])
def test_only_labelled_secrets_may_be_named(people: Lab, field: str) -> None:
    named = {"secretKeyRef": {"name": "labelled", "key": "url"}, field: {"name": "bare", "key": "url"}}
    message = refusal(people, "editor", {**MIGRATING, "database": named})
    assert f'spec.database.{field}.name: the Secret "bare" must have the label sessionrollout.dev/database=allowed' in message
    assert refusal(people, "editor", MIGRATING) == ""


def test_roles_of_kubernetes_hold_the_kinds(people: Lab) -> None:
    """`view` looks, `edit` writes and pauses, `admin` overrides."""
    for role, may, may_not in (
        ("view", "get", "create"),
        ("edit", "pause", "approve"),
        ("admin", "emergencydisable", "impersonate"),
    ):
        user = f"{role}-user"
        people.kubectl("-n", NAMESPACE, "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}")
        people.until(
            lambda u=user, v=may: _may(people, u, v, "sessionrolloutactions.sessionrollout.dev"), 30, f"{role} may {may}"
        )
        assert not _may(people, user, may_not, "sessionrolloutactions.sessionrollout.dev")


def test_an_object_that_was_there_before_the_policy_is_left_in_peace(people: Lab) -> None:
    """Status and finalizer change without the spec: neither policy is asked."""
    people.apply(
        {
            "apiVersion": "sessionrollout.dev/v1alpha1",
            "kind": "SessionRollout",
            "metadata": {"name": "before", "namespace": NAMESPACE},
            "spec": {**MIGRATING, "suspend": True},
        }
    )
    secret = f"/api/v1/namespaces/{NAMESPACE}/secrets/labelled"
    people.kube.merge(secret, {"metadata": {"labels": {"sessionrollout.dev/database": None}}})
    try:
        path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrollouts/before"
        changed = people.kube.merge(path, {"metadata": {"finalizers": ["example.org/x"]}})
        assert changed["metadata"]["finalizers"] == ["example.org/x"]
        people.kube.merge(path, {"metadata": {"finalizers": None}})
    finally:
        people.kube.merge(secret, {"metadata": {"labels": {"sessionrollout.dev/database": "allowed"}}})
