"""Bundles: files `NNNN_name.up.sql` with `NNNN_name.down.sql`, or one `copy.yaml`; shipped with the image or in a ConfigMap."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from session_rollout.api.base import sha256_of
from session_rollout.errors import BundleError

SHIPPED: Final = Path(__file__).parent.parent / "bundles"
COPY_FILE: Final = "copy.yaml"
CONTRACT: Final = "Contract"  # the only `change` that may drop and rename
LAST_VERSION: Final = 9999
FILE: Final = re.compile(r"^(?P<version>[0-9]{4})_(?P<name>[a-z0-9_]+)\.(?P<direction>up|down)\.sql$")
_NOISE: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_CONCURRENTLY: Final = re.compile(r"\b(?:INDEX\s+CONCURRENTLY|CONCURRENTLY\s+\w)", re.IGNORECASE)


# --- SQL text


def without_literals(text: str) -> str:
    """The SQL without comments and strings, for searches by pattern; line numbers are the same.

    A pattern is not a parser: it misreads E'' strings and nested comments. What must not happen is therefore also checked in the
    database, see `runner`.
    """
    return _NOISE.sub(lambda match: "\n" * match[0].count("\n") or " ", text)


def statements(text: str) -> list[str]:
    """The statements of the SQL, without comments and strings."""
    return [part.strip() for part in without_literals(text).split(";") if part.strip()]


def is_concurrent(text: str) -> bool:
    """Whether the SQL builds or drops an index CONCURRENTLY, which PostgreSQL only does outside a transaction."""
    return bool(_CONCURRENTLY.search(without_literals(text)))


# --- steps


@dataclass(frozen=True)
class Step:
    """A pair of files: applied in one transaction together with its ledger row, or one index build outside a transaction."""

    version: int
    name: str
    up: str
    down: str
    no_return: bool = False  # declared as irreversible by `pointOfNoReturn`

    @property
    def checksum(self) -> str:
        """sha256 of the up SQL; trailing whitespace and the kind of line ends do not count."""
        text = "\n".join(line.rstrip() for line in self.up.strip().splitlines())
        return sha256_of(text)

    @property
    def file(self) -> str:
        """Name of the up file: `0001_create_tables.up.sql`."""
        return f"{self.version:04d}_{self.name}.up.sql"


@dataclass(frozen=True)
class Bundle:
    """A bundle of SQL files with its options."""

    name: str  # in the ledger
    steps: tuple[Step, ...]
    change: str = "Expand"  # Expand, Migrate or Contract: what the steps may do


# --- files


def shipped(bundle: str) -> Path:
    """Directory of a bundle of this image. Raises BundleError."""
    directory = SHIPPED / bundle
    if not directory.is_dir():
        known = sorted(str(path.relative_to(SHIPPED)) for path in SHIPPED.glob("*/*") if path.is_dir())
        raise BundleError(f"bundle {bundle} is not part of this image; allowed are {', '.join(known)}")
    return directory


def is_copy(directory: Path) -> bool:
    """Whether the bundle copies rows instead of changing the schema. Raises BundleError when it has files of both kinds."""
    has_copy, has_sql = (directory / COPY_FILE).exists(), any(directory.glob("*.sql"))
    if has_copy and has_sql:
        raise BundleError(f"{directory.name} has both {COPY_FILE} and SQL files: it must have only one of them")
    return has_copy


def load(directory: Path, point_of_no_return: int | None = None) -> tuple[Step, ...]:
    """The steps of a bundle in order; those from number `point_of_no_return` on are irreversible. Raises BundleError."""
    texts = _read(directory)
    _refuse_incomplete(texts, directory)
    steps = tuple(
        Step(version, name, pair["up"], pair["down"], no_return=version >= (point_of_no_return or LAST_VERSION + 1))
        for (version, name), pair in sorted(texts.items())
    )
    for step in steps:
        _refuse_mixed(step)
    if point_of_no_return is not None and point_of_no_return not in {step.version for step in steps}:
        numbers = ", ".join(str(step.version) for step in steps)
        raise BundleError(f"`pointOfNoReturn` is {point_of_no_return}: it must be the number of an SQL step, one of {numbers}")
    return steps


def _read(directory: Path) -> dict[tuple[int, str], dict[str, str]]:
    """By number and name: the SQL of `up` and `down`."""
    texts: dict[tuple[int, str], dict[str, str]] = {}
    for path in sorted(directory.glob("*.sql")):
        match = FILE.match(path.name)
        if match is None:
            raise BundleError(f"{path.name}: the name must be like 0001_create_tables.up.sql or 0001_create_tables.down.sql")
        texts.setdefault((int(match["version"]), match["name"]), {})[match["direction"]] = path.read_text()
    return texts


def _refuse_incomplete(texts: dict[tuple[int, str], dict[str, str]], directory: Path) -> None:
    for (version, name), pair in texts.items():
        if "up" not in pair or "down" not in pair:
            raise BundleError(f"{version:04d}_{name} must have both an .up.sql and a .down.sql file")
    if len({version for version, _ in texts}) != len(texts):
        raise BundleError("two SQL steps have the same number: each SQL step must have its own")
    if not texts:
        raise BundleError(f"{directory.name} has no file NNNN_name.up.sql")


def _refuse_mixed(step: Step) -> None:
    for direction, text in (("up", step.up), ("down", step.down)):
        if is_concurrent(text) and len(statements(text)) > 1:
            raise BundleError(
                f"{step.version:04d}_{step.name}.{direction}.sql has {len(statements(text))} statements, one of them CONCURRENTLY:"
                " a statement with CONCURRENTLY runs outside a transaction and must be the only one in its file"
            )


def checksum(steps: tuple[Step, ...]) -> str:
    """sha256 of the whole bundle."""
    text = "\n".join(f"{step.version}:{step.name}:{step.checksum}" for step in steps)
    return sha256_of(text)
