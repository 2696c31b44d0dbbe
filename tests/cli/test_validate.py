"""`validate` and a real API server on the same objects: verdict, field and message; then files, places and warnings.

Covered: the hand-made corpus and one made by mutation, together over a thousand objects. Not here: what CEL means (the
corpus of tests/api, which the real server judges alone).
"""

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.corpus import ACTION, BAD_ACTIONS, FINE, GOOD, spoiled
from api.invalid import BAD
from api.invalid_checks import FINE_CHECKS
from api.invalid_steps import FINE_STEPS
from bench import __main__ as bench
from chaos import __main__ as chaos
from cli import holdback_warnings
from cli.mutations import mutations
from lab.kube import ApiError
from lab.lab import ROOT, Lab
from session_rollout.adapters.promql_ratios import ratios
from session_rollout.cli.admission import check
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.warnings import Warn
from session_rollout.cli.warnings_evidence import WarnEvidence

API = "sessionrollout.dev/v1alpha1"
LEAST_OBJECTS, LEAST_FIELDS = 300, 0.95
NAMES = ("shop.checkout", "s" * 64, "s" * 63, "Shop", "shop-", "")

RICH = {
    **GOOD,
    "preflight": [
        *GOOD["preflight"],
        {"name": "up", "http": {"service": "web", "port": 8080, "path": "/health", "expectStatus": 204}},
        {"name": "smoke", "job": {"profile": "smoke"}},
        {"name": "store", "builtin": "FlagStore"},
    ],
    "rollback": {
        **GOOD["rollback"],
        "workload": "Undo",
        "verification": [{"name": "calm", "metric": "errors", "below": "1%"}],
    },
    "notifications": [{"sink": "chat", "events": ["Promoted", "Stalled"]}],
}


def rollout(spec: Any) -> dict[str, Any]:
    return {"apiVersion": API, "kind": "SessionRollout", "metadata": {"name": "validated"}, "spec": spec}


def action(spec: Any) -> dict[str, Any]:
    wanted = {key: value for key, value in {**ACTION, **spec}.items() if value is not None}
    return {"apiVersion": API, "kind": "SessionRolloutAction", "metadata": {"name": "validated-1"}, "spec": wanted}


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """The whole corpus."""
    yield from ((name, rollout(spoiled(mistake))) for name, mistake, _ in BAD)
    yield from ((name, rollout(spoiled(change))) for name, change in (*FINE, *FINE_CHECKS, *FINE_STEPS))
    yield from ((name, action(spec)) for name, spec, _ in BAD_ACTIONS)
    yield from ((f"named {name}", {**rollout(RICH), "metadata": {"name": name}}) for name in NAMES)
    yield from (
        (f"newline after {field}", rollout({**RICH, field: f"{RICH[field]}\n"})) for field in ("flagSet", "checkInterval")
    )
    yield from ((name, rollout(spec)) for name, spec in mutations(RICH))
    yield from ((f"action {name}", action(spec)) for name, spec in mutations({**ACTION, "reason": "why", "ttl": "3d"}))


def server_fields(message: str) -> set[str]:
    """The fields that the API server's sentence names."""
    if "unknown field" in message:
        return set(re.findall(r'unknown field "([^"]+)"', message))
    return set(re.findall(r"(?:^|[\[,:] ?)((?:spec|metadata)(?:\.[A-Za-z]+|\[\d+\])*): ", message))


def test_validate_and_the_api_server_agree(lab: Lab) -> None:
    """The same verdict on all; the first field that we name is one the server names in 95 of 100; sentences are counted."""
    counts: Counter[str] = Counter()
    wrong, elsewhere = [], []
    for name, body in objects():
        plural = body["kind"].lower() + "s"
        ours = check(body)
        try:
            lab.kube.create(f"/apis/{API}/namespaces/default/{plural}", body, dryRun="All", fieldValidation="Strict")
            theirs = ""
        except ApiError as error:
            theirs = error.message
        counts["objects"] += 1
        if bool(ours) != bool(theirs):
            wrong.append(f"{name}: ours {[str(one) for one in ours][:2]}, theirs {theirs[:200]}")
        if ours and theirs:
            counts["bad"] += 1
            named = ours[0].field in server_fields(theirs)
            counts["field"] += named
            counts["sentence"] += ours[0].message[:60] in theirs
            if not named:
                elsewhere.append(f"{name}: ours {ours[0]}, theirs {theirs[:200]}")
    print(
        f"{counts['objects']} objects, {counts['bad']} refused by both; the same field {counts['field'] / counts['bad']:.1%},"
    )
    print(f"the same sentence {counts['sentence'] / counts['bad']:.1%}")
    assert not wrong, "\n".join(wrong)
    assert counts["objects"] >= LEAST_OBJECTS
    assert counts["field"] >= LEAST_FIELDS * counts["bad"], "\n".join(elsewhere[:40])


