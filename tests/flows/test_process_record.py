"""Records of the processes of flow runs: whose they are, and whether they live."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from pixelmill.flows.process_record import (
    ProcessRecord,
    flow_runs_of_processes,
    home,
    read_record,
    remove_records_except,
    write_record,
)
from pixelmill.flows.worker_start import hold_worker_name
from pixelmill.pipeline.artifacts import write_json
from pixelmill.pipeline.errors import RequestError
from tests.conftest import Run


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path) -> Iterator[None]:
    with temporary_settings({PREFECT_HOME: tmp_path}):
        yield


def test_a_record_says_whether_its_process_lives() -> None:
    write_record("mine")
    mine = read_record("mine")
    assert mine == ProcessRecord.of(os.getpid())
    assert mine.is_alive
    assert mine.is_of_this_host
    # Another process with the same number, one before the last boot, and one of another host.
    assert not replace(mine, started=mine.started + 1).is_alive
    assert not replace(mine, boot="another").is_alive
    assert not replace(mine, host="another").is_of_this_host
    assert read_record("none") is None


def test_a_process_that_ended_is_dead_even_before_its_parent_has_noticed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = ProcessRecord.of(child.pid)
    assert record.is_alive
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not record.is_alive  # A zombie.
    child.wait()
    assert not record.is_alive


def test_records_of_ended_processes_are_removed_unless_their_run_is_active() -> None:
    write_record("mine")
    for name in ("ended", "active"):
        write_json(home() / f"flow-runs/{name}.json", vars(replace(ProcessRecord.of(os.getpid()), started=1)))
    (home() / "flow-runs/damaged.json").write_text("{")
    remove_records_except({"active"})
    assert sorted(path.stem for path in (home() / "flow-runs").iterdir()) == ["active", "mine"]


def test_the_flow_run_of_a_process_is_found_in_its_environment() -> None:
    environment = {**os.environ, "PREFECT__FLOW_RUN_ID": "0a1b2c"}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env=environment) as child:
        # The environment is that of this process until the child has become `cat`.
        while Path(f"/proc/{child.pid}/cmdline").read_bytes() != b"cat\0":
            pass
        assert "0a1b2c" in set(flow_runs_of_processes())
    assert "0a1b2c" not in set(flow_runs_of_processes())


def test_a_worker_of_a_name_is_the_only_one(tmp_path: Path) -> None:
    hold = (
        "import sys; from pixelmill.flows.worker_start import hold_worker_name\n"
        "print(hold_worker_name('one', required=True), flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert not hold_worker_name("one", required=False)
        with pytest.raises(RequestError, match="a worker called one is at work on this host"):
            hold_worker_name("one", required=True)
        assert hold_worker_name("two", required=True)
    assert hold_worker_name("one", required=True)


def test_a_worker_without_a_server_is_refused_in_one_line(run: Run) -> None:
    result = run("worker")
    assert result.code == 2
    assert result.errors.startswith(
        "pixelmill: PREFECT_API_URL is not set; expected the address of a Prefect"
    )
    assert result.errors.count("\n") == 1
