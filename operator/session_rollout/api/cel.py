"""What CEL forbids: the rules of a check, of a phase and of the whole programme, as (rule, message) pairs.

They run in the API server, beside the schema that `api.rollout` gives; each message says what is allowed and names the
field. Bounds of lists and strings in the models keep the estimated cost within the API server's budget.
"""

from typing import Final

UNITS: Final = "{'ms': 1, 's': 1000, 'm': 60000, 'h': 3600000, 'd': 86400000, 'w': 604800000}"


def _milliseconds(path: str) -> str:
    """CEL for the length of a duration in milliseconds."""
    return f"int({path}.find('[0-9]+')) * {UNITS}[{path}.find('[a-z]+')]"


COMPARISON: Final = (
    (
        "[has(self.above), has(self.below), has(self.maxIncrease), has(self.maxDecrease), has(self.minIncrease)].filter(x, x).size() == 1",
        "must have exactly one of `above`, `below`, `maxIncrease`, `maxDecrease` and `minIncrease`",
    ),
    (
        "has(self.comparedTo) == (has(self.maxIncrease) || has(self.maxDecrease) || has(self.minIncrease))",
        "`comparedTo` must come with `maxIncrease`, `maxDecrease` or `minIncrease`, and these need `comparedTo: Baseline` or `Control`",
    ),
)


_PERCENT_OF = "(has(s.ramp) ? string(s.ramp.to) : has(s.percent) ? string(s.percent) : '0')"


AUDIENCES: Final = (
    (
        f"self.steps.map(s, double({_PERCENT_OF})).isSorted()",
        "percentages in `steps` must not fall from one step to the next: a user who has a feature keeps it",
    ),
    (
        "self.steps.map(s, has(s.groups) ? s.groups.size() : 0).isSorted()"
        " && self.steps.all(s, !has(s.groups) || self.steps.all(t, has(t.groups)"
        " ? (t.groups.size() < s.groups.size() || s.groups.all(g, g in t.groups)) : s.groups.size() >= 0))",
        "every step must keep all `groups` of the steps before it: a user who has a feature keeps it",
    ),
)

_PLACES = "self.phases.all(p, !has(p.{0}) || p.{0}.all(c, {1}))"
_ENDS_FULL = "p.steps.exists(s, (has(s.percent) && string(s.percent) == '100') || (has(s.ramp) && string(s.ramp.to) == '100'))"
_METRIC_KNOWN = "(has(self.metrics) && self.metrics.exists(m, m.name == c.metric))"