# --- files

Findings = list[dict[str, Any]]


def findings(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Findings]:
    """Exit code and findings of `validate`."""
    code = code_of(app, ["validate", "-o", "json", *argv])
    printed = capsys.readouterr()
    assert printed.err.count("Traceback") == 0
    return code, json.loads(printed.out) if printed.out else []


def test_line_and_column_of_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the field; of its parent if the field is missing."""
    text = (ROOT / "examples" / "minimal.yaml").read_text().replace("percent: 10,", "percent: 500,")
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "percent: 500" in row)
    column = text.splitlines()[line - 1].index("percent") + 1
    code, [first, *_] = findings(capsys, str(file))
    assert (code, first["severity"], first["field"]) == (Exit.REFUSED, "error", "spec.phases[0].steps[0].percent")
    assert (first["file"], first["line"], first["column"]) == (str(file), line, column)
    assert code_of(app, ["validate", str(file)]) == Exit.REFUSED
    assert capsys.readouterr().out.startswith(f"{file}:{line}:{column}: error: {first['field']}: ")
    file.write_text(text.replace("percent: 500,", "percent: 10,").replace("flagSet:", "#flagSet:"))
    code, [missing, *_] = findings(capsys, str(file))
    assert (code, missing["field"]) == (Exit.REFUSED, "spec.flagSet")


RUBBISH = {
    "no yaml": b"a: [1",
    "twice": b"a: 1\na: 2\n",
    "list": b"- a\n- b\n",
    "empty": b"",
    "binary": b"\xff\xfe\x00",
    "recursive": b"&a [*a, *a]",
    "python": b"!!python/object/apply:os.system ['true']",
    "ten megabytes": b"x: " + b"y" * 10_000_000,
    "nul": b"kind: \0x\n",
    "kind is a list": b"kind: []\napiVersion: sessionrollout.dev/v1alpha1\nmetadata: {name: x}\n",
    "aliases of aliases": b"a0: &a0 [x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 8)),
    "other": b"kind: ConfigMap\napiVersion: v1\n",
    "version": b"kind: SessionRollout\napiVersion: sessionrollout.dev/v9\nmetadata: {name: x}\n",
    "kind": b"kind: Sessionrollout\napiVersion: sessionrollout.dev/v1alpha1\nmetadata: {name: x}\n",
}


@pytest.mark.parametrize("content", RUBBISH.values(), ids=list(RUBBISH))
def test_rubbish_gets_one_sentence(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 1; the file is named."""
    file = tmp_path / "rubbish"
    file.write_bytes(content)
    assert code_of(app, ["validate", str(file)]) == Exit.REFUSED
    printed = capsys.readouterr()
    assert (str(file) in printed.out + printed.err, printed.err.count("Traceback")) == (True, 0)


def test_duplicate_key_is_found_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML itself would drop one of the values."""
    file = tmp_path / "twice"
    file.write_bytes(RUBBISH["twice"])
    code_of(app, ["validate", str(file)])
    assert f"{file}:2:1:" in capsys.readouterr().err


def test_file_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument."""
    assert findings(capsys, "/nowhere/x.yaml") == (Exit.USAGE, [])


METRICS = GOOD["metrics"]
TABLES = GOOD["migrations"][0]
COPY = {"change": "Migrate"}
CLEANUP = {**GOOD["migrations"][1], "change": "Contract"}


def ratio(query: str) -> dict[str, Any]:
    """One more metric, which is used."""
    guard = {"name": "ratio", "metric": "ratio", "below": "1%"}
    return {"metrics": [*METRICS, {"name": "ratio", "query": query}], "guards": [*GOOD["guards"], guard]}


