"""What needs a person, one line for each, with what to do."""

from collections.abc import Iterator, Sequence

from humanize import naturalsize

from pixelmill.flows.server_record import ServerRecord
from pixelmill.flows.server_status import DeploymentStatus, RunStatus, ServerStatus, WorkerStatus
from pixelmill.pipeline.status import DiskStatus, DriftStatus, ModelStatus


def models_in_need(models: Sequence[ModelStatus]) -> Iterator[str]:
    """Models without an intact champion."""
    for model in models:
        if model.error:
            yield f"{model.name}: {model.error}. See `pixelmill models`, and promote or restore a version."


def drift_in_need(drift: Sequence[DriftStatus]) -> Iterator[str]:
    """Tables whose images or predictions have drifted from the test images."""
    for table in drift:
        if table.drifted:
            yield (
                f"{table.table} has drifted from the test images ({', '.join(table.drifted)}). "
                "Look at its report.html; retrain if the images have changed."
            )


def disk_in_need(disk: DiskStatus) -> Iterator[str]:
    """A disk that is nearly full."""
    if disk.is_low:
        yield f"only {naturalsize(disk.free)} free for {disk.folder}. `pixelmill prune` lists what may go."


def processes_in_need(record: ServerRecord | None) -> Iterator[str]:
    """Processes that were started on this machine, and have ended by themselves."""
    for name in record.processes if record else ():
        if record and name not in record.alive():
            yield f"the {name} that was started here has ended. Start it again with `pixelmill up`."


def deployments_in_need(status: ServerStatus) -> Iterator[str]:
    """Deployments whose last run failed, or that have not succeeded for too long, and stuck runs."""
    for run in status.runs:
        if run.stuck:
            yield (
                f"run {run.name!r} is {run.state}: {run.stuck}. "
                f"Cancel it, or start the worker anew, which marks what has died: {run.page}"
            )
    for deployment in status.deployments:
        yield from _deployment_in_need(deployment)


def workers_in_need(workers: Sequence[WorkerStatus]) -> Iterator[str]:
    """Work pools without a worker that is alive."""
    for pool in sorted({worker.pool for worker in workers}):
        if not any(worker.alive for worker in workers if worker.pool == pool):
            yield (
                f"no worker of the pool {pool} is alive, so nothing runs. "
                f"Start one with `pixelmill worker --pool {pool}`."
            )


def _deployment_in_need(deployment: DeploymentStatus) -> Iterator[str]:
    last = deployment.last_run
    if last is not None and last.state_type != "COMPLETED":
        yield f"{deployment.name}: its last run ended {_ending(last)}. See {last.page}"
    elif deployment.overdue:
        since = deployment.last_success or "it was deployed"
        yield f"{deployment.name}: no success since {since}. Look at its runs, and at the worker."
    if deployment.unscheduled:
        yield (
            f"{deployment.name}: it has a schedule, but no run is scheduled. "
            "Read the log of the server; `pixelmill deploy` registers it again."
        )


def _ending(run: RunStatus) -> str:
    return f"{run.state} ({run.message[:200]})" if run.message else run.state
