"""Crashing workers: each crash costs a retry, and each image that causes one becomes a failed row."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.shards import growing_limits
from pixelmill.pipeline.storage import local_path
from tests.conftest import write_images
from tests.pipeline.scoring.decoders import CRASHING_DECODER, mark_image, write_site

SHARD_IMAGES = next(growing_limits())[0]

# Dies once, after the marker of its second shard is removed.
DYING_BETWEEN_SHARDS = """
import os, signal
from pathlib import Path

unlink, once, ended = Path.unlink, Path(__file__).with_name("died-once"), []

def dying_unlink(path, *arguments, **options):
    unlink(path, *arguments, **options)
    if path.parent.name == "begun":
        ended.append(path)
        if len(ended) == 2 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

Path.unlink = dying_unlink
"""


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScoringRequest:
    """Three shards, to be scored by workers whose decoder can crash."""
    monkeypatch.setenv("PYTHONPATH", write_site(tmp_path, CRASHING_DECODER))
    write_images(tmp_path / "images", 2 * SHARD_IMAGES + 50)
    return ScoringRequest(bundle=bundle, images=tmp_path / "images", output=tmp_path / "out", workers=2)


def poison(request: ScoringRequest, index: int, failure: bytes) -> str:
    """Make the decoder fail on one of the images; returns its name."""
    return mark_image(local_path(request.images) / f"{index:05d}.png", failure)


def test_only_images_that_kill_their_worker_are_failed_rows(request_: ScoringRequest, tmp_path: Path) -> None:
    whole = read_predictions(score_folder(replace(request_, output=tmp_path / "whole")).folder)
    crashing = {poison(request_, index, b"kill") for index in (0, SHARD_IMAGES + 7, SHARD_IMAGES + 8)}
    crashing.add(poison(request_, 300, b"memory"))
    table = score_folder(request_)
    assert table.manifest["failures"] == {"too_costly": 1, "worker_died": 3}
    rows = read_predictions(table.folder)
    assert set(rows.loc[rows["status"] == "failed", "image_path"]) == crashing
    data = ["image_path", "image_sha256", "label", "class_index", "probability", "width", "height"]
    others = ~whole["image_path"].isin(crashing)
    pd.testing.assert_frame_equal(rows.loc[others, data], whole.loc[others, data])


def test_a_crash_that_does_not_recur_causes_no_failure(request_: ScoringRequest, tmp_path: Path) -> None:
    poison(request_, 5, b"once")
    table = score_folder(request_)
    assert (tmp_path / "site/died-once").exists()
    assert table.manifest["failed"] == 0
    assert table.manifest["scored"] == 2 * SHARD_IMAGES + 50


def test_a_crash_between_two_shards_causes_no_failure(request_: ScoringRequest, tmp_path: Path) -> None:
    write_site(tmp_path, DYING_BETWEEN_SHARDS)
    table = score_folder(replace(request_, workers=1))
    assert (tmp_path / "site/died-once").exists()
    assert (table.manifest["failed"], table.manifest["scored"]) == (0, 2 * SHARD_IMAGES + 50)


def test_workers_that_never_start_end_the_run_in_one_line(request_: ScoringRequest, tmp_path: Path) -> None:
    write_site(tmp_path, "import os\nos._exit(1)")
    with pytest.raises(WorkError, match="died before it started a shard"):
        score_folder(request_)
    (tmp_path / "site/sitecustomize.py").unlink()
    assert score_folder(request_).manifest["failed"] == 0
