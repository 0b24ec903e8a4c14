"""Images that exceed a limit become failed rows, and the run finishes in time."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.explain.explanation import explain_image
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.shards import growing_limits, write_shards
from pixelmill.pipeline.scoring.worker.worker import Worker
from pixelmill.pipeline.storage import local_path
from tests.conftest import Run, write_images
from tests.pipeline.decoding.bombs import jpeg_with_scans, png, tiff
from tests.pipeline.scoring.decoders import HANGING_DECODER, mark_image, write_site

SHARD_IMAGES = next(growing_limits())[0]
MAX_MEMORY, MAX_SECONDS = 48 << 20, 2.0
DATA = ["image_path", "image_sha256", "status", "label", "class_index", "probability", "width", "height"]


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScoringRequest:
    """Two shards, to be scored by workers whose decoder can hang."""
    monkeypatch.setenv("PYTHONPATH", write_site(tmp_path, HANGING_DECODER))
    write_images(tmp_path / "images", SHARD_IMAGES + 50)
    return ScoringRequest(
        bundle=bundle,
        images=tmp_path / "images",
        output=tmp_path / "out",
        workers=2,
        max_image_memory=MAX_MEMORY,
        max_image_seconds=MAX_SECONDS,
    )


def test_only_images_over_a_limit_are_failed_rows(request_: ScoringRequest, tmp_path: Path) -> None:
    whole = read_predictions(score_folder(replace(request_, output=tmp_path / "whole")).folder)
    images = sorted(local_path(request_.images).iterdir())
    hanging = {mark_image(images[place], b"hang") for place in (3, SHARD_IMAGES + 1)}
    # A duplicate, which must not hang another worker.
    shutil.copyfile(images[3], images[SHARD_IMAGES + 7])
    hanging.add(images[SHARD_IMAGES + 7].name)
    large = {
        "00010.png": png(6000, 6000, 8, 6, 4),
        "00011.png": tiff(10, 9000),
        "00012.png": png(1, 20_000_000, 8, 4, 2),
        "00013.png": jpeg_with_scans(3000, 3000),
    }
    for name, content in large.items():
        (request_.images / name).write_bytes(content)
    table = score_folder(request_)
    assert table.manifest["failures"] == {"too_costly": len(large) + len(hanging)}
    rows = read_predictions(table.folder)
    failed = rows[rows["status"] == "failed"]
    errors = dict(zip(failed["image_path"], failed["error"], strict=True))
    assert set(errors) == {*large, *hanging}
    assert failed["image_sha256"].notna().all()
    for name in hanging:
        assert errors[name] == "too_costly: decoding exceeds the limit of 2 s"
    assert "scans" in errors["00013.png"]
    for name in ("00010.png", "00011.png", "00012.png"):
        assert f"{MAX_MEMORY:,}" in errors[name]
    others = ~whole["image_path"].isin(failed["image_path"])
    pd.testing.assert_frame_equal(rows.loc[others, DATA], whole.loc[others, DATA])


def test_a_decoder_process_over_the_time_limit_is_killed(request_: ScoringRequest) -> None:
    """As with a GPU, but on the CPU."""
    from concurrent.futures.process import BrokenProcessPool

    hanging = mark_image(min(local_path(request_.images).iterdir()), b"hang")
    with lock_output(request_.output):
        plan = plan_scoring(request_)
        first, *_ = write_shards(plan, growing_limits())
        worker = Worker(plan, decoders=2)
        with pytest.raises(BrokenProcessPool):
            worker.score(first.number)
        worker.close()
        worker = Worker(plan, decoders=2)
        result = worker.score(first.number)
        worker.close()
    assert (result.rows, result.failed) == (SHARD_IMAGES, 1)
    assert hanging == "00000.png"


# Thumbnails are RGB, while the tensors of these models are grey.
DEADLY_THUMBNAILS = """
import os, signal
import pixelmill.pipeline.images

decode = pixelmill.pipeline.images.decode

def die(data, spec, *arguments):
    if data.endswith(b"kill") and spec.channels == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if data.endswith(b"error") and spec.channels == 3:
        raise KeyError("thumbnail")
    return decode(data, spec, *arguments)

pixelmill.pipeline.images.decode = die
"""


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_thumbnail_that_crashes_its_process_is_omitted(
    request_: ScoringRequest, tmp_path: Path, is_resumed: bool
) -> None:
    write_site(tmp_path, DEADLY_THUMBNAILS)
    images = tmp_path / "few"
    paths = write_images(images, 10)
    for path, failure in zip(paths, (b"kill", b"error"), strict=False):
        mark_image(path, failure)
    request = replace(request_, images=images)
    table = score_folder(request)
    if is_resumed:  # All rows exist, so no worker starts.
        table = score_folder(request)
        assert table.manifest["computed"] == 0
    assert (table.manifest["scored"], table.manifest["failed"]) == (10, 0)
    page = (table.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 8


def test_explain_reports_an_image_over_the_limits(request_: ScoringRequest, trained_store: Path) -> None:
    (request_.images / "00010.png").write_bytes(png(6000, 6000, 8, 6, 4))
    table = score_folder(replace(request_, max_failure_rate=1))
    explanation = explain_image(table.folder, "00010.png", trained_store, keras=False)
    assert explanation.first_difference is None
    last = explanation.stages[-1]
    assert (last.name, last.found["failure"], last.verdict) == ("tensor", "too_costly", "same")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_image_memory": 1000}, "`max_image_memory` 1000; expected at least 16,777,216 bytes"),
        ({"max_image_seconds": 0.0}, "`max_image_seconds` 0.0; expected a number of seconds above 0"),
        ({"max_image_seconds": float("nan")}, "`max_image_seconds` nan"),
        ({"max_image_seconds": float("inf")}, "`max_image_seconds` inf"),
    ],
)
def test_limits_out_of_range_are_refused(
    request_: ScoringRequest, change: dict[str, float], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        score_folder(replace(request_, **change))  # type: ignore[arg-type]


def test_different_limits_are_a_different_run(request_: ScoringRequest) -> None:
    score_folder(request_)
    with pytest.raises(RequestError, match=r"a run with max_image_seconds 2\.0"):
        score_folder(replace(request_, max_image_seconds=3.0))


@pytest.mark.parametrize(
    ("size", "code", "kept"),
    [
        ("64MB", 0, 64 << 20),
        ("0.5gb", 0, 1 << 29),
        ("100", 0, 100 << 20),
        ("much", 2, None),
        ("-1GB", 2, None),
    ],
)
def test_the_memory_limit_accepts_units(
    run: Run, trained_store: Path, tmp_path: Path, size: str, code: int, kept: int | None
) -> None:
    write_images(tmp_path / "images", 2)
    command = ("score", "digits@1", tmp_path / "images", "--output", tmp_path / "out", "--json")
    result = run(*command, "--store", trained_store, f"--max-image-memory={size}")
    assert result.code == code, result.errors
    if kept:
        assert result.json["request"]["max_image_memory"] == kept
    else:
        assert result.last_error.startswith(f"pixelmill: --max-image-memory {size}; expected a size")
