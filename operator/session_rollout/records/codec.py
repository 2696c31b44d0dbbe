"""How decision records are packed into a ring of ConfigMaps: one compressed entry each, the first of a slot is the dictionary.

Kept separate from `record` so that readers of values avoid importing the decision code.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from session_rollout.api import GROUP

RECORD_LABEL: Final = f"{GROUP}/record-of"  # of the ConfigMaps: the rollout's name
SLOTS: Final = 16
SEQUENCE: Final = "sequence"  # of a slot: the highest is the newest
BASE: Final = "base"
WINDOW: Final = 32 * 1024
Slot = Mapping[str, Any]  # a ConfigMap of the ring


def config_map_name(rollout: str, slot: int) -> str:
    """Name of one ConfigMap of the ring."""
    return f"{rollout}-decisions-{slot:02}"


def of_ring(slots: Iterable[Slot]) -> list[Slot]:
    """The ConfigMaps that the records of a rollout are in: a copy of one has its label, too."""
    return [slot for slot in slots if _is_of_ring(slot["metadata"])]


def _is_of_ring(metadata: Mapping[str, Any]) -> bool:
    rollout = metadata["labels"][RECORD_LABEL]
    return metadata["name"] in {config_map_name(rollout, number) for number in range(SLOTS)}


def sequence_of(slot: Slot) -> int:
    """The number of a slot, by which the newest is found; -1 if somebody has edited it."""
    try:
        return int(slot["data"][SEQUENCE])
    except (KeyError, TypeError, ValueError):
        return -1


def entries_of(slot: Slot) -> dict[str, bytes]:
    """The compressed entries of a slot. Raises ValueError."""
    return {key: base64.b64decode(text) for key, text in (slot.get("binaryData") or {}).items()}


def entry_name(number: int) -> str:
    """Key of an entry; keys sort as the entries were written."""
    return f"entry-{number:05}"


def pack(line: bytes, base: bytes = b"") -> bytes:
    """A line compressed; with another line as its dictionary, only what differs takes room."""
    packer = zlib.compressobj(level=6, zdict=base[-WINDOW:]) if base else zlib.compressobj(level=6)
    return packer.compress(line) + packer.flush()


def unpack(packed: bytes, base: bytes = b"") -> bytes:
    """The line. Raises zlib.error, also when a part of it is missing."""
    unpacker = zlib.decompressobj(zdict=base[-WINDOW:]) if base else zlib.decompressobj()
    line = unpacker.decompress(packed)
    if not unpacker.eof:
        raise zlib.error("the end is missing")
    return line


def base_of(entries: Mapping[str, bytes]) -> bytes:
    """The first line of a slot, which is the dictionary of the others. Raises ValueError."""
    try:
        return unpack(entries[BASE])
    except (zlib.error, KeyError) as error:
        raise ValueError(f"the records cannot be read: {error}") from error


def lines_in(entries: Mapping[str, bytes], newest: int = 0) -> list[bytes]:
    """The lines of one slot, oldest first; the newest alone where a number is given. Raises ValueError."""
    base = base_of(entries)
    names = sorted(name for name in entries if name != BASE)
    chosen = names[-newest:] if newest else names
    try:
        rest = [unpack(entries[name], base) for name in chosen]
    except zlib.error as error:
        raise ValueError(f"the records cannot be read: {error}") from error
    return rest if newest and len(rest) == newest else [base, *rest]
