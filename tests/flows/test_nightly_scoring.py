"""The nightly scoring flow on a real Prefect server: its nights, limits and events."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.predictions import read_predictions
from tests.conftest import write_images
from tests.deployment.machine import wait_for
from tests.flows.conftest import PrefectServer, ask

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect-server")]
SCRIPT = """
import sys
from pixelmill.flows.nightly_scoring import score_nightly
from pixelmill.pipeline.errors import GateRefused

if __name__ == "__main__":
    store, images, empty, root = sys.argv[1:]
    settings = {"store": store, "root": root, "workers": 1, "model": "digits@champion"}
    score_nightly(images=images, night="2026-11-25", max_drift=1.0, **settings)
    score_nightly(images=empty, night="2026-11-26", **settings)
    try:
        score_nightly(images=images, night="2026-11-27", max_drift=0.0, **settings)
    except GateRefused as refusal:
        print(refusal.received)
"""


def events_of(server: PrefectServer, folder: Path) -> list[Any]:
    """The events that tell of drift in a table below a folder."""
    told: Any = ask(server, "events/filter", filter={"event": {"name": ["pixelmill.drift.exceeded"]}})
    return [one for one in told["events"] if one["payload"].get("table", "").startswith(str(folder))]


def test_a_night_an_empty_folder_and_drift(
    server: PrefectServer, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 210)
    (tmp_path / "empty").mkdir()
    (tmp_path / "score_nights.py").write_text(SCRIPT)
    places = [trained_store, tmp_path / "images", tmp_path / "empty", tmp_path / "scored"]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "score_nights.py"), *map(str, places)],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("images that differ from the model's test images: ")
    nights = sorted(path.name for path in (tmp_path / "scored").iterdir())
    assert nights == ["run_date=2026-11-25", "run_date=2026-11-27"]
    assert len(read_predictions(tmp_path / "scored/run_date=2026-11-27")) == 210
    runs = ask(server, "flow_runs/filter", flows={"name": {"any_": ["score-nightly"]}}, sort="START_TIME_ASC")
    ends = [(run["state"]["type"], run["state"]["name"]) for run in runs if run["start_time"]]
    assert ends == [("COMPLETED", "Completed"), ("COMPLETED", "Completed"), ("FAILED", "Refused")]
    assert runs[1]["state"]["message"] == f"nothing to do: {tmp_path / 'empty'} has no images"
    # The server writes events to its database some seconds after it received them.
    (event,) = wait_for("the event", lambda: events_of(server, tmp_path), 60)
    assert event["resource"]["prefect.resource.id"] == "pixelmill.model.digits"
    assert event["payload"]["drift"]
