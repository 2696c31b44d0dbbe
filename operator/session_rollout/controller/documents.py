"""Whose flag document it is: its label says so, or its text where the label is lost, as long as that rollout exists."""

from dataclasses import replace
from functools import partial

from session_rollout.api.rollout import SessionRollout
from session_rollout.controller.requests import read_soon
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import config_map_name
from session_rollout.ports import Key, Ports


class Documents:
    """Reads flag documents as their rollouts may write them."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def read(self, rollout: SessionRollout) -> PublishedDocument | None:
        """The document with the `flagSet` of a rollout.

        Its owner is another rollout only if that one exists and has this `flagSet`. What a rollout that is gone has left behind has no
        owner: else nobody could turn its features off.
        """
        name = config_map_name(rollout.spec.flag_set)
        document = await read_soon(partial(self._ports.flags.read, rollout.namespace, name))
        named = None if document is None else document.owner or document.author
        if document is None or named in {None, rollout.name}:
            return document
        if await self._has(Key(rollout.namespace, named), name):
            return replace(document, owner=named)
        return replace(document, owner=None, labelled=False)

    async def _has(self, key: Key, config_map: str) -> bool:
        other = await read_soon(partial(self._ports.store.read, key))
        return other is not None and config_map_name(other.rollout.spec.flag_set) == config_map
