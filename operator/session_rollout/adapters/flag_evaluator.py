"""flagd's own evaluator as a check of flag documents, and the reference implementation of its bucketing.

One malformed flag would make every application reject the whole document, and with it an emergency. No client of Kubernetes is
imported here, because the plugin uses it, too.
"""

import json

import mmh3
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from session_rollout.core.flags import BUCKETING, CELL, PROBE, VARIANTS
from session_rollout.errors import SpecError


def bucket(flag_set: str, user: str, total: int = 1000) -> int:
    """Bucket of a user in bucketing generation v2; the user gets the feature when the bucket is below the weight."""
    return int(mmh3.hash(f"{flag_set}:{user}", signed=False) * total) >> 32


def require_flags(text: str) -> None:
    """Raise SpecError unless the document has flags with variants.

    For documents that somebody else may have written: rules can contain loops in loops, and evaluating them may take for ever.
    """
    try:
        flags = json.loads(text)["flags"].values()
        complete = all(isinstance(flag["variants"], dict) for flag in flags)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        complete = False
    if not complete:
        raise SpecError("flag document: invalid JSON, or without a mapping `flags` of flags with `variants`")


def validate(text: str) -> None:
    """Load a document of the operator into flagd's evaluator and evaluate every flag. Raises SpecError."""
    core = FlagdCore()
    context = EvaluationContext(targeting_key="validation", attributes={"groups": []})
    try:
        core.set_flags(text)
        for name in json.loads(text)["flags"]:
            if name == PROBE:
                _probe(core, context)
            elif name == CELL:
                core.resolve_string_value(name, default_value="", ctx=context)
            elif core.resolve_boolean_value(name, default_value=False, ctx=context).variant not in VARIANTS:
                raise SpecError(f"flag document: {name} has no variant for a user")
    except OpenFeatureError as error:
        raise SpecError(f"flag document: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError("flag document: invalid JSON, or without a mapping `flags`") from error


def _probe(core: FlagdCore, context: EvaluationContext) -> None:
    generation = core.resolve_string_value(PROBE, default_value="", ctx=context).value
    if generation != BUCKETING:
        raise SpecError(f"flag document: the evaluator uses bucketing generation {generation}; {BUCKETING} is required")
