"""A gate's refusal as a state of its own on Prefect's page: `Refused`, with one line and no traceback."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from prefect import State
from prefect.states import Failed, get_state_exception

from pixelmill.pipeline.errors import GateRefused

P = ParamSpec("P")
R = TypeVar("R")

REFUSED = "Refused"


def ending_refused(body: Callable[P, R]) -> Callable[P, R]:
    """Have a flow or a task end in the state `Refused` where its body raises `GateRefused`.

    The state is of the type FAILED, so that whatever counts failures counts it, too; automations tell it
    apart by the name of its event, `prefect.flow-run.Refused`. Prefect logs the traceback of everything that
    a body raises, so the refusal is returned as a state: whoever calls a task asks `passed`, and a flow's
    caller gets it raised. Where that is a worker's engine, it logs what it catches.
    """

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return body(*args, **kwargs)
        except GateRefused as refusal:
            logging.getLogger("prefect.flow_runs").addFilter(_is_no_refusal)
            return cast("R", Failed(name=REFUSED, message=str(refusal), data=refusal))

    return run


def _is_no_refusal(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], GateRefused))


def passed(result: R) -> R:
    """What a task returned.

    Raises:
        GateRefused: It returned a refusal.
    """
    if isinstance(result, State):
        raise cast("Exception", get_state_exception(result))
    return result
