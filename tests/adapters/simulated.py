"""An event loop whose time is simulated: seconds pass at once, and exactly as many as somebody waits for."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Skipping(selectors.DefaultSelector):
    """Nothing ever happens outside, so a wait is over at once, and the time is what would have been waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and nothing would end it"
        self.now += max(timeout, 0.0)
        return super().select(0)


class Simulated(asyncio.SelectorEventLoop):
    """An event loop whose time is simulated."""

    def __init__(self) -> None:
        self.skipping = Skipping()
        super().__init__(self.skipping)

    def time(self) -> float:
        return self.skipping.now


def run(body: Coroutine[Any, Any, Result]) -> Result:
    """Run a test's coroutine in simulated time."""
    with asyncio.Runner(loop_factory=Simulated) as runner:
        return runner.run(body)


async def passes(seconds: float) -> None:
    """Wait for so much of the simulated time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Simulated), "real time is not waited for"
    await asyncio.sleep(seconds)
