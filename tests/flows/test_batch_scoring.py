"""The scoring flow on a real Prefect server: the stages, the artifact, the gate, the same table."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import write_images
from tests.flows.conftest import PrefectServer, ask, newest_run

pytestmark = pytest.mark.xdist_group("prefect-server-2")
SCRIPT = """
import sys
from pixelmill.flows.batch_scoring import score

if __name__ == "__main__":
    store, images, output = sys.argv[1:]
    print(score("digits@champion", images, output, store=store, workers=2)["listed"])
"""


def run_flow(
    server: PrefectServer, folder: Path, store: Path, images: Path, output: Path
) -> subprocess.CompletedProcess[str]:
    script = folder / "score_once.py"
    script.write_text(SCRIPT)
    command: list[str | Path] = [sys.executable, script, store, images, output]
    environment = {**os.environ, **server.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_flow_plans_scores_and_commits(
    server: PrefectServer, trained_store: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    write_images(images, 1500)
    done = run_flow(server, tmp_path, trained_store, images, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1500"
    run = newest_run(server, "score")
    assert run["name"] == f"score {images} with digits@champion"
    assert run["state"]["type"] == "COMPLETED"
    tasks = ask(server, "task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert {task["name"].rsplit("-", 1)[0] for task in tasks} == {"plan", "score", "commit"}
    artifacts = ask(server, "artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    shown = {artifact["key"]: artifact for artifact in artifacts}
    assert {"scoring-counts", "scoring-drift"} <= set(shown)
    assert shown["scoring-drift"]["description"].startswith("drifted: ")
    # The same functions without Prefect give the same table.
    table = score_folder(ScoringRequest(bundle=bundle, images=images, output=tmp_path / "bare"))
    flow, bare = read_predictions(tmp_path / "out"), read_predictions(table.folder)
    data = [name for name in bare.columns if name not in ("run_id", "scored_at")]
    pd.testing.assert_frame_equal(flow[data], bare[data])