def compared(feature: str) -> dict[str, Any]:
    """The first phase, which gives alpha to everybody, with a comparison of the users of a feature."""
    metric = {"name": "failures", "cohorts": {"feature": feature, "bad": "bad_total", "total": "all_total"}}
    criterion = {"name": "failures", "metric": "failures", "comparedTo": "Control"}
    first, *others = GOOD["phases"]
    return {"metrics": [*METRICS, metric], "phases": [{**first, "criteria": [criterion]}, *others]}


def cohorts(good: str) -> dict[str, Any]:
    """One more metric with two queries."""
    queries = {"good": f"sum(increase({good}[1h]))", "total": "sum(increase(requests{c='$cohort'}[1h]))"}
    return {"metrics": [*METRICS, {"name": "ratio", "cohorts": queries}], "guards": GOOD["guards"]}


WARNINGS = [
    ({"metrics": [*METRICS, {"name": "idle", "query": "idle"}]}, Warn.UNUSED_METRIC, "spec.metrics[2].name"),
    ({"metrics": [{"name": "errors", "query": "rate("}, METRICS[1]]}, Warn.INVALID_QUERY, "spec.metrics[0].query"),
    ({"guards": []}, Warn.NO_GUARDS, "spec"),
    (
        {"guards": [{"name": "errors", "metric": "errors", "below": "5%", "for": "52w"}]},
        Warn.INEFFECTIVE_GUARD,
        "spec.guards[0].for",
    ),
    (
        {"metrics": [{"name": "errors", "query": "rate(e[2d])"}, METRICS[1]]},
        Warn.RANGE_LONGER_THAN_HOLD,
        "spec.phases[0].criteria[0].metric",
    ),
    # D1: the guard counts for the hold, which is longer by its warm-up.
    (
        {"metrics": [{"name": "errors", "query": "rate(e[2d])"}, METRICS[1]]},
        Warn.RANGE_LONGER_THAN_HOLD,
        "spec.guards[0].metric",
    ),
    # D4: a recording rule says by `window` what its PromQL cannot.
    (
        {"metrics": [{"name": "errors", "query": "rule", "window": "1d"}, METRICS[1]]},
        Warn.RANGE_LONGER_THAN_HOLD,
        "spec.guards[0].metric",
    ),
    # R13: both are accepted, and neither is what happens.
    ({"checkInterval": "4s"}, Warn.INTERVAL_NOT_KEPT, "spec.checkInterval"),
    ({"metrics": [METRICS[0], {**METRICS[1], "interval": "29s"}]}, Warn.INTERVAL_NOT_KEPT, "spec.metrics[1].interval"),
    ({"propagation": "2d"}, Warn.RANGE_LONGER_THAN_HOLD, "spec.phases[1].criteria[2].metric"),
    ({"features": [*GOOD["features"], {"name": "alone"}]}, Warn.UNUSED_FEATURE, "spec.features[3].name"),
    (
        {"migrations": [*GOOD["migrations"], {"name": "late", "bundle": "a/b"}]},
        Warn.UNUSED_MIGRATION,
        "spec.migrations[2].name",
    ),
    (ratio('sum(rate(requests{code="5"}[5m])) / sum(rate(requests[5m]))'), Warn.EMPTY_RATIO, "spec.metrics[2].query"),
    (cohorts("requests{ok='1',c='$cohort'}"), Warn.EMPTY_RATIO, "spec.metrics[2].cohorts.good"),
    (
        ratio("sum(rate(failures[5m])) / sum(rate(requests[5m])) or vector(0)"),
        Warn.ZERO_WITHOUT_TRAFFIC,
        "spec.metrics[2].query",
    ),
    (ratio("sum(rate(sum[5m])) / sum(rate(count[5m]))"), Warn.NO_MINIMUM, "spec.guards[1]"),
    *holdback_warnings.ROWS,
    (compared("alpha"), WarnEvidence.NEVER_COMPARED, "spec.phases[0].criteria[0]"),
    ({"suspend": True}, Warn.SUSPENDED, "spec.suspend"),
    ({"rollback": {"workload": "Undo"}}, Warn.UNDO_WITH_GITOPS, "spec.rollback.workload"),
    ({"migrations": [TABLES, CLEANUP]}, Warn.EARLY_CONTRACT, "spec.migrations[1].change"),
    ({"migrations": [TABLES | COPY, CLEANUP], "bake": "0s"}, Warn.EARLY_CONTRACT, "spec.migrations[1].change"),
    ({"migrations": [TABLES | {"backup": True}, CLEANUP], "bake": "0s"}, Warn.EARLY_CONTRACT, "spec.migrations[1].change"),
    (
        {"migrations": [TABLES, CLEANUP], "bake": "0s", "rollback": {"scope": "All"}},
        Warn.EARLY_CONTRACT,
        "spec.migrations[1].change",
    ),
]
ERRORS = {"name": "errors", "metric": "errors", "below": "1%"}
PLACEBO = {"criteria": [ERRORS], "steps": [{"percent": 9, "hold": "1d", "placebo": True}, {"percent": 100, "hold": "1d"}]}
STEPS = [
    # What `for` and `outOf` tolerate is counted nowhere.
    (0, {"criteria": [ERRORS | {"for": "2m"}]}, WarnEvidence.TOLERATED_FAILURES, "spec.phases[0].criteria[0].for"),
    (0, {"criteria": [ERRORS | {"outOf": "3/5"}]}, WarnEvidence.TOLERATED_FAILURES, "spec.phases[0].criteria[0].outOf"),
    (0, {"criteria": [ERRORS | {"for": "52w"}]}, WarnEvidence.INEFFECTIVE_CRITERION, "spec.phases[0].criteria[0].for"),
    (0, {"criteria": [ERRORS | {"dryRun": True}]}, WarnEvidence.INEFFECTIVE_CRITERION, "spec.phases[0].criteria"),
    (0, {"criteria": [ERRORS | {"onNoData": "Pass"}]}, WarnEvidence.INEFFECTIVE_CRITERION, "spec.phases[0].criteria"),
    (1, {"steps": [{"percent": 50, "hold": "4m"}]}, WarnEvidence.FEW_EVALUATIONS, "spec.phases[1].criteria[0].metric"),
    (0, {"criteria": []}, Warn.NO_CRITERIA, "spec.phases[0].steps"),
    (0, {}, Warn.NO_DEADLINE, "spec.phases[0]"),
    (1, {"steps": [{"percent": 100, "hold": "1d"}]}, Warn.NO_CANARY, "spec.phases[1].steps[0]"),
    (1, {"steps": [{"percent": 10, "hold": "1d"}]}, Warn.PARTIAL_AUDIENCE, "spec.phases[1].steps"),
    (1, PLACEBO, WarnEvidence.UNPROVEN_PLACEBO, "spec.phases[1].steps[0].placebo"),
]


