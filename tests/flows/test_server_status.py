"""What a real Prefect server says about its runs, what of it needs a person, and removing old runs."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from pixelmill.flows.attention import deployments_in_need, workers_in_need
from pixelmill.flows.old_runs import find_old_runs, remove_old_runs
from pixelmill.flows.server_api import ServerApi, ServerUnavailableError
from pixelmill.flows.server_status import LONGEST_IN_STATE, DeploymentStatus, read_server
from tests.flows.conftest import PrefectServer, free_port

pytestmark = pytest.mark.xdist_group("prefect-server")


@pytest.fixture(scope="module")
def api(server: PrefectServer) -> ServerApi:
    return ServerApi(f"{server.url}/api", seconds=60)


@pytest.fixture
def deployment(api: ServerApi) -> Any:
    """A new deployment of a new flow."""
    flow = api.post("flows/", name=f"flow-{uuid4().hex[:8]}")
    return api.post("deployments/", name="nightly", flow_id=flow["id"])


def begin(api: ServerApi, deployment: Any, kind: str, **facts: object) -> str:
    """Create a run of a deployment in a state; returns its ID."""
    state = {"type": kind, "message": "because", **facts}
    run = api.post(
        "flow_runs/", flow_id=deployment["flow_id"], deployment_id=deployment["id"], state={"type": "PENDING"}
    )
    api.post(f"flow_runs/{run['id']}/set_state", state=state, force=True)
    return str(run["id"])


def status_of(api: ServerApi, deployment: Any) -> DeploymentStatus:
    flow = api.get(f"flows/{deployment['flow_id']}")["name"]
    (found,) = [each for each in read_server(api, False).deployments if each.name == f"{flow}/nightly"]
    return found


def needs(api: ServerApi, deployment: Any, is_this_host: bool = False) -> list[str]:
    """The lines about a deployment and its runs."""
    status, name = read_server(api, is_this_host), status_of(api, deployment).name
    runs = [run.name for run in status.runs if run.deployment == name]
    return [
        line
        for line in deployments_in_need(status)
        if line.startswith(f"{name}:") or any(repr(run) in line for run in runs)
    ]


def test_the_last_success_and_the_last_run_are_known(api: ServerApi, deployment: Any) -> None:
    assert status_of(api, deployment).last_run is None
    begin(api, deployment, "COMPLETED")
    done = status_of(api, deployment)
    assert done.last_success is not None
    assert needs(api, deployment) == []
    begin(api, deployment, "FAILED", name="Refused")
    failed = status_of(api, deployment)
    assert failed.last_success == done.last_success
    assert failed.last_run is not None
    assert (failed.last_run.state, failed.last_run.state_type) == ("Refused", "FAILED")
    (line,) = needs(api, deployment)
    assert "its last run ended Refused (because). See http://127.0.0.1" in line


def test_a_run_without_a_process_and_a_run_that_never_starts_are_stuck(
    api: ServerApi, deployment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(api, deployment, "RUNNING")
    assert needs(api, deployment, is_this_host=True) == []
    # No process has an ID above the largest that Linux allows.
    api._request("PATCH", f"flow_runs/{run}", {"infrastructure_pid": str(2**22 + 1)})
    (line,) = needs(api, deployment, is_this_host=True)
    assert "its process is gone" in line
    assert needs(api, deployment, is_this_host=False) == []
    begin(api, deployment, "PENDING")
    assert len(needs(api, deployment, is_this_host=True)) == 1
    monkeypatch.setitem(LONGEST_IN_STATE, "PENDING", timedelta(0))
    assert sorted("for more than 0 minutes" in line for line in needs(api, deployment, True)) == [False, True]


def test_a_pool_without_a_worker_needs_a_person(api: ServerApi) -> None:
    pool = f"pool-{uuid4().hex[:8]}"
    api.post("work_pools/", name=pool, type="process")
    lines = list(workers_in_need(read_server(api, False).workers))
    assert any(line.startswith(f"no worker of the pool {pool} is alive") for line in lines)
    api.post(f"work_pools/{pool}/workers/heartbeat", name="a")
    assert not any(pool in line for line in workers_in_need(read_server(api, False).workers))


def test_old_runs_go_except_the_newest_and_the_last_success(api: ServerApi, deployment: Any) -> None:
    runs = [
        begin(api, deployment, kind) for kind in ("COMPLETED", "FAILED", "COMPLETED", "FAILED", "CRASHED")
    ]
    running = begin(api, deployment, "RUNNING")
    assert {run.id for run in find_old_runs(api, 1, timedelta(days=1))}.isdisjoint(runs)
    found = [run for run in find_old_runs(api, 1, timedelta(0)) if run.id in runs]
    assert [run.id for run in found] == [runs[0], runs[1], runs[3]]
    remove_old_runs(api, found)
    left = {
        run["id"] for run in api.every("flow_runs/filter", deployments={"id": {"any_": [deployment["id"]]}})
    }
    assert left == {runs[2], runs[4], running}


def test_a_server_that_does_not_respond_is_named() -> None:
    api = ServerApi(f"http://127.0.0.1:{free_port()}/api", seconds=5)
    assert not api.is_healthy()
    with pytest.raises(
        ServerUnavailableError, match=r"^the Prefect server at http.*; expected .*pixelmill up"
    ):
        read_server(api, False)
