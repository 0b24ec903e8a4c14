"""A flow run that takes too long, was cancelled while nobody looked, or ends while the server is away."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.machine import Machine, wait_for
from tests.flows.conftest import PrefectServer, newest_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect-server"), pytest.mark.timeout(900)]
FLOW = """
import logging
import sys
import time

from prefect import flow, task

from pixelmill.flows.refusals import refusal_as_state, require_result
from pixelmill.flows.supervision import supervised
from pixelmill.pipeline.processes import run_in_spawned_process


@task(name="endless")
@refusal_as_state
def endless():
    run_in_spawned_process(time.sleep, 3600)


@flow(name="supervised")
@refusal_as_state
@supervised
def run(max_hours: float = 0.0):
    logging.getLogger("pixelmill.pipeline.tested").warning("a warning of the pipeline")
    require_result(endless())


if __name__ == "__main__":
    run(float(sys.argv[1]))
"""


def start(server: PrefectServer, folder: Path, hours: str) -> "subprocess.Popen[str]":
    (folder / "supervised_flow.py").write_text(FLOW)
    return subprocess.Popen(
        [sys.executable, str(folder / "supervised_flow.py"), hours],
        env={**os.environ, **server.environment, "PREFECT_HOME": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )


def run_of(server: PrefectServer) -> Any:
    return newest_run(server, "supervised")


def test_a_run_that_takes_too_long_fails_in_one_line(server: PrefectServer, tmp_path: Path) -> None:
    process = start(server, tmp_path, "0.0005")
    _, errors = process.communicate()
    assert process.returncode == 1
    run = run_of(server)
    assert run["state"]["name"] == "Failed"
    assert run["state"]["message"].startswith(
        "the run was at work for longer than 0.0005 hours; expected a run that ends within `max_hours`"
    ), errors
    # The page of the run also has what the modules of the pipeline say.
    machine = Machine(tmp_path, port=int(server.url.rpartition(":")[2]))
    wait_for("the warning", lambda: "a warning of the pipeline" in machine.log(run["id"]))
    assert "Traceback" not in machine.log(run["id"])


def test_a_cancelled_run_ends_itself(server: PrefectServer, tmp_path: Path) -> None:
    machine = Machine(tmp_path, port=int(server.url.rpartition(":")[2]))
    process = start(server, tmp_path, "0")
    (record,) = wait_for("the record", lambda: list((tmp_path / "pixelmill/flow-runs").glob("*.json")))
    state = {"type": "CANCELLED", "name": "Cancelled"}
    machine.ask("POST", f"flow_runs/{record.stem}/set_state", {"state": state, "force": True})
    assert process.stderr is not None
    process.stderr.read()
    # All processes that had the pipe open have ended, also the child.
    assert process.wait() != 0
    assert machine.run(record.stem)["state_name"] == "Cancelled"


SHORT_FLOW = """
import sys
import time
from pathlib import Path

from prefect import flow

from pixelmill.flows.supervision import supervised


@flow(name="short")
@supervised
def run(folder: str):
    Path(folder, "begun").touch()
    while not Path(folder, "server is away").exists():
        time.sleep(0.1)


if __name__ == "__main__":
    run(sys.argv[1])
"""


def test_a_run_that_ends_while_the_server_is_away_reports_it_later(tmp_path: Path) -> None:
    (tmp_path / "short_flow.py").write_text(SHORT_FLOW)
    machine = Machine(tmp_path / "home")
    machine.folder.mkdir()
    try:
        machine.start_server()
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "short_flow.py"), str(tmp_path)],
            # The client gives up at once instead of after a minute.
            env={**machine.environment, "PREFECT_CLIENT_MAX_RETRIES": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for("the work", (tmp_path / "begun").exists)
        assert machine.server is not None
        machine.server.kill()
        machine.server.wait()
        (tmp_path / "server is away").touch()
        assert process.stderr is not None
        for line in process.stderr:
            if "waiting to report the end" in line:
                break
        machine.start_server()
        process.stderr.read()
        assert process.wait() == 0
        (run,) = machine.ask("POST", "flow_runs/filter", {})
        assert run["state_name"] == "Completed"
    finally:
        machine.stop()
