"""Prefect's database stays as large as the runs that are kept."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pixelmill.flows.old_runs import find_old_runs, remove_old_runs
from pixelmill.flows.server_api import ServerApi
from pixelmill.flows.server_settings import SERVER_DEFAULTS
from tests.deployment.machine import wait_for
from tests.flows.conftest import prefect_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RUNS = 30
LINES = 200  # What a retraining logs, with room for more.


def retrain(api: ServerApi, deployment: Any) -> str:
    """A run as Prefect knows one: its states and its log; returns its ID."""
    run = api.post(
        "flow_runs/", flow_id=deployment["flow_id"], deployment_id=deployment["id"], state={"type": "PENDING"}
    )
    lines = [
        {
            "flow_run_id": run["id"],
            "name": "prefect.flow_runs",
            "level": 20,
            "timestamp": datetime.now(UTC).isoformat(),
            "message": f"epoch {number}: " + "validation accuracy " * 10,
        }
        for number in range(LINES)
    ]
    api._request("POST", "logs/", lines)
    for kind in ("RUNNING", "COMPLETED"):
        api.post(f"flow_runs/{run['id']}/set_state", state={"type": kind}, force=True)
    return str(run["id"])


def age(database: Path, but: str) -> None:
    """Let all runs but one have ended 31 days ago; the server keeps them for 30."""
    earlier = "strftime('%Y-%m-%d %H:%M:%f000', end_time, '-31 days')"
    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute(f"UPDATE flow_run SET end_time = {earlier} WHERE id != ?", (but,))
    connection.close()


def test_thirty_runs_then_prune_and_retention(tmp_path: Path) -> None:
    """The file does not shrink, but what comes next takes the room of what was removed."""
    often = {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "5",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS": "5",
    }
    with prefect_server(tmp_path, **SERVER_DEFAULTS, **often) as server:
        api = ServerApi(f"{server.url}/api", seconds=60)
        flow = api.post("flows/", name="retrain")
        deployment = api.post("deployments/", name="nightly", flow_id=flow["id"])

        def size() -> int:
            return sum(path.stat().st_size for path in tmp_path.glob("prefect.db*"))

        def logs() -> int:
            return len(api.every("logs/filter"))

        newest = [retrain(api, deployment) for _ in range(RUNS)][-1]
        old = find_old_runs(api, 1, timedelta(0))
        assert len(old) == RUNS - 1
        largest = size()
        remove_old_runs(api, old)
        wait_for("the logs of removed runs to go", lambda: logs() == LINES)
        assert [run["id"] for run in api.every("flow_runs/filter")] == [newest]

        # Older than the 30 days that `pixelmill up` sets, so that the server removes them by itself.
        for _ in range(RUNS):
            retrain(api, deployment)
        age(tmp_path / "prefect.db", but=newest)
        wait_for(
            "the server to remove them",
            lambda: [run["id"] for run in api.every("flow_runs/filter")] == [newest],
        )
        wait_for("the logs of removed runs to go", lambda: logs() == LINES)
        assert size() < 1.5 * largest
