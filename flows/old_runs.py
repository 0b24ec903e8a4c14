"""Flow runs that nobody needs any more, and their removal from Prefect's database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pixelmill.flows.server_api import ServerApi

_ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
_AT_ONCE = 50  # The most that the server removes in one request.


@dataclass(frozen=True)
class OldRun:
    """A run that ended: its ID, name, and when it ended, ISO 8601."""

    id: str
    name: str
    ended: str


def find_old_runs(api: ServerApi, keep: int, older_than: timedelta) -> list[OldRun]:
    """The runs that ended before some time, oldest first.

    Kept are the newest runs of each deployment, and the last one that succeeded.

    Raises:
        ServerUnavailableError: The server does not respond.
    """
    before = datetime.now(UTC) - older_than
    ended = {"state": {"type": {"any_": _ENDED}}, "end_time": {"before_": before.isoformat()}}
    runs = api.every("flow_runs/filter", flow_runs=ended, sort="END_TIME_DESC")
    needed = {
        run["id"]
        for deployment in {run["deployment_id"] for run in runs} - {None}
        for run in _newest(api, deployment, keep)
    }
    return [
        OldRun(run["id"], run["name"], run["end_time"]) for run in reversed(runs) if run["id"] not in needed
    ]


def remove_old_runs(api: ServerApi, runs: Sequence[OldRun]) -> None:
    """Remove runs with their logs and artifacts.

    Raises:
        ServerUnavailableError: The server does not respond.
    """
    for start in range(0, len(runs), _AT_ONCE):
        chosen = [run.id for run in runs[start : start + _AT_ONCE]]
        api.post("flow_runs/bulk_delete", flow_runs={"id": {"any_": chosen}}, limit=_AT_ONCE)


def _newest(api: ServerApi, deployment: str, keep: int) -> list[Any]:
    of_deployment = {"id": {"any_": [deployment]}}
    found: list[Any] = []
    for types, count in ((_ENDED, keep), (["COMPLETED"], 1)):
        found += api.post(
            "flow_runs/filter",
            deployments=of_deployment,
            flow_runs={"state": {"type": {"any_": types}}},
            sort="END_TIME_DESC",
            limit=count,
        )
    return found
