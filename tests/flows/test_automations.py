"""Alerts and triggers on a real Prefect server, with a webhook on loopback."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from pixelmill.flows.automations import ALERTS_BLOCK, apply_automations
from pixelmill.flows.events import ModelEvent, tell
from pixelmill.flows.run_requests import one_run_at_a_time
from pixelmill.pipeline.run_lock import RunLock, RunRequest
from tests.deployment.machine import Machine, wait_for
from tests.flows.conftest import PrefectServer

pytestmark = [pytest.mark.xdist_group("prefect-server"), pytest.mark.timeout(900)]
TEN_SECONDS = 10 / 3600


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server on loopback that keeps what is posted to it."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/", received
        http.shutdown()


@pytest.fixture
def machine(server: PrefectServer, tmp_path: Path) -> Iterator[Machine]:
    """The server of the session, used by this process."""
    with temporary_settings({PREFECT_API_URL: f"{server.url}/api", PREFECT_HOME: tmp_path}):
        yield Machine(tmp_path, port=int(server.url.rpartition(":")[2]))


def end_run(machine: Machine, deployment: str, kind: str, name: str, message: str) -> None:
    """A run of a deployment that ends in a state."""
    run = machine.begin(deployment)
    for state in (
        {"type": "RUNNING", "name": "Running"},
        {"type": kind, "name": name, "message": message},
    ):
        result = machine.ask("POST", f"flow_runs/{run}/set_state", {"state": state, "force": True})
        assert result["status"] == "ACCEPT"


def named(automations: list[Any], word: str) -> Any:
    (found,) = [automation for automation in automations if word in automation["name"]]
    return found


def test_refusals_failures_crashes_and_silence_are_told_differently(machine: Machine, tmp_path: Path) -> None:
    deployment = machine.deploy("retrain", "x.py:retrain", tmp_path, recipe="digits", overrides=["name=told"])
    schedule = [{"schedule": {"cron": "0 2 * * *"}, "active": True}]
    machine.ask("POST", f"deployments/{deployment}/schedules", schedule)
    # Without a block for alerts, only what starts a retraining is there, and the missing block is named.
    lines = apply_automations()
    assert lines[0].startswith(f"no alerts: create a notification block called {ALERTS_BLOCK}")
    assert not any("a run failed" in line for line in lines)
    with webhook() as (url, received):
        block: Any = CustomWebhookNotificationBlock(
            name="tests", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
        )
        block.save(ALERTS_BLOCK, overwrite=True)
        try:
            lines = apply_automations(hours_of_silence=TEN_SECONDS)
            assert any(line == "created 'pixelmill: a run crashed'" for line in lines)
            assert all(line.startswith(("updated", "no trigger")) for line in apply_automations(TEN_SECONDS))
            end_run(machine, deployment, "FAILED", "Refused", "told@2 is worse than told@1")
            end_run(machine, deployment, "FAILED", "Failed", "no source provided the data")
            end_run(machine, deployment, "CRASHED", "Crashed", "its process ended")
            end_run(machine, deployment, "COMPLETED", "Skipped", "another run is at work")
            wanted = {
                "pixelmill: a gate refused a result": "told@2 is worse than told@1",
                "pixelmill: a run failed": "no source provided the data",
                "pixelmill: a run crashed": "its process ended",
                f"pixelmill: no success of retrain/retrain for {TEN_SECONDS:g} h": "look at its last runs",
            }
            wait_for("the alerts", lambda: {one["subject"] for one in received} >= set(wanted))
        finally:
            found = machine.ask("POST", "block_documents/filter", {})
            for document in found:
                if document["name"] == ALERTS_BLOCK:
                    machine.ask("DELETE", f"block_documents/{document['id']}")
            lines = apply_automations()
    assert "removed 'pixelmill: a run crashed'" in lines
    told = {one["subject"]: one["body"] for one in received}
    for subject, text in wanted.items():
        assert text in told[subject]
    # One alert for each run that needs a person; the skipped one needs nobody.
    runs = [one for one in received if "no success" not in one["subject"]]
    assert sorted(one["subject"] for one in runs) == sorted(list(wanted)[:3])
    machine.ask("DELETE", f"deployments/{deployment}")


def test_triggers_during_a_run_start_one_run_afterwards(machine: Machine, tmp_path: Path) -> None:
    deployment = machine.deploy("merged", "x.py:merged", tmp_path)
    lock = RunLock(tmp_path, "pets")
    turned_away = [RunRequest(f"run {number}", "trigger", deployment) for number in range(3)]
    with one_run_at_a_time(lock):
        lock.put_back((*turned_away, RunRequest("by hand")))
    runs = machine.ask("POST", "flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})
    assert len(runs) == 1
    assert lock.take_requests() == ()
    # Without a server, they are kept for the next run.
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), one_run_at_a_time(lock):
        lock.put_back(tuple(turned_away))
    assert lock.take_requests() == tuple(turned_away)
    machine.ask("DELETE", f"deployments/{deployment}")


def test_drift_starts_a_retraining_and_a_switched_off_automation_stays_off(
    machine: Machine, tmp_path: Path
) -> None:
    overrides = ["name=drifting"]
    deployment = machine.deploy("retrain", "x.py:retrain", tmp_path, recipe="digits", overrides=overrides)
    wrong = machine.deploy("watch", "x.py:watch", tmp_path)
    apply_automations()

    def runs() -> list[Any]:
        found = machine.ask("POST", "flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})
        return [run for run in found if run["created_by"] and run["created_by"]["type"] == "AUTOMATION"]

    tell(ModelEvent.DRIFT, "another")
    tell(ModelEvent.DRIFT, "drifting", drift=0.4)
    wait_for("the retraining", runs)
    assert len(runs()) == 1
    automation = named(machine.ask("POST", "automations/filter", {}), "start retrain/retrain")
    machine.ask("PATCH", f"automations/{automation['id']}", {"enabled": False})
    apply_automations()
    assert not named(machine.ask("POST", "automations/filter", {}), "start retrain/retrain")["enabled"]
    for each in (deployment, wrong):
        machine.ask("DELETE", f"deployments/{each}")
    apply_automations()
