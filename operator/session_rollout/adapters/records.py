"""Decision records (port `Recorder`): all inputs of `decide`, kept next to the rollout so that decisions can be replayed.

A ring of ConfigMaps holds the last decisions, one compressed entry each. `records.record` reads them, and the same `decide`
makes the same decision. An entry is added by a small merge patch. A slot of the ring starts with an entry that stands alone
and is the dictionary of the others. Writing is not part of deciding: what fails is written with the next decision, and what takes long
continues in the background.
"""

import base64
import logging
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from session_rollout.adapters.api_server import JSON_PATCH, MERGE, ApiServer, owner_of, owner_uids
from session_rollout.adapters.labels import recommended
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.observed import Decision, Observed
from session_rollout.errors import Conflict, NotFound, RolloutError
from session_rollout.records.codec import (
    BASE,
    RECORD_LABEL,
    SEQUENCE,
    SLOTS,
    base_of,
    config_map_name,
    entries_of,
    entry_name,
    of_ring,
    pack,
    sequence_of,
)
from session_rollout.records.record import Record, line_of
from session_rollout.tasks import Background

log = logging.getLogger(__name__)
SLOT_BYTES: Final = 48 * 1024
WAITING_LENGTH: Final = 64  # decisions that wait to be written
WRITE_SECONDS: Final = 1.0  # that a decision waits for its record
AT_ONCE: Final = 16


@dataclass
class Ring:
    """Where one rollout's records are."""

    read: bool = False  # whether it is known where the process before this one stopped
    sequence: int = -1  # of the slot that is written now; the slot itself is that modulo the size of the ring
    base: bytes = b""  # its first line
    entries: int = 0
    size: int = SLOT_BYTES  # full: the first entry begins a slot
    waiting: deque[Record] = field(default_factory=lambda: deque(maxlen=WAITING_LENGTH))


class ConfigMapRecorder:
    """The rings of all rollouts."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._rings: dict[str, Ring] = {}
        self._background = Background("records", AT_ONCE)

    async def keep(self, observed: Observed, now: datetime, decision: Decision) -> None:
        """See `Recorder.keep`."""
        rollout = observed.rollout
        ring = self._rings.setdefault(rollout.uid, Ring())
        ring.waiting.append(Record.of(observed, now, decision))
        await self._background.give(rollout.uid, partial(self._write_all, rollout, ring), WRITE_SECONDS)

    async def _write_all(self, rollout: SessionRollout, ring: Ring) -> None:
        try:
            while ring.waiting:
                async with self._background.slot:
                    await self._write_first(rollout, ring)
        except RolloutError as error:
            log.warning("decision not recorded yet: %s", error, extra={"namespace": rollout.namespace, "rollout": rollout.name})

    async def _write_first(self, rollout: SessionRollout, ring: Ring) -> None:
        if not ring.read:
            await self._read(rollout, ring)
        record = ring.waiting[0]
        await self._write(rollout, ring, line_of(record))
        if ring.waiting[0] is record:  # otherwise it was dropped while it was written
            ring.waiting.popleft()

    def forget(self, uid: str) -> None:
        """See `Recorder.forget`."""
        self._rings.pop(uid, None)

    async def _read(self, rollout: SessionRollout, ring: Ring) -> None:
        """Where the process before this one stopped: the slot with the highest sequence number."""
        path = f"/api/v1/namespaces/{rollout.namespace}/configmaps"
        listed = await self._api.request("GET", path, query={"labelSelector": f"{RECORD_LABEL}={rollout.name}"})
        ring.read = True
        slots = of_ring(listed["items"])
        if not slots:
            # The first decision about this rollout: its record begins the first slot.
            return
        last = max(slots, key=sequence_of)
        ring.sequence = sequence_of(last)
        if ring.sequence < 0 or rollout.uid not in owner_uids(last):
            return  # edited, or of a rollout that had the name before: its records stay until the ring comes to them
        try:
            packed = entries_of(last)
            ring.base = base_of(packed)
        except ValueError:
            return  # somebody has edited it
        ring.entries, ring.size = len(packed) - 1, sum(len(entry) for entry in packed.values())

    async def _write(self, rollout: SessionRollout, ring: Ring, line: bytes) -> None:
        packed = pack(line, ring.base)
        if ring.size + len(packed) > SLOT_BYTES:
            await self._begin_slot(rollout, ring, line)
            return
        entry = {"binaryData": {entry_name(ring.entries): base64.b64encode(packed).decode()}}
        path = _path(rollout, config_map_name(rollout.name, ring.sequence % SLOTS))
        try:
            await self._api.request("PATCH", path, entry, content=MERGE)
        except NotFound:  # another client deleted the slot
            await self._begin_slot(rollout, ring, line)
            return
        ring.entries, ring.size = ring.entries + 1, ring.size + len(packed)

    async def _begin_slot(self, rollout: SessionRollout, ring: Ring, line: bytes) -> None:
        sequence, packed = ring.sequence + 1, pack(line)
        data, binary = {SEQUENCE: str(sequence)}, {BASE: base64.b64encode(packed).decode()}
        name = config_map_name(rollout.name, sequence % SLOTS)
        labels = {RECORD_LABEL: rollout.name, **recommended("record")}
        metadata = {"name": name, "labels": labels, "ownerReferences": [owner_of(rollout)]}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "binaryData": binary}
        try:
            await self._api.request("POST", f"/api/v1/namespaces/{rollout.namespace}/configmaps", body)
        except Conflict:
            # Its owner stays: another one may be given only by those who may delete the ConfigMap.
            patch = [{"op": "add", "path": "/data", "value": data}, {"op": "add", "path": "/binaryData", "value": binary}]
            await self._api.request("PATCH", _path(rollout, name), patch, content=JSON_PATCH)
        ring.sequence, ring.base, ring.entries, ring.size = sequence, line, 0, len(packed)


def _path(rollout: SessionRollout, name: str) -> str:
    return f"/api/v1/namespaces/{rollout.namespace}/configmaps/{name}"
