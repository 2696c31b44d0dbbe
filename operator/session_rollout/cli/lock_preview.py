"""Locks that each migration would take, as far as its files tell. A rehearsal has no database."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from session_rollout.api.migration import Migration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.yaml_source import Document
from session_rollout.errors import BundleError
from session_rollout.migrations.schema.bundle import Step, is_copy, load, shipped
from session_rollout.migrations.schema.locks import locks_of


def lock_lines(spec: RolloutSpec, documents: Sequence[Document]) -> dict[str, list[str]]:
    """By migration: one line for each step, or one that says how to see the locks."""
    return {migration.name: _lines(migration, documents) for migration in spec.migrations}


def _lines(migration: Migration, documents: Sequence[Document]) -> list[str]:
    try:
        if migration.bundle is not None:
            directory = shipped(migration.bundle)
            return [_COPY] if is_copy(directory) else _of_steps(load(directory))
        reference = migration.config_map_ref
        maps = (document for document in documents if document.kind == "ConfigMap")
        source = next((document for document in maps if reference and document.name == reference.name), None)
        if source is None:
            return [f"unknown, because the SQL is not in this file; run `migrations plan {migration.name}` to see the locks"]
        return _of_config_map(source.data)
    except BundleError as error:
        return [f"the migration will fail: {error}"]


_COPY = "rows are copied in small batches; writes to the source are blocked briefly while its trigger is created"


def _of_config_map(data: Mapping[str, Any]) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        for name, text in (data.get("data") or {}).items():
            if "/" in str(name) or not isinstance(text, str):
                raise BundleError(f"{name} is not an SQL file")
            Path(directory, name).write_text(text)
        return [_COPY] if is_copy(Path(directory)) else _of_steps(load(Path(directory)))


def _of_steps(steps: tuple[Step, ...]) -> list[str]:
    locks = {
        file: "; ".join(f"{lock.table} {lock.mode}, {lock.blocks}" for lock in taken) for file, taken in locks_of(steps).items()
    }
    return [f"{step.file}: {locks[step.file] or 'no existing table'}" for step in steps]
