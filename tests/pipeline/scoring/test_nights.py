"""Nightly tables: a folder per date, the version that the night began with, and the table before it."""

import shutil
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from pixelmill.pipeline.artifacts import MANIFEST, read_json
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.registry import find_bundle, promote_version
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest
from pixelmill.pipeline.scoring.nights import (
    newest_table,
    night_folder,
    parse_night,
    reference_for_night,
    unfinished_nights,
)
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import write_images

NIGHTS = [date(2026, 11, 25), date(2026, 11, 26), date(2026, 11, 27)]
SCORE = """
import sys
from pathlib import Path
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder

if __name__ == "__main__":
    store, images, output = map(Path, sys.argv[1:])
    bundle = find_bundle(store, "digits@1")
    score_folder(ScoringRequest(bundle=bundle, images=images, output=output, workers=1))
"""


@pytest.fixture
def store(trained_store: Path, tmp_path: Path) -> Path:
    """A store with two versions of the model, of which the first is the champion."""
    models = tmp_path / "store/models/digits"
    shutil.copytree(trained_store / "models/digits", models)
    shutil.copytree(models / "1", models / "2")
    text = (models / "2" / MANIFEST).read_text()
    (models / "2" / MANIFEST).write_text(text.replace('"version": 1,', '"version": 2,'))
    return tmp_path / "store"


def promote(store: Path, version: int, replacing: int) -> None:
    promote_version(
        store, "digits", version, "champion", replacing=replacing, reason="", by="test", tested_on=""
    )


def score_night(store: Path, root: Path, images: Path, night: date) -> PredictionTable:
    output = night_folder(root, night)
    bundle = find_bundle(store, reference_for_night(output, "digits@champion"))
    previous = newest_table(root, night)
    return score_folder(
        ScoringRequest(bundle=bundle, images=images, output=output, previous=previous, workers=1)
    )


def test_three_nights_with_a_promotion_between_them_give_three_tables(store: Path, tmp_path: Path) -> None:
    images, root = tmp_path / "images", tmp_path / "scored"
    write_images(images, 4)
    first = score_night(store, root, images, NIGHTS[0])
    assert first.manifest["previous"] is None
    write_images(images, 6)
    second = score_night(store, root, images, NIGHTS[1])
    assert second.manifest["previous"] == str(root / "run_date=2026-11-25")
    assert (second.manifest["reused"], second.manifest["computed"]) == (4, 2)
    promote(store, 2, replacing=1)
    third = score_night(store, root, images, NIGHTS[2])
    tables = [read_predictions(table.folder) for table in (first, second, third)]
    assert [len(table) for table in tables] == [4, 6, 6]
    assert [set(table["model_version"]) for table in tables] == [{"1"}, {"1"}, {"2"}]
    # Every row of a night is of that night's run, also where its prediction was reused.
    assert [table["run_id"].nunique() for table in tables] == [1, 1, 1]
    assert len({run for table in tables for run in table["run_id"]}) == 3
    # The night is run again after the promotion: it is still the table of its version.
    again = score_night(store, root, images, NIGHTS[0])
    assert set(read_predictions(again.folder)["model_version"]) == {"1"}


def test_an_interrupted_night_goes_on_with_its_version(store: Path, tmp_path: Path) -> None:
    images, root = tmp_path / "images", tmp_path / "scored"
    write_images(images, 40)
    output = night_folder(root, NIGHTS[0])
    script = tmp_path / "score_once.py"
    script.write_text(SCORE)
    killed = subprocess.Popen([sys.executable, str(script), str(store), str(images), str(output)])
    while not (output / ".pixelmill/run.json").is_file():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    if (output / MANIFEST).is_file():
        pytest.skip("this machine finished the table before it could be killed")
    promote(store, 2, replacing=1)
    assert unfinished_nights(root, NIGHTS[1]) == [NIGHTS[0]]
    assert newest_table(root, NIGHTS[1]) is None
    table = score_night(store, root, images, NIGHTS[0])
    assert read_json(output / MANIFEST)["run"]["model_version"] == "1"
    assert set(read_predictions(table.folder)["model_version"]) == {"1"}
    assert unfinished_nights(root, NIGHTS[1]) == []
    assert set(read_predictions(score_night(store, root, images, NIGHTS[1]).folder)["model_version"]) == {"2"}


def test_other_folders_below_the_root_are_no_nights(tmp_path: Path) -> None:
    for name in ("run_date=2026-11-25", "run_date=yesterday", "notes"):
        (tmp_path / name).mkdir()
    assert newest_table(tmp_path, NIGHTS[2]) is None
    assert unfinished_nights(tmp_path, NIGHTS[2]) == []
    assert newest_table(tmp_path / "none", NIGHTS[2]) is None


def test_a_date_is_checked() -> None:
    assert parse_night("2026-11-25") == NIGHTS[0]
    with pytest.raises(RequestError, match=r"`night` '25\.11\.2026'"):
        parse_night("25.11.2026")
