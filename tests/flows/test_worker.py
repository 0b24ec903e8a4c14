"""Deployed flows on a worker: the hosts it contacts, and how its runs end in Prefect's UI."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.predictions import read_predictions
from tests.conftest import write_images
from tests.flows.conftest import PrefectServer, ask, free_port, prefect_server
from tests.tracing import Traced, run_traced

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/deployment.md"
PREFECT = [sys.executable, "-m", "prefect"]
SECONDS_IN_WHICH_A_COLLECTOR_IS_ASKED = 60

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect-server")]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server with only the built-in deployments."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as server:
        environment = {**os.environ, **server.environment}
        for command in (
            ["work-pool", "create", "pixelmill", "--type", "process"],
            ["--no-prompt", "deploy", "--all", "--prefect-file", "deploy/prefect.yaml"],
        ):
            assert f".venv/bin/prefect {' '.join(command)}\n" in PAGE.read_text()
            subprocess.run([*PREFECT, *command], cwd=ROOT, env=environment, check=True, capture_output=True)
        yield server


def environment_of_the_page() -> dict[str, str]:
    """The variables that `docs/deployment.md` exports, except paths and addresses."""
    text = PAGE.read_text()
    pairs = [pair for line in re.findall(r"^export (.*)$", text, re.MULTILINE) for pair in line.split()]
    exported = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {
        name: value for name, value in exported.items() if name not in ("PIXELMILL_HOME", "PREFECT_API_URL")
    }


def work_once(
    server: PrefectServer, folder: Path, project: str | None, **parameters: str
) -> tuple[Any, Traced]:
    """Run the `score` deployment on a traced worker; returns the flow run and the trace."""
    switches = environment_of_the_page()
    kept = {name: value for name, value in os.environ.items() if name not in switches and name != "CI"}
    environment = {
        **kept,
        **server.environment,
        **switches,
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home/cache"),
    }
    environment.pop("PIXELMILL_HOME", None)
    if project is not None:
        environment["PIXELMILL_HOME"] = project
    (folder / "home").mkdir()
    given = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
    begin = [*PREFECT, "deployment", "run", "score/score", *given]
    subprocess.run(begin, env=environment, check=True, capture_output=True)
    worker = [*PREFECT, "worker", "start", "--pool", "pixelmill", "--run-once"]
    traced = run_traced(worker, folder / "trace", environment)
    runs = ask(
        server, "flow_runs/filter", sort="EXPECTED_START_TIME_DESC", deployments={"name": {"any_": ["score"]}}
    )
    return runs[0], traced


def log_of(server: PrefectServer, run: Any) -> str:
    logs = ask(server, "logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})
    return "\n".join(log["message"] for log in logs)


def test_a_worker_and_its_flow_contact_no_other_host(
    own_server: PrefectServer, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 20)
    places = {
        "images": str(tmp_path / "images"),
        "output": str(tmp_path / "out"),
        "store": str(trained_store),
    }
    run, traced = work_once(own_server, tmp_path, str(ROOT), model="digits@champion", **places)
    assert run["state"]["name"] == "Completed", log_of(own_server, run) + traced.errors
    assert len(read_predictions(tmp_path / "out")) == 20
    assert traced.outside == []
    assert not list((tmp_path / "home").rglob("*onnxruntime*"))


def test_a_refusal_by_a_gate_does_not_crash_the_worker(
    own_server: PrefectServer, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 5)
    (tmp_path / "images/bad.png").write_bytes(b"bad")
    places = {
        "images": str(tmp_path / "images"),
        "output": str(tmp_path / "out"),
        "store": str(trained_store),
    }
    run, _ = work_once(own_server, tmp_path, str(ROOT), model="digits@champion", **places)
    assert (run["state"]["type"], run["state"]["name"]) == ("FAILED", "Refused")
    assert run["state"]["message"].startswith("1 of 6 images failed (not_an_image 1)")
    assert "Traceback" not in log_of(own_server, run)


def test_a_worker_without_the_project_folder_reports_it(own_server: PrefectServer, tmp_path: Path) -> None:
    run, traced = work_once(own_server, tmp_path, None, model="digits@champion")
    assert run["state"]["type"] in ("FAILED", "CRASHED")
    assert "PIXELMILL_HOME is not set; expected the project's folder" in log_of(own_server, run)
    assert traced.outside == []


def test_the_documented_server_contacts_no_other_host(tmp_path: Path) -> None:
    environment = {**os.environ, **environment_of_the_page(), "PREFECT_HOME": str(tmp_path / "prefect")}
    environment["HOME"] = str(tmp_path)
    seconds = str(SECONDS_IN_WHICH_A_COLLECTOR_IS_ASKED)
    serve = [
        "timeout",
        seconds,
        *PREFECT,
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(free_port()),
    ]
    traced = run_traced(serve, tmp_path / "trace", environment)
    assert "Check out the dashboard" in traced.output + traced.errors
    assert traced.outside == []
