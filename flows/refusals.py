"""Ending flows in states of their own, with one line and no traceback: `Refused`, `Unchanged`, `Skipped`."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect import State, get_run_logger
from prefect.states import Completed, Failed, get_state_exception

from pixelmill.flows.os_errors import explain_os_error, is_for_users
from pixelmill.pipeline.display import without_passwords
from pixelmill.pipeline.errors import GateRefused, PixelmillError, WorkError
from pixelmill.pipeline.promotion.unchanged import Unchanged
from pixelmill.pipeline.run_lock import AnotherRunAtWork, Skipped

P = ParamSpec("P")
R = TypeVar("R")

REFUSED = "Refused"
UNCHANGED = "Unchanged"
SKIPPED = "Skipped"


def refusal_as_state(body: Callable[P, R]) -> Callable[P, R]:
    """End a flow or task in the state `Refused` if its body raises `GateRefused`.

    The state has the type FAILED, so it is counted as a failure; automations can distinguish it by the name
    of its event, `prefect.flow-run.Refused`. Any other error that is meant for users, or says that a disk is
    full, ends it in `Failed`, with one line as well. Prefect logs the traceback of every exception that a
    body raises, so the error is returned as a state instead. The caller of a task must pass the result to
    `require_result`; for a flow, Prefect raises the error in the caller. If that is a worker's engine, it
    logs the exception, so a filter drops that record.

    An error of a library whose text contains a password is replaced by one without.
    """

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return body(*args, **kwargs)
        except PixelmillError as error:
            return cast("R", _failed(error))
        except Exception as error:
            if isinstance(error, OSError) and is_for_users(error):
                return cast("R", _failed(explain_os_error(error)))
            message = " ".join(str(error).split())
            if without_passwords(message) == message:
                raise
            return cast("R", _failed(_without_password(error)))

    return run


def _failed(error: PixelmillError) -> Any:
    logging.getLogger("prefect.flow_runs").addFilter(_is_unexpected)
    if isinstance(error, GateRefused):
        return Failed(name=REFUSED, message=str(error), data=error)
    get_run_logger().error("%s", error)
    return Failed(message=str(error), data=error)


def _without_password(error: Exception) -> PixelmillError:
    text = without_passwords(" ".join(str(error).split()))
    return WorkError(
        f"{type(error).__name__}: {text}", "a run without errors", "Look into the log for what led to it."
    )


def unchanged_as_state(unchanged: Unchanged) -> Unchanged:
    """The result of a flow that ends in the state `Unchanged`, which has the type COMPLETED."""
    message = (
        f"{unchanged.name}@{unchanged.version} was trained on the same data with the same recipe and packages"
    )
    return cast("Unchanged", Completed(name=UNCHANGED, message=message, data=unchanged))


def skipped_as_state(error: AnotherRunAtWork) -> Skipped:
    """The result of a flow that ends in the state `Skipped`, which has the type COMPLETED."""
    skipped = Skipped(error.name, error.holder)
    return cast("Skipped", Completed(name=SKIPPED, message=str(error), data=skipped))


def show_errors_in_one_line() -> None:
    """Leave the tracebacks of errors that are meant for users out of the log of tasks, such as `download`."""
    logger = logging.getLogger("prefect.task_runs")
    if _without_traceback not in logger.filters:
        logger.addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    # A task that ended in a state, not with an exception, is logged with the traceback of none.
    if not _is_unexpected(record) or record.exc_info == (None, None, None):
        record.exc_info = None
    return True


def _is_unexpected(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, PixelmillError) or (isinstance(error, OSError) and is_for_users(error)))


def require_result(result: R) -> R:
    """Return a task's result.

    Raises:
        PixelmillError: The result is the state of a task that ended with one.
    """
    if isinstance(result, State):
        raise cast("Exception", get_state_exception(result))
    return result


def refusal_of(result: object) -> str | None:
    """Why a task ended as refused; None if its result is no refusal."""
    return result.message if isinstance(result, State) else None