PROGRAMME: Final = (
    (
        "self.phases.all(p, p.features.all(f, self.features.exists(d, d.name == f)))",
        "each of `phases[].features` must be the name of one of `features`",
    ),
    (
        "self.phases.all(p, p.features.all(f, self.phases.exists_one(q, f in q.features)))",
        "a feature must be in one phase only: `phases[].features` must not name it twice",
    ),
    (
        "self.features.all(f, !has(f.dependsOn) || f.dependsOn.all(d, self.features.exists(g, g.name == d)))",
        "each of `features[].dependsOn` must be the name of another of `features`",
    ),
    (
        "self.features.all(f, !has(f.dependsOn) || f.dependsOn.all(d, self.phases.map(p, d in p.features ? 1"
        " : (f.name in p.features ? 2 : 0)).filter(x, x > 0).isSorted()))",
        "`features[].dependsOn` must name features of the same phase or an earlier one: a dependent must not run"
        " ahead of its prerequisite",
    ),
    (
        f"self.phases.all(p, {_ENDS_FULL} || self.features.all(f, !has(f.dependsOn) || f.name in p.features"
        " || !f.dependsOn.exists(d, d in p.features)))",
        "a feature that others in later phases depend on must reach 100 in its own phase: a dependent must not run"
        " ahead of its prerequisite",
    ),
    (
        "self.features.all(f, !has(f.initial) || f.initial != 'On' || self.phases.all(p, !(f.name in p.features)"
        " || (has(p.steps[0].percent) && string(p.steps[0].percent) == '100')))",
        "the first step of a phase whose features are `initial: On` must be `percent: 100`: a user who has a feature keeps it",
    ),
    (
        _PLACES.format("criteria", _METRIC_KNOWN),
        "each of `phases[].criteria[].metric` must be the name of one of `metrics`",
    ),
    (
        _PLACES.format("verification", f"!has(c.metric) || {_METRIC_KNOWN}"),
        "each of `phases[].verification[].metric` must be the name of one of `metrics`",
    ),
    (
        f"!has(self.guards) || self.guards.all(c, {_METRIC_KNOWN})",
        "each of `guards[].metric` must be the name of one of `metrics`",
    ),
    (
        f"!has(self.preflight) || self.preflight.all(c, !has(c.metric) || {_METRIC_KNOWN})",
        "each of `preflight[].metric` must be the name of one of `metrics`",
    ),
    (
        f"!has(self.rollback) || !has(self.rollback.verification) || self.rollback.verification.all(c, !has(c.metric) || {_METRIC_KNOWN})",
        "each of `rollback.verification[].metric` must be the name of one of `metrics`",
    ),
    (
        "!has(self.rollback) || !has(self.rollback.verification) || self.rollback.verification.all(c, !has(c.approval))",
        "`rollback.verification` must not ask for an `approval`: a rollback waits for nobody",
    ),
    (
        "has(self.workload) || !has(self.rollback) || !has(self.rollback.workload) || self.rollback.workload != 'Undo'",
        "`rollback.workload: Undo` needs `workload`: it names the Deployment",
    ),
    (
        "self.phases.all(p, !has(p.migrations) || ["
        "has(p.migrations.before) ? p.migrations.before : [], has(p.migrations.after) ? p.migrations.after : []"
        "].all(l, l.all(n, has(self.migrations) && self.migrations.exists(m, m.name == n))))",
        "each of `phases[].migrations` must be the name of one of `migrations`",
    ),
    (
        "!has(self.migrations) || self.migrations.all(m, self.phases.map(p, !has(p.migrations) ? 0 :"
        " ((has(p.migrations.before) ? p.migrations.before.filter(n, n == m.name).size() : 0)"
        " + (has(p.migrations.after) ? p.migrations.after.filter(n, n == m.name).size() : 0))).sum() <= 1)",
        "a migration must be in one place only: `phases[].migrations` must not name it twice",
    ),
    (
        "!has(self.migrations) || self.migrations.size() == 0 || has(self.database)",
        "`migrations` need `database`: it names the Secret with the connection string",
    ),
    (
        "!has(self.migrations) || self.phases.all(p, !has(p.migrations) || !has(p.migrations.before)"
        " || p.migrations.before.all(n, !self.migrations.exists(m, m.name == n && has(m.change) && m.change == 'Contract')))",
        "a `change: Contract` migration must be in `after` of a phase: the version before needs what it takes away",
    ),
    (
        "!has(self.migrations) || self.phases.map(p, !has(p.migrations) ? -1 : (has(p.migrations.after)"
        " && p.migrations.after.exists(n, self.migrations.exists(m, m.name == n && has(m.change) && m.change == 'Contract')))"
        " ? 1 : ((has(p.migrations.before) && p.migrations.before.size() > 0)"
        " || (has(p.migrations.after) && p.migrations.after.size() > 0)) ? 0 : -1).filter(x, x >= 0).isSorted()",
        "`change: Contract` migrations must come after all others: first expand, then migrate, then contract",
    ),
    (
        "!has(self.rollback) || !has(self.rollback.restoreData) || !self.rollback.restoreData"
        " || (has(self.migrations) && self.migrations.exists(m, has(m.backup) && m.backup))",
        "`rollback.restoreData` needs one of `migrations` with `backup: true`: else there is nothing to restore",
    ),
    (
        "self.phases.all(p, p.steps.all(s, !has(s.hold) || "
        f"{_milliseconds('s.hold')} >= {_milliseconds('self.checkInterval')}))",
        "`phases[].steps[].hold` must be at least `checkInterval`: a shorter hold could pass unseen",
    ),
    (
        "self.phases.all(p, p.steps.all(s, !has(s.ramp) || "
        f"{_milliseconds('s.ramp.over')} >= s.ramp.increments * ({_milliseconds('self.checkInterval')})))",
        "`phases[].steps[].ramp.over` must be at least `increments` times `checkInterval`",
    ),
    (
        f"{_milliseconds('self.checkInterval')} >= 1000",
        "`checkInterval` must be at least `1s`",
    ),
)