@pytest.mark.parametrize(("change", "about", "field"), WARNINGS, ids=[about for _, about, _ in WARNINGS])
def test_warning(change: dict[str, Any], about: Warn, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A probable mistake is a warning, and with --strict a refusal."""
    warned({**GOOD, **change}, about, field, tmp_path, capsys)


@pytest.mark.parametrize(("phase", "change", "about", "field"), STEPS, ids=[about for _, _, about, _ in STEPS])
def test_warning_about_a_phase(
    phase: int, change: dict[str, Any], about: Warn, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its steps, criteria and deadline."""
    spec = copy.deepcopy(GOOD)
    spec["phases"][phase] |= change
    warned(spec, about, field, tmp_path, capsys)


def test_contract_after_which_nothing_rolls_back_is_no_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a bake, a copy, or a phase whose rollback includes this one."""
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(rollout({**GOOD, "migrations": [TABLES, CLEANUP], "bake": "0s"})))
    assert Warn.EARLY_CONTRACT not in {row["rule"] for row in findings(capsys, str(file))[1]}


def warned(spec: Any, about: Warn, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(rollout(spec)))
    code, rows = findings(capsys, str(file))
    assert (code, {row["severity"] for row in rows}) == (Exit.DONE, {"warning"})
    assert (about, field) in {(row["rule"], row["field"]) for row in rows}
    assert findings(capsys, str(file), "--strict")[0] == Exit.REFUSED


@pytest.mark.usefixtures("prose")
@pytest.mark.parametrize(
    "metric", [ratio('sum(rate(m{code="5"}[5m])) / sum(rate(m[5m]))'), cohorts("requests{ok='1',c='$cohort'}")]
)
def test_warning_about_an_empty_ratio_has_the_line_to_write(
    metric: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D3: with that line, the warning is gone."""
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(rollout({**GOOD, **metric})))
    [message] = [row["message"] for row in findings(capsys, str(file))[1] if row["rule"] == Warn.EMPTY_RATIO]
    [line] = re.findall(r"Write `(.+)`", message)
    field, _, query = line.partition(": ")
    better = copy.deepcopy(metric)
    (better["metrics"][2] if field == "query" else better["metrics"][2]["cohorts"])[field] = query
    file.write_text(yaml.safe_dump(rollout({**GOOD, **better})))
    assert Warn.EMPTY_RATIO not in {row["rule"] for row in findings(capsys, str(file))[1]}


