"""Bundles of SQL: `NNNN_name.up.sql` with its `NNNN_name.down.sql`, shipped with the image or mounted from a ConfigMap."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent / "bundles"
FILE: Final = re.compile(r"^(?P<version>[0-9]{4})_(?P<name>[a-z0-9_]+)\.(?P<direction>up|down)\.sql$")


class BundleError(Exception):
    """The bundle cannot be used; the message names the file and what is allowed."""


@dataclass(frozen=True)
class Step:
    """One file pair: takes effect in one transaction, together with its ledger row."""

    version: int
    name: str
    up: str
    down: str

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
        known = sorted(str(path.parent.relative_to(SHIPPED)) for path in SHIPPED.glob("*/*/0001_*.up.sql"))
        raise BundleError(f"bundle {bundle} is not shipped with this image; shipped are {', '.join(known)}")
    return directory


def load(directory: Path) -> tuple[Step, ...]:
    """The steps of a bundle in order. Raises BundleError."""
    found: dict[tuple[int, str], dict[str, str]] = {}
    for path in sorted(directory.glob("*.sql")):
        match = FILE.match(path.name)
        if match is None:
            raise BundleError(f"{path.name} must be called like 0001_create_tables.up.sql or .down.sql")
        key = (int(match["version"]), match["name"])
        found.setdefault(key, {})[match["direction"]] = path.read_text()
    for (version, name), texts in found.items():
        if "up" not in texts or "down" not in texts:
            raise BundleError(f"{version:04d}_{name} must have both an .up.sql and a .down.sql")
    if len({version for version, _ in found}) != len(found):
        raise BundleError("two steps have the same number, and each must have its own")
    if not found:
        raise BundleError(f"no NNNN_name.up.sql in {directory.name}")
    return tuple(Step(version, name, texts["up"], texts["down"]) for (version, name), texts in sorted(found.items()))


def checksum(steps: tuple[Step, ...]) -> str:
    """One fingerprint of the whole bundle."""
    text = "\n".join(f"{step.version}:{step.name}:{step.checksum}" for step in steps)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
