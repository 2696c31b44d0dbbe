"""Kopf's decorators, and nothing else: events wake loops, one daemon per object is its loop.

No create, update or timer handlers: their state lives in annotations and a rejected patch ends them silently. Kopf's
`patch` stays empty; status goes through our own writer.
"""

import asyncio
import random
from typing import Any

import kopf

from session_rollout.adapters.flags import LABEL, fingerprint_of
from session_rollout.adapters.jobs import MIGRATION_LABEL
from session_rollout.adapters.rollouts import parse
from session_rollout.adapters.telemetry import forget
from session_rollout.adapters.tracing import span
from session_rollout.api import ACTIONS, GROUP, ROLLOUTS, VERSION
from session_rollout.ports import Fingerprint, Key

JITTER = 0.05


@kopf.on.event(GROUP, VERSION, ROLLOUTS)  # type: ignore[arg-type]
async def wake(event: Any, namespace: str, name: str, body: Any, memo: Any, **_: Any) -> None:
    """The object changed.

    One that was deleted while no operator ran gets no daemon: Kopf takes the finalizer away as soon as this returns.
    """
    key = Key(namespace, name)
    if "deletionTimestamp" not in body["metadata"]:
        memo.has_daemon = True
    elif event["type"] != "DELETED" and not memo.get("has_daemon"):
        await memo.controller.finalize(key, body, parse)
        return
    memo.controller.of(key).wake.set()


@kopf.on.event(GROUP, VERSION, ACTIONS)
async def hear(event: Any, memo: Any, **_: Any) -> None:
    """Somebody asked for something."""
    memo.inbox.see(event["object"], deleted=event["type"] == "DELETED")


@kopf.on.event("batch", "v1", "jobs", labels={MIGRATION_LABEL: kopf.PRESENT})  # type: ignore[arg-type]
async def job_changed(namespace: str, labels: Any, memo: Any, **_: Any) -> None:
    """A migration Job moved."""
    memo.controller.of(Key(namespace, labels[LABEL])).wake.set()


@kopf.on.event("", "v1", "configmaps", labels={LABEL: kopf.PRESENT})  # type: ignore[arg-type]
async def document_changed(event: Any, namespace: str, labels: Any, memo: Any, **_: Any) -> None:
    """A flag document changed, by us or by somebody else."""
    seen = Fingerprint() if event["type"] == "DELETED" else fingerprint_of(event["object"])
    memo.controller.see_document(Key(namespace, labels[LABEL]), seen)


async def _rest(wake: asyncio.Event, stopped: Any, seconds: float) -> None:
    """Until something happens, the loop is to end, or the time is over."""
    waiting = [asyncio.ensure_future(wake.wait()), asyncio.ensure_future(stopped.wait())]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


@kopf.daemon(GROUP, VERSION, ROLLOUTS, cancellation_polling=1, backoff=5)  # type: ignore[arg-type]
async def reconcile(namespace: str, name: str, body: Any, memo: Any, stopped: Any, **_: Any) -> None:
    """The loop of one rollout; it never ends by itself."""
    key, controller = Key(namespace, name), memo.controller
    while not stopped:
        controller.of(key).wake.clear()  # before reading, or a change is lost
        with span("look", {"k8s.namespace.name": namespace, "sessionrollout.name": name}):
            seconds = await controller.look(key)
        controller.expect(key, seconds)
        await _rest(controller.of(key).wake, stopped, seconds + random.uniform(0, JITTER))  # noqa: S311
    if stopped.reason is not None and kopf.DaemonStoppingReason.RESOURCE_DELETED in stopped.reason:
        await controller.finalize(key, body, parse)
        forget(namespace, name)


@kopf.on.cleanup()
async def leave(memo: Any, **_: Any) -> None:
    """Told to end."""
    await memo.leave()
