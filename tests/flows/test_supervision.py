"""A flow run that takes too long, and one that was cancelled while nobody looked, end themselves."""

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
