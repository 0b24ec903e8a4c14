"""Flow runs without a process: Prefect shows them as running for ever, unless somebody tells it.

A run of which worker and process were killed together, by a power failure or a reboot, stays `Running`,
`Pending` or `Cancelling`. Only its own host can know that its process is gone, so each host heals its own
runs: `pixelmill worker` does when it starts, and so does each flow run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pixelmill.flows.process_record import flow_runs_of_processes, read_record, remove_records_except

_MOST_RUNS = 200
_WORKER_LABEL = "prefect.worker.name"


@dataclass(frozen=True)
class DeadRun:
    """A flow run that Prefect takes for active, whose process on this host has ended.

    Attributes:
        id: The identifier of the flow run.
        name: Its name.
        state: The name of its state, such as `Running`.
        cancelling: Whether somebody cancelled it.
    """

    id: UUID
    name: str
    state: str
    cancelling: bool


def find_dead_runs(worker: str = "") -> list[DeadRun]:
    """The active flow runs of this host without a live process.

    Args:
        worker: The name of this host's worker, if it is known not to be running: runs that it submitted but
            did not start belong to no process.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return list(_find(client, worker))


def heal_runs(worker: str = "") -> list[str]:
    """Mark the dead runs of this host as `Crashed`, or `Cancelled` if they were; returns a line for each.

    Args:
        worker: See `find_dead_runs`.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return [_bury(client, run) for run in _find(client, worker)]


def _find(client: Any, worker: str) -> Iterator[DeadRun]:
    from prefect.client.schemas.objects import StateType

    active = _active_runs(client)
    # Read after the list of the runs, so that the process of each of them exists by now if it ever did.
    alive = set(flow_runs_of_processes())
    for run in active:
        if str(run.id) not in alive and _is_dead(run, worker):
            yield DeadRun(run.id, run.name, run.state.name, run.state.type == StateType.CANCELLING)
    if len(active) < _MOST_RUNS:
        remove_records_except({str(run.id) for run in active})


def _active_runs(client: Any) -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    kinds = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds))
    return list(client.read_flow_runs(flow_run_filter=FlowRunFilter(state=states), limit=_MOST_RUNS))


def _is_dead(run: Any, worker: str) -> bool:
    """Whether a run without a process of a worker belongs to this host, and to no other process."""
    from prefect.client.schemas.objects import StateType

    submitted_by_ours = bool(worker) and run.labels.get(_WORKER_LABEL) == worker
    record = read_record(str(run.id))
    if record is None:
        return submitted_by_ours
    if not record.is_of_this_host or record.is_alive:
        return False
    # A run that is started again is pending, while the record is that of its first process.
    return submitted_by_ours or bool(run.state.type != StateType.PENDING)


def _bury(client: Any, run: DeadRun) -> str:
    from prefect.states import Cancelled, Crashed

    message = f"its process ended while it was {run.state}; found by pixelmill on its host"
    state: Any = Cancelled(message=message) if run.cancelling else Crashed(message=message)
    result = client.set_flow_run_state(run.id, state)
    if result.status.value != "ACCEPT":
        return f"{run.name} ({run.id}) stays {run.state}: {getattr(result.details, 'reason', result.status)}"
    _bury_tasks(client, run.id)
    return f"{run.name} ({run.id}) was {run.state} without a process, and is now {state.name}"


def _bury_tasks(client: Any, flow_run: UUID) -> None:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    kinds = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=kinds)),
    )
    for task in tasks:
        client.set_task_run_state(task.id, Crashed(message="the process of its flow run ended"), force=True)
