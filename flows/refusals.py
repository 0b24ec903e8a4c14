"""Ending flows in states of their own: `Refused`, with one line and no traceback, and `Unchanged`."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from prefect import State
from prefect.states import Completed, Failed, get_state_exception

from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.promotion.unchanged import Unchanged

P = ParamSpec("P")
R = TypeVar("R")

REFUSED = "Refused"
UNCHANGED = "Unchanged"


def refusal_as_state(body: Callable[P, R]) -> Callable[P, R]:
    """End a flow or task in the state `Refused` if its body raises `GateRefused`.

    The state has the type FAILED, so it is counted as a failure; automations can distinguish it by the name
    of its event, `prefect.flow-run.Refused`. Prefect logs the traceback of every exception that a body
    raises, so the refusal is returned as a state instead. The caller of a task must pass the result to
    `require_result`; for a flow, Prefect raises the refusal in the caller. If that is a worker's engine, it
    logs the exception, so a filter drops that record.
    """

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return body(*args, **kwargs)
        except GateRefused as refusal:
            logging.getLogger("prefect.flow_runs").addFilter(_is_no_refusal)
            return cast("R", Failed(name=REFUSED, message=str(refusal), data=refusal))

    return run


def unchanged_as_state(unchanged: Unchanged) -> Unchanged:
    """The result of a flow that ends in the state `Unchanged`, which has the type COMPLETED."""
    message = (
        f"{unchanged.name}@{unchanged.version} was trained on the same data with the same recipe and packages"
    )
    return cast("Unchanged", Completed(name=UNCHANGED, message=message, data=unchanged))


def _is_no_refusal(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], GateRefused))


def require_result(result: R) -> R:
    """Return a task's result.

    Raises:
        GateRefused: The result is a refusal.
    """
    if isinstance(result, State):
        raise cast("Exception", get_state_exception(result))
    return result


def refusal_of(result: object) -> str | None:
    """Why a task ended as refused; None if its result is no refusal."""
    return result.message if isinstance(result, State) else None
