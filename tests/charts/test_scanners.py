"""hadolint and checkov find nothing in the Dockerfile and in what the chart renders; what is left out is in .checkov.yaml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from charts.value_sets import VALUE_SETS
from lab.lab import ROOT
from tools.chart import build

pytestmark = pytest.mark.lab
CHECKOV = "checkov==3.3.30"


def test_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_checkov(tmp_path: Path) -> None:
    """In an environment of its own: its dependencies are not ours."""
    for name, values in VALUE_SETS.items():
        documents = [document for document in build.render(values) if document["kind"] != "CustomResourceDefinition"]
        (tmp_path / f"{name}.yaml").write_text("---\n".join(yaml.safe_dump(document) for document in documents))
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    command = [uv, "tool", "run", "--python", sys.executable, CHECKOV, "--directory", str(tmp_path)]
    options = ["--framework", "kubernetes", "dockerfile", "--config-file", str(ROOT / ".checkov.yaml"), "--compact", "--quiet"]
    done = subprocess.run([*command, *options, "--skip-download"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_every_skip_has_a_reason() -> None:
    lines = (ROOT / ".checkov.yaml").read_text().splitlines()
    skips = [line for line in lines if line.strip().startswith("- ")]
    assert len(skips) == 8
    assert all("# " in line for line in skips)
