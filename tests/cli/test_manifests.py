"""`init` and `diff` against a real API server."""

from pathlib import Path

import yaml

from cli.plugin import fine, inside, run, shop
from lab.kube import Object
from lab.lab import Lab
from session_rollout.cli.command import Exit


def test_diff_is_empty_for_what_is_in_the_cluster(operator: Lab, tmp_path: Path) -> None:
    """Exit code 1 and the changed lines otherwise; a change that would stall the rollout is reported in advance."""
    file = tmp_path / "shop.yaml"

    def effect(body: Object) -> tuple[int, str, list[str]]:
        file.write_text(yaml.safe_dump(body))
        done = inside(operator, "diff", str(file), "-o", "json")
        return done.code, done.data["effect"], done.data["diff"]

    assert effect(shop()) == (Exit.DONE, "None", [])
    longer, fewer, other = shop(), shop(), shop()
    longer["spec"]["phases"][0]["steps"][0]["hold"] = "2h"
    code, what, lines = effect(longer)
    assert (code, what, "+    hold: 2h" in lines) == (Exit.REFUSED, "Continues", True)
    assert run(operator, "diff", str(file)).out.splitlines() == lines
    fewer["spec"]["phases"][0]["steps"][0]["percent"] = 5
    other["spec"]["flagSet"] = "another"
    effects = [effect(body)[:2] for body in (fewer, other, shop("unknown"))]
    assert effects == [(Exit.REFUSED, what) for what in ("Stalls", "Refused", "Creates")]


def test_init_creates_what_validate_and_the_server_accept(operator: Lab, tmp_path: Path) -> None:
    """It overwrites no file, and asks for what has no default."""
    file = tmp_path / "new.yaml"
    fine(operator, "init", "fresh", "--feature", "a", "--feature", "b", "--hold", "1h", "-f", str(file))
    fine(operator, "validate", "--strict", str(file))
    operator.kubectl("apply", "--dry-run=server", "-f", str(file))
    text = file.read_text()
    assert inside(operator, "init", "fresh", "--feature", "a", "-f", str(file)).code == Exit.USAGE
    assert file.read_text() == text
    assert inside(operator, "init").code == Exit.USAGE
