"""What each migration of a programme would lock, as far as files tell: for a rehearsal, which has no database."""

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
    """By migration: a line for each step, or one that says where its locks can be seen."""
    return {migration.name: _lines(migration, documents) for migration in spec.migrations}


def _lines(migration: Migration, documents: Sequence[Document]) -> list[str]:
    try:
        if migration.bundle is not None:
            directory = shipped(migration.bundle)
            return [_COPY] if is_copy(directory) else _of_steps(load(directory))
        reference = migration.config_map_ref
        found = next((one for one in documents if one.kind == "ConfigMap" and reference and one.name == reference.name), None)
        if found is None:
            return [f"its SQL is not in this file: `migrations plan {migration.name}` shows its locks"]
        return _of_config_map(found.data)
    except BundleError as error:
        return [f"it will fail: {error}"]


_COPY = "rows are moved in small batches; the source is locked for a moment while its trigger is made (blocks writes)"


def _of_config_map(data: Mapping[str, Any]) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        for name, text in (data.get("data") or {}).items():
            if "/" in str(name) or not isinstance(text, str):
                raise BundleError(f"{name} is no file with SQL")
            Path(directory, name).write_text(text)
        return [_COPY] if is_copy(Path(directory)) else _of_steps(load(Path(directory)))


def _of_steps(steps: tuple[Step, ...]) -> list[str]:
    found = locks_of(steps)
    return [
        f"{step.file}: "
        + ("; ".join(f"{lock.table} {lock.mode}, {lock.blocks}" for lock in found[step.file]) or "nothing in use")
        for step in steps
    ]
