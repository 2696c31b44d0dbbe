"""The documentation: built strictly, in step with the code, its links right, and its commands run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from lab.lab import ROOT, Lab
from session_rollout.cli.app import app

DOCS = ROOT / "docs"
RUNNABLE = re.compile(r"<!-- runnable -->\n```sh\n(.*?)```", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "charts").rglob("README.md")])


def test_builds_without_a_warning(tmp_path: Path) -> None:
    """`strict` makes a warning an error: pages that are nowhere, links and anchors that lead nowhere."""
    command = [str(Path(sys.executable).parent / "mkdocs"), "build", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "site" / "tutorial" / "index.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_diagrams_are_pictures(page: Path) -> None:
    """Drawn as SVG: the theme would load Mermaid from the internet."""
    assert "```mermaid" not in page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link, of the pages outside the site, too; addresses are well-formed."""
    for link in LINK.findall(CODE.sub("", page.read_text())):
        address = urlsplit(link)
        if address.scheme:
            assert address.scheme == "https", link
            assert "." in address.netloc, link
        elif address.path:
            assert (page.parent / address.path).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "<!-- runnable -->" in page.read_text()], ids=lambda page: page.stem
)
def test_runnable_blocks_run(page: Path, lab: Lab) -> None:
    """In the order of the page, each as one script that ends at its first error, against the lab with its operator."""
    lab.start_operator()
    blocks = RUNNABLE.findall(page.read_text())
    assert len(blocks) == page.read_text().count("<!-- runnable -->"), "each mark stands right before a block"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "KUBECONFIG": str(lab.kubeconfig), "PATH": path, "NO_COLOR": "1"}
    try:
        for block in blocks:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    finally:
        assert lab.operator is not None
        lab.operator.stop()


COMMAND = re.compile(r"kubectl sessionrollout ([^\n`|>#&]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_named_exists(page: Path) -> None:
    """In blocks that are not run and in sentences, too: with its options, and no more arguments than it takes."""
    for code in CODE.findall(page.read_text()):
        for line in COMMAND.findall(code) if code.startswith(("```sh", "`k")) else ():
            command: click.Command = app
            words = shlex.split(line)
            while isinstance(command, click.Group) and words and words[0] != "...":
                name = words.pop(0)
                found = command.get_command(click.Context(command), name)
                assert found is not None, f"{line}: no command {name}"
                command = found
            if words and words[0] != "...":
                try:
                    command.make_context(line, words)
                except click.UsageError as error:
                    pytest.fail(f"{line}: {error.format_message()}")
