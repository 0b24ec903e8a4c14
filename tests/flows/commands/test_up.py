"""`pixelmill up`, `deploy` and `down`: one server and worker on this machine, and nothing left of them."""

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pixelmill.flows.detached_processes import carrying
from pixelmill.flows.server_api import ServerApi
from pixelmill.flows.server_settings import FOLDER_VARIABLE
from tests.conftest import CommandResult, Run
from tests.flows.conftest import free_port

pytestmark = pytest.mark.xdist_group("prefect-server")

SECONDS_TO_RUN = 120
KEYS = {"models", "deployments", "runs", "next", "drift", "disk", "server", "worker", "needs_attention"}
# A flow of this test, so that a scheduled run takes seconds.
FLOW = """
from pathlib import Path
from prefect import flow

@flow
def touch(name: str, store: str) -> None:
    Path(name).write_text(store)
"""
DEPLOYMENT = {
    "name": "often",
    "entrypoint": "touching.py:touch",
    "work_pool": {"name": "pixelmill"},
    "schedules": [{"interval": 10}],
    "parameters": {"name": "touched", "store": "artifacts"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a flow that runs every ten seconds."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "touching.py").write_text(FLOW)
    step = {"pixelmill.flows.deployment_steps.enter_project": {"variable": "PIXELMILL_HOME"}}
    content = {"name": "test", "prefect-version": "3.8.8", "pull": [step], "deployments": [DEPLOYMENT]}
    (folder / "prefect.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def started(home: Path, run: Run) -> Iterator[Any]:
    """The result of `pixelmill up` with that project, and its port."""
    port = free_port()
    result = run("up", "--port", port, "--store", home / "store", "--json", cwd=home)
    try:
        assert result.code == 0, result.errors
        yield {**result.json, "port": port}
    finally:
        run("down", "--store", home / "store", cwd=home)


def wait_for_file(path: Path) -> str:
    deadline = time.monotonic() + SECONDS_TO_RUN
    while not path.is_file() or not path.read_text():
        assert time.monotonic() < deadline, f"no run wrote {path}"
        time.sleep(0.5)
    return path.read_text()


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; its parent may not have noticed the end yet."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def test_a_scheduled_run_happens_within_two_minutes_and_nothing_is_left(
    started: Any, home: Path, run: Run
) -> None:
    assert started["state"] == "started"
    assert started["deployments"] == ["touch/often"]
    # The default store of a deployment becomes the one of the server.
    assert wait_for_file(home / "touched") == str(home / "store")
    again = run("up", "--port", free_port(), "--store", home / "store", "--json", cwd=home)
    assert again.code == 0, again.errors
    assert again.json["state"] == "running"
    assert again.json["processes"] == started["processes"]
    require_good_status(run("status", "--store", home / "store", "--json"))
    family = [psutil.Process(pid) for pid in started["processes"].values()]
    family += [child for process in list(family) for child in process.children(recursive=True)]
    psutil.Process(started["processes"]["worker"]).kill()
    status = run("status", "--store", home / "store", "--json")
    assert status.code == 1
    assert "the worker that was started here has ended" in status.json["needs_attention"][0]
    settings = ServerApi(started["api"]).get("admin/settings")
    assert set(settings["server"]["services"]["db_vacuum"]["enabled"]) == {"events", "flow_runs"}
    assert settings["server"]["ui"]["api_url"] == started["api"]
    assert settings["server"]["analytics_enabled"] is False
    bystander = psutil.Process(os.getpid())
    assert run("down", "--store", home / "store", "--json", cwd=home).json == {"ended": ["server"]}
    assert [process for process in family if runs(process)] == []
    assert carrying(FOLDER_VARIABLE, str(home / "store/server")) == []
    assert runs(bystander)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", started["port"])) != 0
    assert run("down", "--store", home / "store", "--json", cwd=home).json == {"ended": []}


def require_good_status(status: CommandResult) -> None:
    """Check the state of a server whose scheduled runs succeed."""
    assert status.code == 0, status.errors + status.output
    found = status.json
    assert set(found) == KEYS
    (deployment,) = found["deployments"]
    assert deployment["last_run"]["state"] == "Completed"
    assert deployment["last_success"] is not None
    assert found["next"]["deployment"] == "touch/often"
    assert found["server"]["alive"]
    assert [worker["alive"] for worker in found["worker"]] == [True]
    assert found["needs_attention"] == []
    assert found["disk"]["kinds"]["server"] > 0


def refusal(result: CommandResult) -> str:
    assert result.code == 2, result.errors
    (line,) = result.errors.strip().splitlines()
    return line


def test_a_server_off_loopback_needs_a_password(run: Run, tmp_path: Path) -> None:
    result = run("up", "--host", "0.0.0.0", "--store", tmp_path, cwd=tmp_path)
    assert "--host 0.0.0.0 without PREFECT_SERVER_API_AUTH_STRING" in refusal(result)
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_and_an_unknown_database_are_refused(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port}" in refusal(run("up", "--port", port, "--store", tmp_path, cwd=tmp_path))
    line = refusal(run("up", "--database", "mysql://a:secret@b/c", "--store", tmp_path, cwd=tmp_path))
    assert "mysql" in line
    assert "secret" not in line


def test_a_record_whose_process_ids_others_have_now_ends_nobody(run: Run, tmp_path: Path) -> None:
    """As after a reboot: the IDs are in use again, by programs that pixelmill did not start."""
    mark = {"pid": os.getpid(), "started": "another boot:12345"}
    record = {
        "api_url": "http://127.0.0.1:9/api",
        "host": "127.0.0.1",
        "port": 9,
        "database": "SQLite",
        "home": str(tmp_path),
        "processes": {"server": mark, "worker": mark},
    }
    (tmp_path / "server").mkdir()
    (tmp_path / "server/record.json").write_text(json.dumps(record))
    assert run("down", "--store", tmp_path, "--json").json == {"ended": []}
    assert not (tmp_path / "server/record.json").exists()


def test_the_deployment_files_are_written_once_and_name_flows_by_their_module(
    run: Run, tmp_path: Path
) -> None:
    written = run("deploy", "--write", tmp_path / "deploy", "--json").json["written"]
    assert {"prefect.yaml", "constraints.txt"} <= {Path(path).name for path in written}
    content = yaml.safe_load((tmp_path / "deploy/prefect.yaml").read_text())
    assert {each["entrypoint"].rpartition(".")[0] for each in content["deployments"]} >= {
        "pixelmill.flows.retraining"
    }
    (tmp_path / "deploy/prefect.yaml").write_text("mine")
    assert "README.md, which exists" in refusal(run("deploy", "--write", tmp_path / "deploy"))
    assert (tmp_path / "deploy/prefect.yaml").read_text() == "mine"


def test_deploying_without_a_server_or_a_valid_file_is_refused(run: Run, tmp_path: Path) -> None:
    assert "PREFECT_API_URL, which is not set" in refusal(run("deploy", "--store", tmp_path, cwd=tmp_path))
    (tmp_path / "prefect.yaml").write_text("deployments: 3")
    environment = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    assert "prefect.yaml (it has no list" in refusal(run("deploy", cwd=tmp_path, env=environment))
