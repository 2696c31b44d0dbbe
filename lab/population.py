"""The synthetic users of the lab: sticky ids and groups, the same in the application and in the proofs."""

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from openfeature.evaluation_context import EvaluationContext

SIZE: Final = 10_000
SEED: Final = 20_260_101


@dataclass(frozen=True)
class User:
    """One user as the application knows it."""

    id: str
    groups: tuple[str, ...]

    def context(self, overrides: Mapping[str, list[str]] | None = None) -> EvaluationContext:
        """What the application passes to the evaluator about the user."""
        return EvaluationContext(targeting_key=self.id, attributes={"groups": list(self.groups), **(overrides or {})})


def users(size: int = SIZE) -> tuple[User, ...]:
    """All users; one in twenty is a beta user, one in twenty-five a power user, one in a hundred an admin."""
    source = random.Random(SEED)
    return tuple(
        User(
            id=str(uuid.UUID(int=source.getrandbits(128), version=4)),
            groups=tuple(
                group
                for group, every, rest in (("beta", 20, 0), ("power-users", 25, 1), ("admin", 100, 2))
                if index % every == rest
            ),
        )
        for index in range(size)
    )
