"""A worker and its runs, killed in all combinations: what Prefect shows afterwards, and the next run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.machine import Machine, exists, kill, wait_for
from tests.flows.conftest import PrefectServer

pytestmark = [pytest.mark.xdist_group("prefect-server"), pytest.mark.timeout(900)]
FLOW = """
import time
from pathlib import Path

from prefect import flow

from pixelmill.flows.refusals import refusal_as_state, skipped_as_state
from pixelmill.flows.run_requests import one_run_at_a_time
from pixelmill.flows.supervision import supervised
from pixelmill.pipeline.run_lock import AnotherRunAtWork, RunLock


@flow(name="waiting", flow_run_name="waiting")
@refusal_as_state
@supervised
def waiting(work: str):
    try:
        with one_run_at_a_time(RunLock(Path(work), "pets")):
            while not Path(work, "end").exists():
                time.sleep(0.1)
    except AnotherRunAtWork as error:
        return skipped_as_state(error)
"""


@pytest.fixture
def machine(server: PrefectServer, tmp_path: Path) -> Iterator[Machine]:
    """A worker with a home of its own, on the server of the session."""
    found = Machine(tmp_path / "home", port=int(server.url.rpartition(":")[2]))
    found.folder.mkdir()
    yield found
    found.stop()


def test_killed_runs_and_workers(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(FLOW)
    deployment = machine.deploy("waiting", "waiting.py:waiting", tmp_path, work=str(tmp_path))
    machine.start_worker()
    assert machine.worker is not None

    # Of two runs at once, the second is skipped, and says which one is at work.
    killed = machine.begin(deployment)
    pid = wait_for("the process of the run", lambda: machine.pid_of(killed))
    wait_for("the lock", (tmp_path / "locks/pets.json").is_file)
    skipped = machine.wait_for_state(machine.begin(deployment), "Skipped")
    assert skipped["state_type"] == "COMPLETED"
    assert f"another run of pets is at work: process {pid}, run {killed}" in skipped["state"]["message"]

    # A killed run is Crashed, since its worker lives; the next one covers what was skipped.
    kill(pid)
    machine.wait_for_state(killed, "Crashed")
    lost = machine.begin(deployment)
    pid = wait_for("the process of the run", lambda: machine.pid_of(lost))
    wait_for("the request", lambda: "this run covers 1 request (command)" in machine.log(lost))

    # While the worker lives, there is nothing to heal.
    assert machine.heal() == ""
    assert machine.run(lost)["state_name"] == "Running"

    # Killed together with its worker, it is Running for ever, until somebody looks.
    never_started = machine.begin(deployment)
    machine.wait_for_state(never_started, "Skipped")
    kill(machine.worker.pid, pid)
    machine.worker.wait()
    wait_for("the end of the process", lambda: not exists(pid))
    said = machine.heal()
    assert f"waiting ({lost}) was Running without a process, and is now Crashed" in said
    assert machine.run(lost)["state_name"] == "Crashed"
