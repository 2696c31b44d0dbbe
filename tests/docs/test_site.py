"""The site in a real browser without network: it loads nothing from elsewhere, draws every picture, and cuts nothing off.

At the width of a desktop and of a phone. Not here: whether the pages are right (test_docs.py, test_prose.py).
"""

import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import Browser, Request, Response, sync_playwright

from lab import sources
from lab.lab import ROOT

pytestmark = pytest.mark.lab
DOCS = ROOT / "docs"
PICTURES = sorted((DOCS / "diagrams").glob("*.svg"))
WIDTHS = (1280, 390)
# What is wrong with a page: pictures that are not there, and what reaches beyond the screen without being scrollable.
PROBLEMS = """() => {
  const wide = innerWidth + 1;
  const scrolls = node => node && (/auto|scroll/.test(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
  const content = document.querySelector("article");
  const cut = [...content.querySelectorAll("*")].filter(
    node => node.getBoundingClientRect().right > wide && !scrolls(node.parentElement));
  const missing = [...document.images].filter(image => !image.complete || image.naturalWidth === 0);
  const beyond = [...content.querySelectorAll("img")].filter(image => image.getBoundingClientRect().right > wide);
  return [
    ...missing.map(image => `not drawn: ${image.src}`),
    ...beyond.map(image => `wider than the screen: ${image.src}`),
    ...cut.map(node => `cut off: ${node.outerHTML.slice(0, 100)}`),
    ...(document.documentElement.scrollWidth > wide ? ["the page scrolls sideways"] : []),
    ...[...document.querySelectorAll(".mermaid")].map(() => "Mermaid, which the theme loads from the internet"),
  ];
}"""
# Texts of a picture that leave it, or that are wider than the box before them.
CUT_TEXTS = """() => {
  const picture = document.documentElement.getBoundingClientRect();
  return [...document.querySelectorAll("text")].filter(text => {
    const place = text.getBoundingClientRect();
    const box = text.classList.contains("in-box") ? text.previousElementSibling.getBoundingClientRect() : picture;
    return place.left < box.left || place.right > box.right || place.top < box.top || place.bottom > box.bottom;
  }).map(text => text.textContent);
}"""


def diagrams() -> ModuleType:
    """The module that draws them."""
    spec = importlib.util.spec_from_file_location("diagrams", DOCS / "diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["diagrams"] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The site as it is built, served from this machine."""
    directory = tmp_path_factory.mktemp("site")
    command = [str(Path(sys.executable).parent / "mkdocs"), "build", "--quiet", "--site-dir", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield directory, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for which no other name than this machine's exists."""
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(sources.chromium()), args=arguments)
        yield running
        running.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_is_complete_without_the_internet(browser: Browser, site: tuple[Path, str], width: int) -> None:
    """Each page: every request is answered from here, every picture is drawn, and nothing reaches beyond the screen."""
    directory, address = site
    pages = sorted(str(path.parent.relative_to(directory)) for path in directory.rglob("index.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md"))) - 1
    problems: list[str] = []

    def asked(request: Request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            problems.append(f"loads {request.url}")

    def answered(answer: Response) -> None:
        if answer.status >= HTTPStatus.BAD_REQUEST:
            problems.append(f"{answer.status}: {answer.url}")

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the next page was opened meanwhile
            problems.append(f"not answered: {request.url}: {request.failure}")

    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        page.on("request", asked)
        page.on("requestfailed", failed)
        page.on("response", answered)
        for name in pages:
            page.goto(f"{address}{name}/", wait_until="load")
            problems += [f"{name}: {problem}" for problem in page.evaluate(PROBLEMS)]
    assert problems == []


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_of_a_diagram_fit(browser: Browser, picture: Path, scheme: str) -> None:
    """Each text is in its box, in the reader's color scheme."""
    with browser.new_context(color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(picture.as_uri())
        assert page.evaluate("document.querySelectorAll('text').length") > 0
        assert page.evaluate(CUT_TEXTS) == []


def test_diagrams_are_what_their_descriptions_say() -> None:
    """`make docs` was run, and each picture is shown on a page."""
    drawn: dict[Path, str] = diagrams().pictures()
    assert [path.name for path, text in drawn.items() if path.read_text() != text] == []
    assert {path.name for path in PICTURES} == {path.name for path in drawn}
    shown = set(re.findall(r"diagrams/([\w-]+\.svg)", "".join(path.read_text() for path in DOCS.rglob("*.md"))))
    assert {path.name for path in PICTURES} <= shown
