"""Krew's manifest, from archives that lie in a folder. Building a real archive takes a minute: `make krew`."""

import hashlib
import importlib.util
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lab.lab import ROOT


@pytest.fixture(scope="module")
def build() -> Any:
    spec = importlib.util.spec_from_file_location("krew_build", ROOT / "tools" / "krew" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_manifest_has_a_platform_for_each_archive_of_the_release(build: Any, tmp_path: Path) -> None:
    """With its digest and the program's name there; an older release's archive is left out. Krew's rules for its index."""
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "kubectl-sessionrollout").write_text("#!/bin/sh\n")
    for name in ("1.2.0-linux-amd64", "1.2.0-darwin-arm64", "1.2.0-windows-amd64", "1.1.0-linux-amd64"):
        build.pack(tmp_path / "program", tmp_path / f"kubectl-sessionrollout-{name}.tar.gz")
    made = build.manifest(tmp_path, "1.2.0", "https://releases.example/v1.2.0/")
    assert (made["kind"], made["metadata"]["name"], made["spec"]["version"]) == ("Plugin", "sessionrollout", "v1.2.0")
    assert len(made["spec"]["shortDescription"]) <= 60
    found = {tuple(one["selector"]["matchLabels"].values()): one for one in made["spec"]["platforms"]}
    assert set(found) == {("linux", "amd64"), ("darwin", "arm64"), ("windows", "amd64")}
    assert found["windows", "amd64"]["bin"] == "kubectl-sessionrollout.exe"
    linux = found["linux", "amd64"]
    assert linux["uri"] == "https://releases.example/v1.2.0/kubectl-sessionrollout-1.2.0-linux-amd64.tar.gz"
    archive = tmp_path / "kubectl-sessionrollout-1.2.0-linux-amd64.tar.gz"
    assert linux["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    with tarfile.open(archive) as packed:
        assert linux["bin"] in packed.getnames()


def test_same_folder_gives_the_same_archive(build: Any, tmp_path: Path) -> None:
    """A digest in a manifest can be checked by building again."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "program").write_text("#!/bin/sh\n")
    build.pack(tmp_path / "a", tmp_path / "one.tar.gz")
    (tmp_path / "a" / "program").touch()
    build.pack(tmp_path / "a", tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
