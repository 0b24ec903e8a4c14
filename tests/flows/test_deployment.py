"""The built-in deployments: their parameters match the flows, and a real server schedules them."""

import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.recipes import load_recipe
from tests.flows.conftest import PrefectServer, ask, postgresql, prefect_server

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_SCHEDULE = 120

pytestmark = pytest.mark.xdist_group("prefect-server-2")


@pytest.fixture(scope="module")
def deployments() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "deploy/prefect.yaml").read_text())
    return {deployment["name"]: deployment for deployment in content["deployments"]}


def test_the_parameters_match_the_flows(deployments: dict[str, Any]) -> None:
    from prefect.flows import load_flow_from_entrypoint

    for deployment in deployments.values():
        flow: Any = load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))
        validated = flow.validate_parameters(deployment["parameters"])
        assert set(validated) <= set(flow.parameters.properties)


def test_the_nightly_recipe_is_the_built_in_one(deployments: dict[str, Any]) -> None:
    parameters = deployments["nightly"]["parameters"]
    assert load_recipe(parameters["recipe"], parameters["overrides"]) == load_recipe("mnist")


def pull_step() -> Callable[[], dict[str, str]]:
    """The pull step in `prefect.yaml`, which a worker runs first."""
    (step,) = yaml.safe_load((ROOT / "deploy/prefect.yaml").read_text())["pull"]
    ((name, inputs),) = step.items()
    function: Callable[..., dict[str, str]] = pkgutil.resolve_name(name)
    return partial(function, **inputs)


@pytest.mark.parametrize("folder", [None, "", "/no/such/folder"])
def test_a_missing_project_folder_is_reported(monkeypatch: pytest.MonkeyPatch, folder: str | None) -> None:
    monkeypatch.delenv("PIXELMILL_HOME", raising=False)
    if folder is not None:
        monkeypatch.setenv("PIXELMILL_HOME", folder)
    with pytest.raises(RequestError, match=r"^PIXELMILL_HOME.*; expected .* export PIXELMILL_HOME="):
        pull_step()()


def test_the_project_folder_is_entered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PIXELMILL_HOME", str(tmp_path))
    assert pull_step()() == {"directory": str(tmp_path)}
    assert Path.cwd() == tmp_path


def test_a_real_server_creates_scheduled_runs(server: PrefectServer) -> None:
    deploy_and_wait_for_a_scheduled_run(server)


def test_a_server_on_postgresql_creates_scheduled_runs(tmp_path: Path) -> None:
    with (
        postgresql() as url,
        prefect_server(tmp_path, PREFECT_API_DATABASE_CONNECTION_URL=url) as server,
    ):
        deploy_and_wait_for_a_scheduled_run(server)


def deploy_and_wait_for_a_scheduled_run(server: PrefectServer) -> None:
    environment = {**os.environ, **server.environment, "PIXELMILL_HOME": str(ROOT)}
    prefect = [sys.executable, "-m", "prefect"]
    for command in (
        ["work-pool", "create", "pixelmill", "--type", "process"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", "deploy/prefect.yaml"],
    ):
        done = subprocess.run(
            [*prefect, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + SECONDS_TO_SCHEDULE
    scheduled: list[Any] = []
    # With an unsupported SQLAlchemy, Prefect's scheduler fails silently and creates no runs.
    while not scheduled and time.monotonic() < deadline:
        scheduled = ask(
            server,
            "flow_runs/filter",
            flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}},
            deployments={"name": {"any_": ["nightly"]}},
        )
        time.sleep(1)
    assert scheduled
    assert all(run["expected_start_time"][11:16] == "02:00" for run in scheduled)
