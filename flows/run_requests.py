"""Requests for a retraining: who asks, and what becomes of those that come while a run is at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger

from prefect.context import FlowRunContext
from prefect.deployments import run_deployment

from pixelmill.pipeline.run_lock import AnotherRunAtWork, RunLock, RunRequest

_log = getLogger(__name__)
_TRIGGERED = "AUTOMATION"
"""The type of the creator of a flow run that an automation started."""


@contextmanager
def one_run_at_a_time(lock: RunLock) -> Iterator[None]:
    """Hold the lock of a model during the block; then start one run for the triggers that came meanwhile.

    Raises:
        AnotherRunAtWork: Another process holds it; the request of this run is kept.
    """
    try:
        with lock.held(request_of_this_run()) as covered:
            if covered:
                _log.info("this run covers %s, which found another run at work", _describe(covered))
            yield
    except AnotherRunAtWork:
        raise
    except Exception:
        _serve_request(lock)
        raise
    # Not after Ctrl-C or the end of the process: then the requests stay for the next run.
    _serve_request(lock)


def request_of_this_run() -> RunRequest:
    """The request that the current flow run stands for."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None:
        return RunRequest()
    creator = run.created_by.type if run.created_by else ""
    if creator == _TRIGGERED and run.deployment_id:
        return RunRequest(str(run.id), "trigger", str(run.deployment_id))
    return RunRequest(str(run.id), "schedule" if run.auto_scheduled else "command")


def _serve_request(lock: RunLock) -> None:
    """Start one run for all triggers: what they saw may have come after this run had read its data."""
    asked = lock.take_requests()
    if not asked:
        return
    triggered = [request for request in asked if request.deployment]
    if not triggered:
        _log.info("%s found this run at work", _describe(asked))
        return
    try:
        run = run_deployment(triggered[-1].deployment, timeout=0, as_subflow=False)
    except Exception as error:  # noqa: BLE001  # Any error of the server: the next run covers the requests.
        lock.put_back(asked)
        _log.warning(
            "%s are kept for the next run, since none could be started (%s)", _describe(asked), error
        )
        return
    _log.info(
        "%s found this run at work: %s was started for them", _describe(asked), getattr(run, "name", run)
    )


def _describe(requests: tuple[RunRequest, ...]) -> str:
    count = len(requests)
    return f"{count} request{'s' * (count != 1)} ({', '.join(sorted({one.reason for one in requests}))})"
