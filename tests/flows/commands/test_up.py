"""`pixelmill up`, `deploy` and `down`: one server and worker on this machine, and nothing left of them."""

import json
import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from pixelmill.flows.detached_processes import carrying
from pixelmill.flows.server_api import ServerApi
from pixelmill.flows.server_settings import FOLDER_VARIABLE
from tests.conftest import CommandResult, Run
from tests.flows.conftest import free_port, postgresql
from tests.test_docs import blocks, commands_of

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


def write_project(home: Path) -> None:
    """Write a project with a flow that runs every ten seconds."""
    (home / "touching.py").write_text(FLOW)
    step = {"pixelmill.flows.deployment_steps.enter_project": {"variable": "PIXELMILL_HOME"}}
    content = {"name": "test", "prefect-version": "3.8.8", "pull": [step], "deployments": [DEPLOYMENT]}
    (home / "prefect.yaml").write_text(yaml.safe_dump(content))


def wait_for_file(path: Path) -> str:
    deadline = time.monotonic() + SECONDS_TO_RUN
    while not path.is_file() or not path.read_text():
        assert time.monotonic() < deadline, f"no run wrote {path}"
        time.sleep(0.5)
    return path.read_text()


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; its parent may not have noticed the end yet."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def check_a_scheduled_run(run: Run, home: Path) -> None:
    """Start everything in a folder, wait for a run by schedule, end everything, and look for what is left.

    The first and the other commands are the lines of `docs/deployment.md`.
    """
    write_project(home)
    port, store = free_port(), ("--store", home / "store", "--json")
    documented = ["up", "status", "prune", "down"]
    lines = [words[1:] for words in commands_of(blocks("docs/deployment.md", "bash")[0])]
    assert lines == [[word] for word in documented]
    variables = {"PREFECT_SERVER_API_PORT": str(port), "PIXELMILL_STORE": str(home / "store")}
    try:
        started = run("up", "--json", cwd=home, env=variables)
        assert started.code == 0, started.errors
        assert started.json["state"] == "started"
        assert started.json["deployments"] == ["touch/often"]
        # The default store of a deployment becomes the one of the server.
        assert wait_for_file(home / "touched") == str(home / "store")
        again = run("up", "--port", free_port(), *store, cwd=home)
        assert (again.code, again.json["state"]) == (0, "running"), again.errors
        processes = started.json["processes"]
        assert again.json["processes"] == processes
        require_good_status(run("status", *store))
        for line in lines[:-1]:
            done = run(*line, cwd=home, env=variables)
            assert (done.code, bool(done.output)) == (0, True), done.errors + done.output
        require_settings(started.json["api"])
        family = [psutil.Process(pid) for pid in processes.values()]
        family += [child for process in list(family) for child in process.children(recursive=True)]
        psutil.Process(processes["worker"]).kill()
        status = run("status", *store)
        assert status.code == 1
        assert "the worker that was started here has ended" in status.json["needs_attention"][0]
        # Its runs have survived it, and are ended, too.
        assert run(*lines[-1], cwd=home, env=variables).output.startswith("Ended: server.")
        assert [process for process in family if runs(process)] == []
        assert carrying(FOLDER_VARIABLE, str(home / "store/server")) == []
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        assert run("down", *store).json == {"ended": []}
    finally:
        run("down", *store)


def require_settings(api: str) -> None:
    """Check what the server does not do by default: it removes old runs, and reports to nobody."""
    settings = ServerApi(api).get("admin/settings")["server"]
    assert set(settings["services"]["db_vacuum"]["enabled"]) == {"events", "flow_runs"}
    assert settings["ui"]["api_url"] == api
    assert settings["analytics_enabled"] is False


def test_a_scheduled_run_happens_within_two_minutes_and_nothing_is_left(run: Run, tmp_path: Path) -> None:
    bystander = psutil.Process(os.getpid())
    check_a_scheduled_run(run, tmp_path)
    assert runs(bystander)


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


@pytest.mark.slow
def test_a_server_off_loopback_refuses_requests_without_its_password(run: Run, tmp_path: Path) -> None:
    write_project(tmp_path)
    port = free_port()
    secret = {"PREFECT_SERVER_API_AUTH_STRING": "admin:a-planted-secret"}
    store = ("--store", tmp_path / "store")
    try:
        started = run("up", "--host", "0.0.0.0", "--port", port, *store, "--json", cwd=tmp_path, env=secret)
        assert started.code == 0, started.errors
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/admin/settings", timeout=30)
        wait_for_file(tmp_path / "touched")
        assert run("status", *store, env=secret).code == 0
    finally:
        run("down", *store, env=secret)
    # Prefect's database holds no parameters, logs or states with it, and neither does anything else.
    holding = [
        path for path in tmp_path.rglob("*") if path.is_file() and b"a-planted-secret" in path.read_bytes()
    ]
    assert holding == []


@pytest.mark.slow
def test_up_on_postgresql(run: Run, tmp_path: Path) -> None:
    write_project(tmp_path)
    store = ("--store", tmp_path / "store", "--json")
    with postgresql() as url:
        try:
            # The address as a user writes it, and with a password, which nothing shows.
            address = url.replace("+asyncpg", "").replace("prefect@", "prefect:a-planted-secret@")
            started = run("up", "--port", free_port(), "--database", address, *store, cwd=tmp_path)
            assert started.code == 0, started.errors
            assert started.json["database"].startswith("PostgreSQL at 127.0.0.1:")
            wait_for_file(tmp_path / "touched")
            assert run("status", *store).code == 0
        finally:
            run("down", *store)
    shown = started.output + (tmp_path / "store/server/server.log").read_text()
    assert "a-planted-secret" not in shown
    assert not (tmp_path / "store/server/prefect.db").exists()
