"""Kopf's decorators, and nothing else: events wake loops, and one daemon per rollout runs its loop.

There are no create, update or timer handlers: their state lives in annotations, and a rejected patch ends them silently.
Kopf's `patch` is always empty, because status goes through our own writer.
"""

from typing import Any

import kopf

from session_rollout.adapters.flags import LABEL, document_of
from session_rollout.adapters.jobs import MIGRATION_LABEL
from session_rollout.api import ACTIONS, GROUP, ROLLOUTS, VERSION
from session_rollout.ports import Key


@kopf.on.login()
async def login(**options: Any) -> kopf.ConnectionInfo | None:
    """The Pod's ServiceAccount, or KUBECONFIG; read each time, so that a rotated token is picked up."""
    return kopf.login_with_service_account(**options) or kopf.login_with_kubeconfig(**options)


@kopf.on.event(GROUP, VERSION, ROLLOUTS)  # type: ignore[arg-type]
async def rollout_changed(event: Any, namespace: str, name: str, memo: Any, **_: Any) -> None:
    """A rollout was created, changed or deleted."""
    key, deleted = Key(namespace, name), event["type"] == "DELETED"
    await memo.reconciler.rollout_changed(key, event["object"], deleted=deleted)


@kopf.on.event(GROUP, VERSION, ACTIONS)
async def action_changed(event: Any, memo: Any, **_: Any) -> None:
    """An action was created, got its response or was deleted."""
    memo.inbox.action_changed(event["object"], deleted=event["type"] == "DELETED")


@kopf.on.event("batch", "v1", "jobs", labels={MIGRATION_LABEL: kopf.PRESENT})  # type: ignore[arg-type]
async def job_changed(namespace: str, labels: Any, memo: Any, **_: Any) -> None:
    """A migration Job changed."""
    memo.reconciler.job_changed(Key(namespace, labels[LABEL]))


@kopf.on.event("", "v1", "configmaps", labels={LABEL: kopf.PRESENT})  # type: ignore[arg-type]
async def document_changed(event: Any, namespace: str, labels: Any, memo: Any, **_: Any) -> None:
    """A flag document changed: the operator published it, or another client edited it."""
    memo.reconciler.document_changed(
        Key(namespace, labels[LABEL]), document_of(event["object"]), deleted=event["type"] == "DELETED"
    )


@kopf.daemon(GROUP, VERSION, ROLLOUTS, cancellation_polling=1, backoff=5)  # type: ignore[arg-type]
async def reconcile(namespace: str, name: str, body: Any, memo: Any, stopped: Any, **_: Any) -> None:
    """The loop of one rollout, until the process ends or the rollout is deleted."""
    await memo.reconciler.run(Key(namespace, name), stopped)
    if stopped.reason is not None and kopf.DaemonStoppingReason.RESOURCE_DELETED in stopped.reason:
        await memo.deletion.finalize(body)


@kopf.on.cleanup()
async def leave(memo: Any, **_: Any) -> None:
    """Kopf stops."""
    await memo.leave()
