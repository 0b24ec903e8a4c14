"""Scoring on a real Dask cluster gives the same table, whichever processes die."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest, dask_engine
from pixelmill.pipeline.scoring.run import score_folder
from tests.clusters import Cluster, running_cluster
from tests.conftest import write_images
from tests.pipeline.scoring.decoders import CRASHING_DECODER, HANGING_DECODER, mark_image, write_site

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("dask")

IMAGES = 4000


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "images"
    write_images(folder, IMAGES)
    return folder


@pytest.fixture
def request_(
    bundle: ModelBundle, images: Path, dask: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ScoringRequest:
    """Shards with so little work that a small folder has many."""
    monkeypatch.setattr(dask_engine, "SECONDS_A_SHARD", 0.01)
    return ScoringRequest(
        bundle=bundle, images=images, output=tmp_path / "out", executor="dask", dask_address=dask.address
    )


def data(table: PredictionTable) -> pd.DataFrame:
    return read_predictions(table.folder).drop(columns=["run_id", "scored_at"])


def scored_here(request: ScoringRequest, output: Path) -> pd.DataFrame:
    return data(score_folder(replace(request, output=output, executor="local", dask_address=None)))


def test_a_cluster_gives_the_same_table_as_this_machine(request_: ScoringRequest, tmp_path: Path) -> None:
    table = score_folder(request_)
    pd.testing.assert_frame_equal(data(table), scored_here(request_, tmp_path / "here"))
    assert table.manifest["threads"] == 2
    assert "Dask cluster" in table.manifest["threads_reason"]
    assert len(list((table.folder / "predictions").glob("part-*.parquet"))) > 5


def test_killing_a_worker_midway_changes_nothing(
    request_: ScoringRequest, dask: Cluster, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_midway() -> None:
        victim = dask.worker_processes()[0]
        while not killed:
            if len(list(request_.parts.glob("part-*.parquet"))) >= 4:
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    watcher = threading.Thread(target=kill_midway)
    watcher.start()
    try:
        table = score_folder(request_)
    finally:
        killed.append(0)
        watcher.join()
    assert killed[0] != 0, "the run was over before its worker could be killed"
    assert killed[0] not in dask.worker_processes()
    assert table.manifest["failed"] == 0
    pd.testing.assert_frame_equal(data(table), scored_here(request_, tmp_path / "here"))


def test_an_interrupted_run_resumes_with_the_same_shards(
    request_: ScoringRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score_folder(request_)
    again = score_folder(request_)
    assert again.manifest["computed"] == 0
    assert again.manifest["run"] == whole.manifest["run"]


def test_the_first_shard_determines_the_size_of_the_others(
    request_: ScoringRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_engine, "SECONDS_A_SHARD", 90.0)
    table = score_folder(request_)
    # The first shard is a measurement, and the rest is less than 90 seconds of work.
    assert len(list((table.folder / "predictions").glob("part-*.parquet"))) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dask_address": None}, "`executor` dask with `dask_address` None"),
        ({"executor": "local"}, "`executor` local with `dask_address`"),
        ({"dask_address": "tcp://127.0.0.1:9"}, "no Dask scheduler is reachable at tcp://127.0.0.1:9"),
        ({"dask_address": "nonsense://x"}, "no Dask scheduler is reachable"),
    ],
)
def test_a_missing_cluster_is_one_line(
    request_: ScoringRequest, change: dict[str, str | None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_engine, "_SECONDS_TO_CONNECT", 1)
    with pytest.raises(RequestError, match=words):
        score_folder(replace(request_, **change))  # type: ignore[arg-type]


def test_a_scheduler_without_workers_is_one_line(request_: ScoringRequest) -> None:
    with (
        running_cluster(workers=0) as empty,
        pytest.raises(RequestError, match="has no workers"),
    ):
        score_folder(replace(request_, dask_address=empty.address))


@pytest.mark.slow
def test_an_image_that_kills_its_workers_is_a_failed_row(request_: ScoringRequest, tmp_path: Path) -> None:
    site = write_site(tmp_path, CRASHING_DECODER)
    killer = write_images(tmp_path / "images", 2)[1]
    mark_image(killer, b"kill")
    # One crash is enough here, because each one costs the start of a worker.
    environment = {"PYTHONPATH": site, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with running_cluster(environment=environment) as deadly:
        table = score_folder(
            replace(request_, images=tmp_path / "images", dask_address=deadly.address, max_failure_rate=1)
        )
    rows = read_predictions(table.folder)
    assert rows.loc[rows["status"] == "failed", "image_path"].tolist() == [killer.name]
    assert table.manifest["failures"] == {"worker_died": 1}


@pytest.mark.slow
def test_images_over_the_time_limit_cost_one_worker_each_and_no_search(
    request_: ScoringRequest, tmp_path: Path
) -> None:
    site = write_site(tmp_path, HANGING_DECODER)
    hanging = write_images(tmp_path / "images", 40)[3::20]
    for path in hanging:
        mark_image(path, b"hang")
    request = replace(request_, images=tmp_path / "images", max_image_seconds=1.0, max_failure_rate=1)
    with running_cluster(environment={"PYTHONPATH": site}) as cluster_:
        table = score_folder(replace(request, dask_address=cluster_.address))
    rows = read_predictions(table.folder)
    failed = rows.loc[rows["status"] == "failed", ["image_path", "error"]]
    assert failed["image_path"].tolist() == [path.name for path in hanging]
    assert set(failed["error"]) == {"too_costly: decoding exceeds the limit of 1 s"}
    assert table.manifest["scored"] == 38
