"""R14: the time that decisions use, while every clock around it is set to whatever."""

from datetime import UTC, datetime, timedelta

import pytest

from session_rollout.adapters.clock import JUMP_SECONDS, ServerClock
from session_rollout.adapters.telemetry import CLOCK_JUMPS, CLOCK_SKEW

START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC).timestamp()
HOUR = 3600.0


class Times:
    """True time, and the errors of the clocks of the operator's node and of the API server."""

    def __init__(self, node: float = 0.0, server: float = 0.0) -> None:
        self.elapsed, self.node, self.server = 500.0, node, server
        self.clock = ServerClock(lambda: START + self.elapsed + self.node, lambda: self.elapsed)

    def receive(self, latency: float = 0.0) -> None:
        """An answer of the API server."""
        sent, self.elapsed = self.elapsed, self.elapsed + latency
        date = datetime.fromtimestamp(int(START + self.elapsed + self.server), UTC)
        self.clock.heard(date, sent, self.elapsed)

    @property
    def error(self) -> float:
        """How far the operator's time is from the true one."""
        return self.clock.now().timestamp() - (START + self.elapsed)


def jumps(source: str) -> float:
    """Counted jumps of a clock."""
    return float(CLOCK_JUMPS.labels(source)._value.get())


@pytest.mark.parametrize("node", [-HOUR, -3.0, 0.0, 3.0, HOUR])
def test_time_is_that_of_the_api_server(node: float) -> None:
    """Whatever the node's clock says when the process starts."""
    times = Times(node=node)
    times.receive(0.1)
    assert abs(times.error) <= 1.1


def test_resolution_and_latency_are_no_difference() -> None:
    """The header has whole seconds, and the answer may be slow: the time does not move for that."""
    times = Times()
    times.receive()
    before = times.error
    for latency in (0.001, 0.4, 2.5, 0.9, 9.0):
        times.elapsed += 2.3
        times.receive(latency)
        assert times.error == pytest.approx(before, abs=1.0)
        assert CLOCK_SKEW._value.get() == 0


@pytest.mark.parametrize("by", [-HOUR, HOUR, -3.0, 3.0])
def test_jump_of_the_nodes_clock_changes_nothing_and_is_noticed(by: float, caplog: pytest.LogCaptureFixture) -> None:
    times = Times()
    times.receive()
    times.clock.hold_steady()
    times.clock.tick()
    before, counted = times.error, jumps("operator")
    times.node += by
    times.elapsed += 5
    times.clock.tick()
    assert times.error == pytest.approx(before, abs=0.002)
    assert times.clock.jump is not None
    assert (times.clock.jump.source, times.clock.jump.by) == ("operator", timedelta(seconds=by))
    assert jumps("operator") == counted + 1
    times.clock.tick()
    assert [record.levelname for record in caplog.records] == ["WARNING"], "said once"


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_jump_of_the_servers_clock_is_not_followed_by_a_leader(by: float) -> None:
    """Back would blind guards for an hour; forward would end holds an hour early."""
    times = Times()
    times.receive()
    times.clock.hold_steady()
    before, counted = times.error, jumps("api-server")
    times.server += by
    for _ in range(5):
        times.elapsed += 2
        times.receive(0.1)
    assert times.error == pytest.approx(before, abs=0.002)
    assert CLOCK_SKEW._value.get() == pytest.approx(by, abs=1.2)
    assert times.clock.jump is not None
    assert times.clock.jump.source == "api-server"
    assert jumps("api-server") == counted + 1, "counted once"
    times.server -= by
    times.receive()
    assert CLOCK_SKEW._value.get() == 0


def test_jumps_add_up() -> None:
    """What an action's creation time means depends on all of them, also after the node's clock was set."""
    times = Times()

    def ahead() -> float:
        assert times.clock.jump is not None
        return times.clock.jump.ahead.total_seconds()

    times.receive()
    times.clock.hold_steady()
    for by in (-HOUR, -HOUR, HOUR / 2):
        times.server += by
        times.receive()
        assert ahead() == pytest.approx(times.server, abs=1.2)
    times.node += HOUR
    times.clock.tick()
    assert ahead() == pytest.approx(-1.5 * HOUR, abs=1.2)
    counted, times.server = jumps("api-server"), 0.0
    times.receive()
    assert ahead() == 0
    assert jumps("api-server") == counted, "it is right again"


def test_replica_that_stands_by_follows_the_server() -> None:
    """It has written no time: when it leads, its time is that of the server."""
    times = Times()
    times.receive()
    times.server += HOUR
    times.receive()
    assert times.error == pytest.approx(HOUR, abs=1.1)


def test_time_never_goes_back() -> None:
    """A small difference is adopted; until the time has caught up, it stands."""
    times = Times()
    times.receive()
    times.clock.hold_steady()
    seen = [times.clock.now()]
    for server in (0.0, -1.0, 1.0, -1.9, 1.9, -0.5, 0.0, -HOUR, 0.0):
        times.server = server
        for _ in range(4):
            times.elapsed += 0.7
            times.receive(0.05)
            seen.append(times.clock.now())
    assert seen == sorted(seen)
    assert abs(times.error) <= JUMP_SECONDS + 1


def test_slow_correction_of_the_nodes_clock_is_no_jump() -> None:
    times = Times()
    for _ in range(100):
        times.node += 0.5
        times.elapsed += 5
        times.clock.tick()
    assert times.clock.jump is None
