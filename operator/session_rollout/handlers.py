"""Kopf's decorators, and nothing else: events start and wake loops.

There are no create, update, delete or timer handlers: their state lives in annotations, and a rejected patch ends them silently. There
are no daemons either: one whose creation event was lost is never started, one whose finalizer cannot be removed is forgotten, and
each demands a finalizer. `controller.loops` runs the loops.
"""

from typing import Any

import kopf

from session_rollout.adapters.api_server import owner_uids
from session_rollout.adapters.flags import LABEL, document_of
from session_rollout.adapters.jobs import MIGRATION_LABEL
from session_rollout.adapters.rollouts import slim
from session_rollout.api import ACTIONS, GROUP, ROLLOUTS, VERSION
from session_rollout.ports import Key


@kopf.on.login()
async def login(memo: Any, **options: Any) -> kopf.AiohttpSession | None:
    """The Pod's ServiceAccount, or KUBECONFIG; read each time, so that a rotated token is picked up."""
    info = kopf.login_with_service_account(**options) or kopf.login_with_kubeconfig(**options)
    return None if info is None else memo.sessions.open(info)


@kopf.on.event(GROUP, VERSION, ROLLOUTS)  # type: ignore[arg-type]
async def rollout_changed(event: Any, namespace: str, name: str, memo: Any, **_: Any) -> None:
    """A rollout was created, changed or deleted."""
    memo.loops.rollout_changed(Key(namespace, name), slim(event["object"]), deleted=event["type"] == "DELETED")


@kopf.on.event(GROUP, VERSION, ACTIONS)
async def action_changed(event: Any, memo: Any, **_: Any) -> None:
    """An action was created, got its response or was deleted."""
    memo.inbox.action_changed(event["object"], deleted=event["type"] == "DELETED")


@kopf.on.event("batch", "v1", "jobs", labels={MIGRATION_LABEL: kopf.PRESENT, LABEL: kopf.PRESENT})  # type: ignore[arg-type]
async def job_changed(event: Any, namespace: str, labels: Any, memo: Any, **_: Any) -> None:
    """A migration Job changed."""
    memo.reconciler.job_changed(Key(namespace, labels[LABEL]), owner_uids(event["object"]))


@kopf.on.event("", "v1", "configmaps", labels={LABEL: kopf.PRESENT})  # type: ignore[arg-type]
async def document_changed(event: Any, namespace: str, name: str, memo: Any, **_: Any) -> None:
    """A flag document changed: the operator published it, or another client edited it. A copy of one has its label, too."""
    memo.reconciler.document_changed(Key(namespace, name), document_of(event["object"]), deleted=event["type"] == "DELETED")
