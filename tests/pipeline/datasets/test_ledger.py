"""The record of splits: processes that add to it at once, here and in an object store, lose nothing."""

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.datasets import SplitName
from pixelmill.pipeline.datasets.contents import as_contents
from pixelmill.pipeline.datasets.decisions import OPEN, Decisions
from pixelmill.pipeline.datasets.ledger import ledger_folder, read_ledger, settle_splits
from pixelmill.pipeline.datasets.splits import Division, Fractions, Undivided, assign_splits
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.storage import Location, file_sizes, parse_location
from tests.s3 import S3Server, s3_server

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("ledger")

RUNS, IMAGES = 3, 30
SPAWN = multiprocessing.get_context("spawn")
_TOGETHER: list[Barrier] = []


def divide(first: int, count: int, decided: Decisions) -> Division:
    numbers = range(first, first + count)
    images = Undivided(
        contents=as_contents([f"{number:064x}" for number in numbers]),
        labels=np.zeros(count, np.int64),
        names=lambda rows: [str(first + row) for row in rows],
        parts=np.full(count, OPEN, np.int8),
        groups=np.full(count, -1),
    )
    return assign_splits(images, Fractions(0.2, 0.1), decided)


def hold(barrier: Barrier) -> None:
    """Keep what lets the processes of a pool start at the same moment."""
    _TOGETHER.append(barrier)


def grow(environment: dict[str, str], store: str, run: int) -> dict[str, SplitName]:
    """Divide a dataset that shares half of its images with that of the next process."""
    os.environ.update(environment)
    folder = ledger_folder(parse_location(store), "pets")
    _TOGETHER[0].wait()
    return dict(settle_splits(folder, lambda decided: divide(run * IMAGES // 2, IMAGES, decided)).decisions)


@pytest.fixture(scope="module")
def processes() -> Iterator[Pool]:
    with SPAWN.Pool(RUNS, hold, (SPAWN.Barrier(RUNS),)) as pool:
        yield pool


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Location]:
    if request.param == "local":
        yield tmp_path / "store"
        return
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    with server.bucket("ledger"):
        yield parse_location("s3://ledger/store")


def test_processes_that_decide_at_once_agree_on_every_image(store: Location, processes: Pool) -> None:
    runs = [(dict(os.environ), str(store), run) for run in range(RUNS)]
    results = processes.starmap(grow, runs, chunksize=1)
    ledger = read_ledger(ledger_folder(store, "pets"))
    assert len(ledger) == (RUNS + 1) * IMAGES // 2
    for decisions in results:
        assert len(decisions) == IMAGES
        assert decisions.items() <= ledger.items()


def test_a_run_adds_a_segment_and_one_that_decides_nothing_adds_none(store: Location) -> None:
    folder = ledger_folder(store, "pets")
    assert read_ledger(folder) == {}
    first = settle_splits(folder, lambda decided: divide(0, 10, decided))
    again = settle_splits(folder, lambda decided: divide(0, 10, decided))
    assert again.decisions == first.decisions
    settle_splits(folder, lambda decided: divide(0, 20, decided))
    assert sorted(name for name in file_sizes(folder) if not name.startswith(".")) == [
        "00000001.parquet",
        "00000002.parquet",
    ]
    assert len(read_ledger(folder)) == 20


def test_an_image_that_another_process_decided_first_is_where_that_put_it(tmp_path: Path) -> None:
    folder = ledger_folder(tmp_path, "pets")
    calls = []

    def decide(decided: Decisions) -> Division:
        calls.append(dict(decided))
        if len(calls) == 1:
            settle_splits(folder, lambda decided: divide(0, 10, decided))
        return divide(0, 100, decided)

    division = settle_splits(folder, decide)
    assert calls[0] == {}
    assert calls[1] == divide(0, 10, Decisions.nothing()).decisions
    assert calls[1].items() <= division.decisions.items()
    assert read_ledger(folder) == division.decisions


def test_a_damaged_segment_stops_the_run(tmp_path: Path) -> None:
    folder = ledger_folder(tmp_path, "pets")
    settle_splits(folder, lambda decided: divide(0, 10, decided))
    path = folder / "00000001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        WorkError, match=r"00000001\.parquet, a record of the splits of images, cannot be read"
    ):
        settle_splits(folder, lambda decided: divide(0, 20, decided))
