"""A refusal by a gate ends a flow run in the state `Refused`: one line in Prefect's UI, exit code 3."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.registry import show_model
from tests.conftest import Run, write_images
from tests.flows.conftest import PrefectServer, ask, newest_run

pytestmark = pytest.mark.xdist_group("prefect-server")
SCORING = """
import sys
from pixelmill.flows.batch_scoring import score
from pixelmill.pipeline.errors import GateRefused

if __name__ == "__main__":
    store, images, output = sys.argv[1:]
    try:
        score("digits@champion", images, output, store=store, workers=1)
    except GateRefused as refusal:
        print(refusal.received)
"""


def logged(server: PrefectServer, run: Any) -> list[str]:
    """The log of a run in Prefect's UI, including its tasks."""
    logs = ask(server, "logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})
    return [log["message"] for log in logs]


def states(server: PrefectServer, run: Any) -> dict[str, tuple[str, str]]:
    """The type and the name of the state of each task."""
    tasks = ask(server, "task_runs/filter", task_runs={}, flow_runs={"id": {"any_": [run["id"]]}})
    return {task["name"].rsplit("-", 1)[0]: (task["state"]["type"], task["state"]["name"]) for task in tasks}


def test_a_refused_promotion_is_one_line(server: PrefectServer, run: Run, tmp_path: Path) -> None:
    settings = ("name=refused", "training.epochs=1", "promotion.min_accuracy=1")
    overrides = [word for setting in settings for word in ("--set", setting)]
    result = run("retrain", "digits", "--store", tmp_path, "--quiet", *overrides, env=server.environment)
    assert result.code == 3, result.errors
    assert result.last_error.startswith("pixelmill: refused@1 has ")
    assert result.errors.count("\n") == 1
    assert show_model(tmp_path, "refused@1").aliases == ()
    flow_run = newest_run(server, "retrain")
    assert (flow_run["state"]["type"], flow_run["state"]["name"]) == ("FAILED", "Refused")
    assert flow_run["state"]["message"] == result.last_error.removeprefix("pixelmill: ")
    ended = states(server, flow_run)
    assert ended.pop("promote") == ("FAILED", "Refused")
    assert set(ended.values()) == {("COMPLETED", "Completed")}
    log = logged(server, flow_run)
    assert any("test accuracy" in line for line in log)
    assert not [line for line in log if "Traceback" in line]


def test_a_refused_failure_rate_is_one_line(
    server: PrefectServer, trained_store: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    write_images(images, 5)
    (images / "bad.png").write_bytes(b"bad")
    script = tmp_path / "score_once.py"
    script.write_text(SCORING)
    done = subprocess.run(
        [sys.executable, script, trained_store, images, tmp_path / "out"],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("1 of 6 images failed")
    assert "Traceback" not in done.stderr
    assert len(read_predictions(tmp_path / "out")) == 6
    flow_run = newest_run(server, "score")
    assert (flow_run["state"]["type"], flow_run["state"]["name"]) == ("FAILED", "Refused")
    assert flow_run["state"]["message"].startswith("1 of 6 images failed (not_an_image 1); expected")
    assert not [line for line in logged(server, flow_run) if "Traceback" in line]