def test_init_writes_a_query_that_is_0_when_nothing_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D3: and one that counts the requests; `validate` has nothing against what `init` has written."""
    file = tmp_path / "fresh.yaml"
    assert code_of(app, ["init", "fresh", "--feature", "a", "-f", str(file)]) == Exit.DONE
    metric, requests = yaml.safe_load(file.read_text())["spec"]["metrics"]
    assert requests["query"] == "sum(increase(http_requests_total[5m]))"
    assert [ratio.can_be_absent for ratio in ratios(metric["query"])] == [False]
    capsys.readouterr()
    assert findings(capsys, str(file), "--strict") == (Exit.DONE, [])


def test_no_query_of_the_examples_is_empty_when_nothing_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """D3: of the README, the documentation and the examples; users copy them."""
    files = [str(path) for path in sorted((ROOT / "examples").rglob("*.yaml")) if "argocd" not in path.parts]
    assert {Warn.EMPTY_RATIO, Warn.ZERO_WITHOUT_TRAFFIC} & {row["rule"] for row in findings(capsys, *files)[1]} == set()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    queries = [query for page in pages for query in re.findall(r"^ *-? *query: (\S.*)$", page.read_text(), re.MULTILINE)]
    assert any("vector(0)" in query for query in queries)
    assert [query for query in queries if any(ratio.can_be_absent for ratio in ratios(query))] == []


def test_findings_as_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same data as JSON."""
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(rollout({**GOOD, "guards": []})))
    assert code_of(app, ["validate", "-o", "yaml", str(file)]) == Exit.DONE
    assert yaml.safe_load(capsys.readouterr().out) == findings(capsys, str(file))[1]


def test_every_warning_is_produced() -> None:
    """By a row of the tables above."""
    assert {row[-2] for row in (*WARNINGS, *STEPS)} == {*Warn, *WarnEvidence}


QUIET = [{"outOf": "3/5", "passShare": "60%"}, {"for": "30s"}, {"outOf": "1/5"}, {"for": "2m", "passShare": "20%"}]


@pytest.mark.parametrize("fields", QUIET, ids=str)
def test_no_warning_about_failures_that_the_share_allows(
    fields: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`passShare` says what `for` or `outOf` tolerates, or these tolerate nothing."""
    spec = copy.deepcopy(GOOD)
    spec["phases"][0]["criteria"] = [ERRORS | fields]
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(rollout(spec)))
    assert WarnEvidence.TOLERATED_FAILURES not in {row["rule"] for row in findings(capsys, str(file))[1]}


@pytest.mark.parametrize("program", [bench, chaos], ids=["bench", "chaos"])
def test_rollouts_of_programs_outside_the_suite_are_valid(program: Any) -> None:
    """They run seldom, so that a change of the API would be noticed late."""
    assert check(program.rollout("some")) == ()


def test_shipped_examples_are_valid_and_the_large_one_has_no_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """Users copy them."""
    files = [str(path) for path in sorted((ROOT / "examples").rglob("*.yaml")) if "gitops" not in path.parts]
    assert findings(capsys, *files)[0] == Exit.DONE
    assert findings(capsys, str(ROOT / "examples" / "session-persistence.yaml"), "--strict") == (Exit.DONE, [])
