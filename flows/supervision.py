"""What a flow run does beside its work: leave a record of its process, end when it should, show its log.

It also waits for a server that is away when the work is done.

A thread looks every few seconds whether somebody cancelled the run, and how long it has been at work.
Prefect's worker ends a cancelled run, except after the server was away for half a minute, when it no longer
looks.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect.context import FlowRunContext, TaskRunContext, get_run_context
from prefect.logging.handlers import APILogHandler
from prefect.states import Cancelled

from pixelmill.flows.healing import heal_runs
from pixelmill.flows.outages import wait_for_server
from pixelmill.flows.passwords import hide_in_logs
from pixelmill.flows.process_record import write_record
from pixelmill.flows.refusals import show_errors_in_one_line
from pixelmill.pipeline.errors import PixelmillError, WorkError
from pixelmill.pipeline.processes import terminate_children

P = ParamSpec("P")
R = TypeVar("R")

_SECONDS_BETWEEN_LOOKS = 10.0
_SECONDS_TO_END = 30.0
_log = logging.getLogger(__name__)


class RunCancelled(Exception):
    """Somebody cancelled the run, and its work has been ended."""


def supervised(body: Callable[P, R]) -> Callable[P, R]:
    """Supervise a flow's body during its run; its parameter `max_hours`, if it has one, limits the time.

    Raises:
        WorkError: The run took longer than `max_hours`, where 0 stands for no limit.
    """

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with supervision():
                return body(*args, **kwargs)
        except RunCancelled as cancelled:
            # The error that ended the run must not replace its state.
            return cast("R", Cancelled(message=str(cancelled)))

    return run


@contextmanager
def supervision() -> Iterator[None]:
    """Supervise the current flow run during the block.

    Raises:
        RunCancelled: Somebody cancelled the run.
        WorkError: The run took longer than `max_hours`.
    """
    context = get_run_context()
    if not isinstance(context, FlowRunContext) or context.flow_run is None:
        raise TypeError("supervision() outside a flow run")
    hours = float((context.parameters or {}).get("max_hours") or 0)
    hide_in_logs()
    show_errors_in_one_line()
    show_pipeline_log()
    with suppress(OSError):  # Only healing needs the record, and a full disk is reported by what follows.
        write_record(str(context.flow_run.id))
    _start(_heal)
    watch = _Watch(context.flow_run.id, hours)
    watch.start()
    try:
        yield
        # Its time limit is for the work, which is done.
        watch.stop()
        wait_for_server()
    except Exception as error:
        watch.stop()
        wait_for_server()
        if watch.is_cancelled:
            raise RunCancelled("ended by its own process") from error
        if watch.is_too_late:
            raise _too_late(hours) from error
        raise
    finally:
        watch.stop()


class _PageHandler(APILogHandler):
    """Sends a message to the page of the run it belongs to; Prefect's own warns of one outside any run."""

    def emit(self, record: logging.LogRecord) -> None:
        if FlowRunContext.get() or TaskRunContext.get():
            super().emit(record)


def show_pipeline_log() -> None:
    """Send the messages of pixelmill's modules to the page of the run, also under a worker."""
    for name in ("pixelmill", "pixelmill.pipeline"):
        logger = logging.getLogger(name)
        # The command prints the messages of the pipeline itself, so they do not reach the logger above.
        if name == "pixelmill.pipeline" and logger.propagate:
            continue
        if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
            logger.addHandler(_PageHandler())
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


def _start(work: Callable[[], object]) -> None:
    # The context has the settings of the client.
    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()


def _heal() -> None:
    # Nothing depends on it: the next run tries again.
    with suppress(Exception):
        for line in heal_runs():
            _log.info("%s", line)


def _too_late(hours: float) -> PixelmillError:
    return WorkError(
        f"the run was at work for longer than {hours:g} hours",
        "a run that ends within `max_hours`",
        "Look at what it waited for, or raise `max_hours`; the next run resumes after the last epoch.",
    )


class _Watch:
    """Ends this process if its flow run was cancelled, and its work if that takes too long."""

    def __init__(self, flow_run: object, hours: float) -> None:
        self._flow_run = flow_run
        self._deadline = time.monotonic() + 3600 * hours if hours else None
        self._stopped = threading.Event()
        self.is_too_late = False
        self.is_cancelled = False

    def start(self) -> None:
        _start(self._look)

    def stop(self) -> None:
        self._stopped.set()

    def _look(self) -> None:
        while not self._stopped.wait(self._seconds_to_next_look()):
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self.is_too_late = True
            # Any error of the client, and of a server that is away, means that nothing is known.
            with suppress(Exception):
                if self._was_cancelled():
                    self.is_cancelled = True
                    _log.warning("the run was cancelled: its process ends")
                    self._end()
            if self.is_too_late:
                self._end()

    def _seconds_to_next_look(self) -> float:
        left = _SECONDS_BETWEEN_LOOKS if self._deadline is None else self._deadline - time.monotonic()
        return min(_SECONDS_BETWEEN_LOOKS, max(left, 0.0)) if not self.is_too_late else _SECONDS_BETWEEN_LOOKS

    def _was_cancelled(self) -> bool:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.objects import StateType

        with get_client(sync_client=True) as client:
            run: Any = client.read_flow_run(self._flow_run)  # type: ignore[arg-type]
            if run.state.type == StateType.CANCELLING:
                # Prefect's worker ends the process within seconds. If it has not, nobody else will.
                if self._stopped.wait(_SECONDS_BETWEEN_LOOKS):
                    return False
                client.set_flow_run_state(run.id, Cancelled(message="ended by its own process"))
            return run.state.type in {StateType.CANCELLED, StateType.CANCELLING}

    def _end(self) -> None:
        """End the processes of this one, which fails the run, then this process itself if it goes on."""
        terminate_children()
        if self._stopped.wait(_SECONDS_TO_END):
            return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if not self._stopped.wait(_SECONDS_TO_END):
            os._exit(128 + signal.SIGTERM)
