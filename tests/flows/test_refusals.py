"""A refusal by a gate ends a flow run in the state `Refused`: one line in Prefect's UI, exit code 3."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.predictions import read_predictions
from tests.conftest import on_small_disk, write_images
from tests.flows.conftest import PrefectServer, ask, newest_run

pytestmark = pytest.mark.xdist_group("prefect-server-2")
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
        sys.exit(refusal.exit_code)
"""


def logged(server: PrefectServer, run: Any) -> list[str]:
    """The log of a run in Prefect's UI, including its tasks."""
    logs = ask(server, "logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})
    return [log["message"] for log in logs]


def states(server: PrefectServer, run: Any) -> dict[str, tuple[str, str]]:
    """The type and the name of the state of each task."""
    tasks = ask(server, "task_runs/filter", task_runs={}, flow_runs={"id": {"any_": [run["id"]]}})
    return {task["name"].rsplit("-", 1)[0]: (task["state"]["type"], task["state"]["name"]) for task in tasks}


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
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("1 of 6 images failed")
    assert "Traceback" not in done.stderr
    assert len(read_predictions(tmp_path / "out")) == 6
    flow_run = newest_run(server, "score")
    assert (flow_run["state"]["type"], flow_run["state"]["name"]) == ("FAILED", "Refused")
    assert flow_run["state"]["message"].startswith("1 of 6 images failed (not_an_image 1); expected")
    assert not [line for line in logged(server, flow_run) if "Traceback" in line]


def test_a_full_disk_is_one_line_in_the_log_and_the_state(
    server: PrefectServer, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 5)
    (tmp_path / "score_once.py").write_text(SCORING)
    places = [str(place) for place in (trained_store, tmp_path / "images", tmp_path / "disk/out")]
    done = on_small_disk(
        [sys.executable, str(tmp_path / "score_once.py"), *places],
        tmp_path / "disk",
        "4k",
        {**os.environ, **server.environment},
    )
    assert done.returncode == 1, done.stderr
    flow_run = newest_run(server, "score")
    assert (flow_run["state"]["type"], flow_run["state"]["name"]) == ("FAILED", "Failed")
    assert flow_run["state"]["message"].startswith("No space left on device")
    assert flow_run["state"]["message"].endswith("free some space and run the same again.")
    assert not [line for line in logged(server, flow_run) if "Traceback" in line]
