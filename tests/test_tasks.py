"""R2: a background task that ends is noticed, wherever it ends. That the process ends is for tests/integration/test_process.py."""

import asyncio
from functools import partial
from typing import Any

import pytest

from controller.cluster import breathe
from session_rollout.tasks import WATCHED, Background, EndedUnexpectedly, place_of, root_cause, watched


async def fails() -> None:
    """A bug."""
    raise KeyError("spec")


async def returns() -> None:
    """A loop that ends."""


async def waits() -> None:
    """A loop that works."""
    await asyncio.Event().wait()


def reported(work: Any, *, may_end: bool = False, cancel: bool = False) -> list[dict[str, Any]]:
    """What the exception handler of the event loop gets."""
    contexts: list[dict[str, Any]] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
        task = watched(work(), "a task", may_end=may_end)
        await breathe()
        if cancel:
            task.cancel()
        await asyncio.wait([task])
        await breathe()

    asyncio.run(body())
    return contexts


@pytest.mark.parametrize("may_end", [False, True])
def test_task_that_raises_is_reported_at_once(may_end: bool) -> None:
    [context] = reported(fails, may_end=may_end)
    assert context["task"].get_name() == "a task"
    assert context[WATCHED]
    assert isinstance(context["exception"], KeyError)


def test_task_that_returns_is_reported_unless_it_may() -> None:
    [context] = reported(returns)
    assert isinstance(context["exception"], EndedUnexpectedly)
    assert reported(returns, may_end=True) == []


def test_task_that_is_cancelled_is_no_failure() -> None:
    assert reported(waits, cancel=True) == []


def test_place_is_the_last_line_of_this_package_or_of_a_library() -> None:
    with pytest.raises(ValueError, match="outer") as caught:
        raise ValueError("outer") from KeyError("inner")
    assert place_of(caught.value).startswith("test_tasks.py:")
    assert place_of(caught.value).endswith(" in test_place_is_the_last_line_of_this_package_or_of_a_library")
    assert isinstance(root_cause(caught.value), KeyError)
    assert place_of(ValueError("never raised")) == "unknown"


# --- work in the background


def test_work_of_a_key_is_not_started_twice_and_delays_no_other() -> None:
    async def body() -> None:
        background, begun, release = Background("work", 4), [], asyncio.Event()

        async def work(name: str) -> None:
            begun.append(name)
            await release.wait()

        first = await background.give("a", partial(work, "a"), 0)
        assert await background.give("a", partial(work, "a"), 0) is first
        await background.give("b", partial(work, "b"), 0)
        await breathe()
        assert begun == ["a", "b"]
        release.set()
        await asyncio.wait({first})
        await background.give("a", partial(work, "a"), 5)
        assert begun == ["a", "b", "a"]

    asyncio.run(body())


def test_exception_of_work_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It concerns one key, which may work again."""

    async def body() -> None:
        background, ended = Background("work", 1), []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: ended.append(context))
        for _ in range(2):
            await background.give("a", fails, 5)
        assert ended == []

    asyncio.run(body())
    assert [vars(record)["class"] for record in caplog.records] == ["KeyError"] * 2
