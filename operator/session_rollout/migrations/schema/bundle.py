"""Bundles: `NNNN_name.up.sql` with its `.down.sql`, or `copy.yaml`; shipped with the image or mounted from a ConfigMap."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent / "bundles"
COPY: Final = "copy.yaml"
FILE: Final = re.compile(r"^(?P<version>[0-9]{4})_(?P<name>[a-z0-9_]+)\.(?P<direction>up|down)\.sql$")
_NOISE: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_CONCURRENTLY: Final = re.compile(r"\b(?:INDEX\s+CONCURRENTLY|CONCURRENTLY\s+\w)", re.IGNORECASE)


class BundleError(Exception):
    """The bundle cannot be used; the message names the file and what is allowed."""


def bare(text: str) -> str:
    """SQL without comments and the insides of strings, so that words can be looked for; positions of lines are kept."""
    return _NOISE.sub(lambda found: "\n" * found[0].count("\n") or " ", text)


def statements(text: str) -> list[str]:
    """The statements of a bare text."""
    return [part.strip() for part in bare(text).split(";") if part.strip()]


def concurrent(text: str) -> bool:
    """Whether it builds or drops an index without blocking writes: outside a transaction."""
    return bool(_CONCURRENTLY.search(bare(text)))


@dataclass(frozen=True)
class Step:
    """One file pair: takes effect in one transaction, together with its ledger row; or builds one index outside of one."""

    version: int
    name: str
    up: str
    down: str
    no_return: bool = False

    @property
    def checksum(self) -> str:
        """sha256 of the up SQL, with line ends and trailing space normalised."""
        text = "\n".join(line.rstrip() for line in self.up.strip().splitlines())
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def file(self) -> str:
        """Name of the up file, for messages."""
        return f"{self.version:04d}_{self.name}.up.sql"


def shipped(bundle: str) -> Path:
    """Directory of a bundle of this image. Raises BundleError."""
    directory = SHIPPED / bundle
    if not directory.is_dir():
        known = sorted(str(path.relative_to(SHIPPED)) for path in SHIPPED.glob("*/*") if path.is_dir())
        raise BundleError(f"bundle {bundle} is not shipped with this image; shipped are {', '.join(known)}")
    return directory


def is_copy(directory: Path) -> bool:
    """Whether the bundle moves data instead of changing the schema. Raises BundleError when it says both."""
    copies, files = (directory / COPY).exists(), any(directory.glob("*.sql"))
    if copies and files:
        raise BundleError(f"{directory.name} must have either {COPY} or NNNN_name.up.sql files, and it has both")
    return copies


def load(directory: Path, point_of_no_return: int | None = None) -> tuple[Step, ...]:
    """The steps of a bundle in order; those from the point of no return on cannot be undone. Raises BundleError."""
    found: dict[tuple[int, str], dict[str, str]] = {}
    for path in sorted(directory.glob("*.sql")):
        match = FILE.match(path.name)
        if match is None:
            raise BundleError(f"{path.name} must be called like 0001_create_tables.up.sql or .down.sql")
        key = (int(match["version"]), match["name"])
        found.setdefault(key, {})[match["direction"]] = path.read_text()
    _refuse_incomplete(found, directory)
    steps = tuple(
        Step(version, name, texts["up"], texts["down"], no_return=version >= (point_of_no_return or 10**9))
        for (version, name), texts in sorted(found.items())
    )
    for step in steps:
        _refuse_mixed(step)
    if point_of_no_return is not None and point_of_no_return not in {step.version for step in steps}:
        numbers = ", ".join(str(step.version) for step in steps)
        raise BundleError(f"`pointOfNoReturn` is {point_of_no_return}, and it must be the number of a step: {numbers}")
    return steps


def _refuse_incomplete(found: dict[tuple[int, str], dict[str, str]], directory: Path) -> None:
    for (version, name), texts in found.items():
        if "up" not in texts or "down" not in texts:
            raise BundleError(f"{version:04d}_{name} must have both an .up.sql and a .down.sql")
    if len({version for version, _ in found}) != len(found):
        raise BundleError("two steps have the same number, and each must have its own")
    if not found:
        raise BundleError(f"no NNNN_name.up.sql in {directory.name}")


def _refuse_mixed(step: Step) -> None:
    for direction, text in (("up", step.up), ("down", step.down)):
        if concurrent(text) and len(statements(text)) > 1:
            raise BundleError(
                f"{step.version:04d}_{step.name}.{direction}.sql has {len(statements(text))} statements, one of them CONCURRENTLY:"
                " that one runs outside a transaction and must be alone in its file"
            )


def checksum(steps: tuple[Step, ...]) -> str:
    """One fingerprint of the whole bundle."""
    text = "\n".join(f"{step.version}:{step.name}:{step.checksum}" for step in steps)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
