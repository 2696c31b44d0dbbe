"""`make krew RELEASES=https://...`: builds the plugin as one archive for this platform, and the manifest for krew.

Archives that were built on other platforms can be copied to build/krew first: the manifest gets an entry for each.
"""

import argparse
import gzip
import hashlib
import platform
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "krew"
PROGRAM = "kubectl-sessionrollout"
DISTRIBUTION = "session-rollout"
SYSTEMS = {"Linux": "linux", "Darwin": "darwin", "Windows": "windows"}  # the names of Go and krew
MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def freeze(work: Path) -> Path:
    """A folder with the program, its libraries and Python, which needs nothing else installed."""
    from PyInstaller.__main__ import run

    argv = ["--noconfirm", "--onedir", f"--name={PROGRAM}", "--log-level=WARN"]
    argv += [f"--distpath={work / 'dist'}", f"--workpath={work / 'work'}", f"--specpath={work}"]
    argv += ["--collect-submodules=session_rollout.cli", "--collect-data=session_rollout"]  # commands are loaded by name
    argv += [f"--copy-metadata={DISTRIBUTION}", str(ROOT / "operator" / "session_rollout" / "cli" / "__main__.py")]
    run(argv)
    return work / "dist" / PROGRAM


def pack(folder: Path, archive: Path) -> None:
    """Write a reproducible .tar.gz of the folder, without times and owners."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
        return member

    with archive.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=plain)


def manifest(archives: Path, release: str, base: str) -> dict[str, Any]:
    """Krew's manifest for all archives of this release in a folder."""
    made: dict[str, Any] = yaml.safe_load((ROOT / "tools" / "krew" / "sessionrollout.yaml").read_text())
    platforms = []
    for archive in sorted(archives.glob(f"{PROGRAM}-{release}-*.tar.gz")):
        system, machine = archive.name.removesuffix(".tar.gz").rsplit("-", 2)[1:]
        platforms.append(
            {
                "selector": {"matchLabels": {"os": system, "arch": machine}},
                "uri": f"{base.rstrip('/')}/{archive.name}",
                "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
                "bin": PROGRAM + (".exe" if system == "windows" else ""),
            }
        )
    made["spec"] |= {"version": f"v{release}", "homepage": base, "platforms": platforms}
    return made


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make krew")
    parser.add_argument("releases", help="base URL that the archives will be downloaded from, https://...")
    base = parser.parse_args().releases
    if not base.startswith("https://"):
        sys.exit(f"krew: RELEASES is {base!r}; it must be a URL that begins with https://")
    system, machine = SYSTEMS.get(platform.system()), MACHINES.get(platform.machine())
    if system is None or machine is None:
        sys.exit(
            f"krew: {platform.system()} on {platform.machine()} is not supported; supported: {'/'.join(SYSTEMS)} on amd64 and arm64"
        )
    BUILD.mkdir(parents=True, exist_ok=True)
    release = version(DISTRIBUTION)
    archive = BUILD / f"{PROGRAM}-{release}-{system}-{machine}.tar.gz"
    pack(freeze(BUILD / "frozen"), archive)
    target = BUILD / "sessionrollout.yaml"
    target.write_text(yaml.safe_dump(manifest(BUILD, release, base), sort_keys=False, width=120))
    print(f"{archive.relative_to(ROOT)}: {archive.stat().st_size / 1e6:.1f} MB\n{target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
