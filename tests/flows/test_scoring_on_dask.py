"""The scoring flow on a real Prefect server and a real Dask cluster; one of the workers is killed midway."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.storage import local_path
from tests.clusters import Cluster, running_cluster
from tests.conftest import write_images
from tests.flows.conftest import PrefectServer, ask

pytestmark = pytest.mark.xdist_group("prefect-server-2")
# Shards of so few images that a small folder has eleven, however fast this machine is.
SCRIPT = """
import json, sys
from pixelmill.flows.batch_scoring import score
from pixelmill.pipeline.scoring import dask_engine

if __name__ == "__main__":
    store, images, output, address = sys.argv[1:]
    dask_engine._Size.learn = lambda size, result: setattr(size, "_images", 100)
    manifest = score("digits@1", images, output, store=store, executor="dask", dask_address=address)
    print(json.dumps(manifest))
"""


def data(folder: Path) -> pd.DataFrame:
    return read_predictions(folder).drop(columns=["run_id", "scored_at"])


def kill_one_midway(running: Cluster, parts: Path, over: threading.Event, killed: list[int]) -> None:
    victim = running.worker_processes()[0]
    while not over.is_set():
        if len(list(parts.glob("part-*.parquet"))) >= 2:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
            return


def test_killing_a_worker_of_the_cluster_changes_nothing(
    server: PrefectServer, trained_store: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    images, output = tmp_path / "images", tmp_path / "there"
    write_images(images, 2000)
    (tmp_path / "score_once.py").write_text(SCRIPT)
    over, killed = threading.Event(), list[int]()
    with running_cluster(environment=server.environment) as running:
        command = [sys.executable, tmp_path / "score_once.py", trained_store, images, output, running.address]
        watcher = threading.Thread(
            target=kill_one_midway, args=(running, output / ".pixelmill/parts", over, killed)
        )
        watcher.start()
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **server.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        over.set()
        watcher.join()
    assert done.returncode == 0, done.stderr
    assert killed, "the run was over before its worker could be killed"
    manifest = json.loads(done.stdout.splitlines()[-1])
    assert (manifest["listed"], manifest["failed"]) == (2000, 0)
    assert "Dask cluster" in manifest["threads_reason"]
    here = score_folder(ScoringRequest(bundle=bundle, images=images, output=tmp_path / "here"))
    pd.testing.assert_frame_equal(data(output), data(local_path(here.folder)))
    # In Prefect's UI, each shard is a task, whose parameters are a folder and a number.
    (run,) = ask(server, "flow_runs/filter", flows={"name": {"any_": ["score shards"]}}, limit=1)
    shards = ask(server, "task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert len(shards) == len(list((output / "predictions").glob("part-*.parquet"))) == 11
