"""What a Prefect server says about the deployments, their runs and workers, by plain requests."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pixelmill.flows.deployments import deployment_names
from pixelmill.flows.server_api import ServerApi

_UNFINISHED = ("RUNNING", "PENDING", "CANCELLING")
_FINISHED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_MOST_SCHEDULED = 200
_REQUESTS_AT_ONCE = 8
# A run stays in these states for seconds; longer, and nothing will ever end it.
LONGEST_IN_STATE = {
    "PENDING": timedelta(minutes=10),
    "CANCELLING": timedelta(minutes=10),
    "SCHEDULED": timedelta(minutes=10),
    "RUNNING": timedelta(hours=24),
}
# A run takes a while, so a daily deployment is overdue after 26 hours.
_GRACE = timedelta(hours=2)


@dataclass(frozen=True)
class RunStatus:
    """A run that has not ended, or the last one of a deployment that has.

    Attributes:
        id: Its ID.
        name: Its name.
        deployment: `FLOW/DEPLOYMENT`; None for a run from a terminal.
        state: The name of its state, such as `Refused`.
        state_type: Its type, such as `FAILED`.
        since: When it entered the state, ISO 8601.
        message: The message of the state.
        stuck: Why it will not end by itself; None if it may.
        page: The address of its page.
    """

    id: str
    name: str
    deployment: str | None
    state: str
    state_type: str
    since: str
    message: str
    stuck: str | None
    page: str


@dataclass(frozen=True)
class DeploymentStatus:
    """A deployment.

    Attributes:
        name: `FLOW/DEPLOYMENT`.
        paused: Whether it is paused.
        scheduled: Whether it has an active schedule.
        last_success: When its last completed run ended, ISO 8601; None if none did.
        last_run: Its last run that ended.
        next_run: When its next run starts, ISO 8601.
        unscheduled: Whether it has an active schedule, but the server has not scheduled a run for a while.
        overdue: Whether it runs by schedule and has not succeeded for longer than that takes.
        outputs: The output folders or addresses among its parameters.
    """

    name: str
    paused: bool
    scheduled: bool
    last_success: str | None
    last_run: RunStatus | None
    next_run: str | None
    unscheduled: bool
    overdue: bool
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class WorkerStatus:
    """A worker of a pool, and whether it has reported recently."""

    pool: str
    name: str
    alive: bool
    last_heartbeat: str | None


@dataclass(frozen=True)
class ServerStatus:
    """Deployments, the runs that have not ended, and workers."""

    deployments: tuple[DeploymentStatus, ...]
    runs: tuple[RunStatus, ...]
    workers: tuple[WorkerStatus, ...]


def read_server(api: ServerApi, is_this_host: bool) -> ServerStatus:
    """Ask a server for its state.

    Args:
        api: The server.
        is_this_host: Whether all of its workers run on this machine, so that a process ID means something.

    Raises:
        ServerUnavailableError: It does not respond.
    """
    names = deployment_names(api)
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        scheduled = pool.submit(_scheduled_runs, api)
        unfinished = pool.submit(
            api.every, "flow_runs/filter", flow_runs={"state": {"type": {"any_": list(_UNFINISHED)}}}
        )
        workers = pool.submit(_read_workers, api)
        details = api.every("deployments/filter")
        last = pool.map(lambda each: _last_runs(api, each["id"]), details)
        runs = [*unfinished.result(), *(run for run in scheduled.result() if run["state_name"] == "Late")]
        deployments = [
            _describe_deployment(api, each, names, succeeded, ended, scheduled.result())
            for each, (succeeded, ended) in zip(details, last, strict=True)
        ]
        return ServerStatus(
            tuple(sorted(deployments, key=lambda deployment: deployment.name)),
            tuple(_describe_run(api, run, names, is_this_host) for run in runs),
            tuple(workers.result()),
        )


def _scheduled_runs(api: ServerApi) -> list[Any]:
    found: list[Any] = api.post(
        "flow_runs/filter",
        flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}},
        sort="EXPECTED_START_TIME_ASC",
        limit=_MOST_SCHEDULED,
    )
    return found


def _last_runs(api: ServerApi, deployment: str) -> tuple[Any, Any]:
    """The last completed run of a deployment, and the last one that ended in any state; None without one."""
    found = []
    for types in (["COMPLETED"], list(_FINISHED)):
        runs = api.post(
            "flow_runs/filter",
            deployments={"id": {"any_": [deployment]}},
            flow_runs={"state": {"type": {"any_": types}}},
            sort="END_TIME_DESC",
            limit=1,
        )
        found.append(runs[0] if runs else None)
    return found[0], found[1]


def _describe_deployment(
    api: ServerApi,
    deployment: Any,
    names: dict[str, str],
    succeeded: Any,
    ended: Any,
    scheduled: Sequence[Any],
) -> DeploymentStatus:
    coming = [run["expected_start_time"] for run in scheduled if run["deployment_id"] == deployment["id"]]
    is_scheduled = any(schedule["active"] for schedule in deployment["schedules"])
    is_active = is_scheduled and not deployment["paused"]
    parameters = deployment["parameters"] or {}
    return DeploymentStatus(
        name=names.get(deployment["id"], deployment["name"]),
        paused=deployment["paused"],
        scheduled=is_scheduled,
        last_success=succeeded["end_time"] if succeeded else None,
        last_run=_describe_run(api, ended, names, is_this_host=False) if ended else None,
        next_run=coming[0] if coming else None,
        unscheduled=is_active and not coming and _age(deployment["updated"]) > LONGEST_IN_STATE["SCHEDULED"],
        overdue=is_active
        and _is_overdue(succeeded["end_time"] if succeeded else deployment["created"], coming),
        outputs=tuple(value for name, value in parameters.items() if name in ("output", "root") and value),
    )


def _is_overdue(since: str, coming: Sequence[str]) -> bool:
    """Whether the last success is further back than the distance of the next two runs, and some time more."""
    if len(coming) < 2:
        return False
    first, second = map(datetime.fromisoformat, coming[:2])
    return _age(since) > second - first + _GRACE


def _age(timestamp: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(timestamp)


def _describe_run(api: ServerApi, run: Any, names: dict[str, str], is_this_host: bool) -> RunStatus:
    state = run["state"]
    return RunStatus(
        id=run["id"],
        name=run["name"],
        deployment=names.get(run["deployment_id"] or ""),
        state=state["name"],
        state_type=state["type"],
        since=state["timestamp"],
        message=" ".join((state["message"] or "").split()),
        stuck=_why_stuck(run, is_this_host),
        page=f"{api.page}/runs/flow-run/{run['id']}",
    )


def _why_stuck(run: Any, is_this_host: bool) -> str | None:
    kind = run["state_type"]
    pid = re.fullmatch(r"(?:.*:)?(\d+)", run["infrastructure_pid"] or "")
    if is_this_host and pid and kind in _UNFINISHED and not os.path.exists(f"/proc/{pid[1]}"):  # noqa: PTH110
        return "its process is gone"
    # A run that is late is in its state since it was created.
    begun = run["expected_start_time"] if kind == "SCHEDULED" else run["state"]["timestamp"]
    longest = LONGEST_IN_STATE.get(kind)
    if longest is not None and _age(begun) > longest:
        hours = longest.total_seconds() / 3600
        return f"for more than {f'{hours:.0f} hours' if hours > 1 else f'{hours * 60:.0f} minutes'}"
    return None


def _read_workers(api: ServerApi) -> list[WorkerStatus]:
    found = []
    for pool in api.every("work_pools/filter"):
        workers = api.post(f"work_pools/{pool['name']}/workers/filter")
        found += [
            WorkerStatus(
                pool["name"], worker["name"], worker["status"] == "ONLINE", worker["last_heartbeat_time"]
            )
            for worker in workers
        ]
        if not workers:
            found.append(WorkerStatus(pool["name"], "", False, None))
    return found
