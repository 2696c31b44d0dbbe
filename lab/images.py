"""Container images on a machine that may reach no registry: podman, a base made from Debian packages, and our own.

`make image` builds the image twice and prints its size, layers and start time, whether both builds are the same, and what is in it.

Debian's python3 in a minimal root stands for the official `python` image where that cannot be pulled; the Dockerfile is the same.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from lab import sources

ROOT: Final = Path(__file__).parents[1]
BASE: Final = "docker.io/library/python:3.13-slim-trixie"
OPERATOR: Final = "docker.io/library/session-rollout:0.1.0"
APPLICATION: Final = "docker.io/library/analy-ticket-web:lab"
PAUSE: Final = "localhost/pause:lab"
AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"
# Limits that a machine without CAP_SYS_RESOURCE can give, and its own certificate authorities while something is built.
CONFIGURATION: Final = f"""[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
volumes = ["{AUTHORITIES}:{AUTHORITIES}:ro"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
"""


@functools.cache
def _environment() -> dict[str, str]:
    path = sources.cache() / "containers.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIGURATION)
    return {**os.environ, "CONTAINERS_CONF": str(path)}


def podman(*argv: str, check: bool = True) -> str:
    """Run podman; what it printed. Raises SystemExit with its own words."""
    done = subprocess.run(["podman", *argv], capture_output=True, text=True, check=False, cwd=ROOT, env=_environment())
    if check and done.returncode:
        raise SystemExit(f"lab: podman {' '.join(argv[:3])} ...: {done.stderr.strip()[-2000:]}")
    return str(done.stdout).strip()


def exists(image: str) -> bool:
    """Whether it is here."""
    return subprocess.run(["podman", "image", "exists", image], check=False, env=_environment()).returncode == 0


def base() -> str:
    """The base image: present, pulled, or built from Debian's packages."""

    def here() -> Path:
        if exists(BASE):
            return Path(BASE)
        raise sources.NotFound("not here")

    def pulled() -> Path:
        sources.reachable("https://" + BASE.split("/", 1)[0])
        podman("pull", "--quiet", BASE, check=False)
        return here()

    sources.first("base image", [("this machine", here), ("its registry", pulled), ("Debian's packages", _made)])
    return BASE


def _made() -> Path:
    sources.packages("mmdebstrap")
    listed = Path("/etc/apt/sources.list.d/debian.sources").read_text().splitlines()
    mirror = next(line.split()[1] for line in listed if line.startswith("URIs:"))
    include = "--include=ca-certificates,python3,python3-pip,python3-venv"
    with tempfile.TemporaryDirectory() as scratch:
        tar = Path(scratch, "base.tar")
        with sources.progress("making a base image of Debian's packages"):
            subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", include, "trixie", str(tar), mirror], check=True)
            podman("import", "--quiet", str(tar), "localhost/debian-python:lab")
        name = "FROM localhost/debian-python:lab\nRUN ln -sf python3 /usr/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED\n"
        Path(scratch, "Containerfile").write_text(name)
        podman("build", "--quiet", "-t", BASE, scratch)
    return Path(BASE)


def operator(tag: str = OPERATOR, *options: str) -> str:
    """Our image, built from this checkout."""
    base()
    with sources.progress("building the image"):
        podman("build", "--quiet", "--timestamp", "0", "--build-arg", f"PYTHON={BASE}", "-t", tag, *options, ".")
    return tag


def application() -> str:
    """The demo application: our image, its evaluator, and the lab's own code."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = subprocess.run(
            [
                shutil.which("uv") or ".uv/bin/uv",
                "export",
                "--frozen",
                "--quiet",
                "--only-group",
                "application",
                "--no-annotate",
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        ).stdout
        Path(scratch, "requirements.txt").write_text(wanted)
        shutil.copytree(ROOT / "lab", Path(scratch, "lab"), ignore=shutil.ignore_patterns("__pycache__", "*.go", "go.*"))
        Path(scratch, "Containerfile").write_text(
            f"FROM {BASE} AS build\nCOPY requirements.txt /\n"
            "RUN pip install --no-cache-dir --require-hashes --no-deps --target /opt/application -r /requirements.txt\n"
            f"FROM {OPERATOR}\nCOPY --from=build /opt/application /opt/application\nCOPY lab /opt/application/lab\n"
            "ENV PYTHONPATH=/opt/application\nENTRYPOINT []\n"
        )
        with sources.progress("building the application's image"):
            podman("build", "--quiet", "-t", APPLICATION, scratch)
    return APPLICATION


def pause() -> str:
    """What holds a Pod's network: a process that sleeps."""
    if not exists(PAUSE):
        sources.packages("busybox-static")
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copy("/bin/busybox", Path(scratch, "busybox"))
            tar = Path(scratch, "pause.tar")
            subprocess.run(["tar", "-C", scratch, "-cf", str(tar), "busybox"], check=True)
            entry = "ENTRYPOINT " + json.dumps(["/busybox", "sleep", "2147483647"])
            podman("import", "--quiet", "--change", entry, str(tar), PAUSE)
    return PAUSE


def save(image: str, path: Path) -> Path:
    """The image as an archive that containerd reads."""
    podman("save", "--quiet", "--format", "docker-archive", "-o", str(path), image)
    return path


def layers(image: str) -> list[dict[str, Any]]:
    """Size in bytes and what made it, of every layer that is not empty, the lowest first."""
    history = json.loads(podman("history", "--format", "json", "--human=false", image))
    return [{"size": layer["size"], "by": layer["CreatedBy"]} for layer in reversed(history) if layer["size"]]


def digest(image: str) -> str:
    """Of the configuration: it holds the digest of every layer."""
    return podman("image", "inspect", "--format", "{{.Id}}", image)


def pulled_bytes(image: str) -> int:
    """What a registry would hand out: the layers, compressed as they are pushed by default."""
    with tempfile.TemporaryDirectory() as scratch:
        podman("push", "--quiet", image, f"oci:{scratch}/image")
        return sum(blob.stat().st_size for blob in Path(scratch, "image", "blobs").rglob("*") if blob.is_file())


def largest(image: str, count: int = 6) -> list[str]:
    """The largest parts of what we put in, in megabytes."""
    script = "cd /opt/session-rollout && du -s --block-size=1MB bin/kubectl lib/python3*/site-packages/* | sort -rn"
    parts = [
        line.split() for line in podman("run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", script).splitlines()
    ]
    return [f"{Path(path).name} {size}" for size, path in parts[:count]]


def start_seconds(image: str, *command: str) -> float:
    """Median of five runs of a command in a container."""
    times = []
    for _ in range(5):
        begun = time.monotonic()
        podman("run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--entrypoint", command[0], image, *command[1:])
        times.append(time.monotonic() - begun)
    return sorted(times)[2]


def bill(image: str, path: Path) -> int:
    """Write the CycloneDX bill of materials of the image, Debian's packages, Python's and kubectl's; how many packages."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = save(image, Path(scratch, "image.tar"))
        command = [str(sources.syft()), "scan", "--quiet", f"docker-archive:{archive}", "-o", f"cyclonedx-json={path}"]
        subprocess.run(command, check=True)
    return sum("purl" in component for component in json.loads(path.read_text())["components"])


def main() -> None:
    """Entry point of `make image`."""
    operator(OPERATOR, "--no-cache")
    again = operator("localhost/session-rollout:again", "--no-cache")
    size = int(podman("image", "inspect", "--format", "{{.Size}}", OPERATOR))
    print(f"{OPERATOR}: {size / 1e6:.0f} MB, {pulled_bytes(OPERATOR) / 1e6:.0f} MB to pull")
    for layer in layers(OPERATOR):
        print(f"  {layer['size'] / 1e6:7.1f} MB  {layer['by'][:100]}")
    print(f"  the largest parts, in MB: {', '.join(largest(OPERATOR))}")
    bare = start_seconds(OPERATOR, "true")
    for command in (
        ("session-rollout-operator", "--help"),
        ("session-rollout-migrate", "--help"),
        ("kubectl-sessionrollout", "--version"),
    ):
        print(
            f"  {command[0]}: {start_seconds(OPERATOR, *command) - bare:.2f} s to start, beside {bare:.2f} s for the container"
        )
    path = ROOT / "build" / "sbom.cdx.json"
    path.parent.mkdir(exist_ok=True)
    print(f"  {bill(OPERATOR, path)} packages in {path.relative_to(ROOT)}")
    same = digest(OPERATOR) == digest(again)
    print(f"  a second build from nothing has {'the same digest' if same else 'another digest'}: {digest(OPERATOR)}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
