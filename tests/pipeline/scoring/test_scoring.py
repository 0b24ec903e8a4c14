"""Scoring of a folder: one correct row per file, resumed runs, and outputs with other content."""

import hashlib
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

from pixelmill.pipeline.artifacts import read_manifest, sha256_of
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.errors import GateRefused, RequestError, WorkError
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.predictions import CSV_FILE, PARTS_FOLDER, REPORT_FILE, read_predictions
from pixelmill.pipeline.predictions.parts import part_name
from pixelmill.pipeline.scoring import PredictionTable, ScoringOutcome, ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.commit import commit_table, require_failure_rate
from pixelmill.pipeline.scoring.listing import ListedImage
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.run import score_folder, score_shards
from pixelmill.pipeline.scoring.shards import cut_images, growing_limits
from pixelmill.pipeline.storage import local_path
from tests.conftest import write_images

SHARD_IMAGES = next(growing_limits())[0]
IMAGES = 2 * SHARD_IMAGES + 3
SIZES = [
    len(shard) for shard in cut_images([ListedImage("", 0, 0, 0)] * IMAGES, growing_limits(), tapers=True)
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Different images for a little more than two shards, in two folders."""
    write_images(tmp_path / "images/a", SHARD_IMAGES, seed=1)
    write_images(tmp_path / "images/b", SHARD_IMAGES + 3, seed=2)
    return tmp_path / "images"


@pytest.fixture
def request_(bundle: ModelBundle, images: Path, tmp_path: Path) -> ScoringRequest:
    return ScoringRequest(bundle=bundle, images=images, output=tmp_path / "out", workers=2)


def rows_of(table: PredictionTable) -> pd.DataFrame:
    return read_predictions(table.folder)


def planned(request: ScoringRequest) -> ScoringPlan:
    """A plan whose run does not continue, as if it had been killed."""
    with lock_output(request.output):
        return plan_scoring(request)


def committed(plan: ScoringPlan, outcome: ScoringOutcome) -> PredictionTable:
    with lock_output(plan.request.output):
        return commit_table(plan, outcome)


def state_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_every_image_has_the_prediction_of_the_model(request_: ScoringRequest) -> None:
    table = score_folder(request_)
    rows = rows_of(table)
    folder = local_path(request_.images)
    files = sorted(folder.rglob("*.png"))
    assert rows["image_path"].tolist() == [path.relative_to(folder).as_posix() for path in files]
    assert rows["image_sha256"].tolist() == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    # The same predictions in another way: with Pillow and onnxruntime, one image at a time.
    session = onnxruntime.InferenceSession(request_.bundle.onnx_path)
    for index in (0, 1, 1023, 1024, 1500, 2050):
        pixels = np.asarray(Image.open(files[index])).reshape(1, 8, 8, 1)
        (probabilities,) = session.run(None, {"image": pixels})
        row = rows.iloc[index]
        assert row["class_index"] == probabilities[0].argmax()
        assert row["label"] == request_.bundle.labels()[probabilities[0].argmax()]
        assert row["probability"] == pytest.approx(probabilities[0].max(), abs=1e-6)
    assert set(rows["status"]) == {"scored"}
    assert rows["run_id"].nunique() == rows["scored_at"].nunique() == 1
    assert (rows["width"] == 8).all()


def test_the_manifest_counts_the_rows_of_the_table(request_: ScoringRequest) -> None:
    table = score_folder(request_)
    manifest = read_manifest(table.folder)
    assert manifest["listed"] == manifest["scored"] == IMAGES
    assert manifest["failed"] == 0
    assert sum(manifest["labels"].values()) == manifest["scored"]
    assert manifest["provider"] == "CPUExecutionProvider"
    assert manifest["threads"] in (1, 2)  # One worker may finish before the other has started.
    assert manifest["computed"] == manifest["listed"]
    assert (manifest["reused"], manifest["previous"]) == (0, None)
    assert 0 < manifest["startup_seconds"] < manifest["seconds"]
    assert "accuracy" not in manifest
    assert set(manifest["stage_seconds"]) == {"read", "decode", "infer", "write"}
    # Random pixels are not digits, so there must be drift.
    assert manifest["drift"]["class_psi"] > 0.25
    for name, facts in manifest["files"].items():
        assert sha256_of(table.folder / name) == facts["sha256"]
    assert sorted(path.name for path in table.folder.iterdir()) == [
        "manifest.json",
        "predictions",
        "report.html",
    ]
    parts = sorted(path.name for path in (table.folder / PARTS_FOLDER).iterdir())
    assert parts == [*map(part_name, range(len(SIZES)))]


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_change_gives_no_negative_times(request_: ScoringRequest, hours: int) -> None:
    plan = planned(request_)
    # As if the clock had been set back or forward since the run started.
    set_plan = replace(plan, started=plan.started + 3600 * hours)
    outcome = score_shards(set_plan)
    assert 0 <= outcome.startup_seconds <= outcome.seconds < 600
    manifest = committed(set_plan, outcome).manifest
    assert manifest["images_per_second"] < 1e6
    assert min(manifest["stage_seconds"].values()) >= 0


def test_the_number_of_workers_changes_nothing(request_: ScoringRequest, tmp_path: Path) -> None:
    two = rows_of(score_folder(request_))
    one = rows_of(score_folder(replace(request_, workers=1, output=tmp_path / "one")))
    data = [name for name in two.columns if name not in ("run_id", "scored_at")]
    pd.testing.assert_frame_equal(one[data], two[data])


def test_csv_and_parquet_contain_the_same(request_: ScoringRequest, tmp_path: Path) -> None:
    parquet = rows_of(score_folder(replace(request_, top_k=3)))
    table = score_folder(replace(request_, top_k=3, format="csv", output=tmp_path / "csv"))
    csv = rows_of(table)
    assert sorted(path.name for path in table.folder.iterdir()) == ["manifest.json", CSV_FILE, REPORT_FILE]
    shared = ["image_path", "image_sha256", "status", "label", "class_index", "width", "height"]
    pd.testing.assert_frame_equal(csv[shared], parquet[shared], check_dtype=False)
    assert (csv["probability"].astype(np.float32) == parquet["probability"]).all()
    for place in (2, 3):
        assert csv[f"label_{place}"].tolist() == [names[place - 1] for names in parquet["top_labels"]]
    assert all(list(values) == sorted(values, reverse=True) for values in parquet["top_probabilities"])


def jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_every_invalid_file_is_a_row_with_its_reason(bundle: ModelBundle, tmp_path: Path) -> None:
    images = tmp_path / "images"
    (good,) = write_images(images, 1)
    (images / "empty.png").touch()
    (images / "text.jpg").write_text("not an image at all")
    (images / "truncated.jpg").write_bytes(jpeg(quality=95)[:400])
    (images / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(images / "pipe.png")
    (images / "large.png").write_bytes(encode_png(np.zeros((50, 50, 1), np.uint8)))
    (images / "=cmd.png").write_bytes(good.read_bytes())
    with open(os.fsencode(images) + b"/\xff\xfe.png", "wb") as file:
        file.write(good.read_bytes())
    exif = Image.Exif()
    exif[274] = 6
    (images / "turned.jpg").write_bytes(jpeg(exif=exif))
    request = ScoringRequest(bundle=bundle, images=images, output=tmp_path / "out", max_pixels=2000)
    table = score_folder(request)
    rows = rows_of(table).set_index("image_path")
    failures = {path: error.split(":")[0] for path, error in rows["error"].items() if isinstance(error, str)}
    assert failures == {
        "empty.png": "empty",
        "text.jpg": "not_an_image",
        "truncated.jpg": "corrupt",
        "gone.png": "not_a_file",
        "pipe.png": "not_a_file",
        "large.png": "too_many_pixels",
    }
    assert table.manifest["failures"] == {
        "corrupt": 1,
        "empty": 1,
        "not_a_file": 2,
        "not_an_image": 1,
        "too_many_pixels": 1,
    }
    assert (table.manifest["scored"], table.manifest["failed"]) == (4, 6)
    assert (rows["error"].isna() == (rows["status"] == "scored")).all()
    assert rows["label"].isna().equals(rows["status"] == "failed")
    assert (rows.loc["turned.jpg", "width"], rows.loc["turned.jpg", "height"]) == (20, 40)
    assert rows.loc[["=cmd.png", "%FF%FE.png", good.name], "label"].nunique() == 1
    with pytest.raises(GateRefused, match=r"6 of 10 images failed \(corrupt 1, empty 1"):
        require_failure_rate(table, 0.5)
    require_failure_rate(table, 0.6)


def test_an_interrupted_run_resumes_and_gives_the_same_table(
    request_: ScoringRequest, tmp_path: Path
) -> None:
    whole = rows_of(score_folder(replace(request_, output=tmp_path / "whole")))
    plan = planned(request_)
    score_shards(plan)
    # As if killed before the second part was written and before the commit.
    (request_.parts / "part-00001.parquet").unlink()
    table = score_folder(request_)
    assert table.manifest["computed"] == SIZES[1]
    assert table.manifest["run"] == vars(plan.facts)
    data = [name for name in whole.columns if name not in ("run_id", "scored_at")]
    pd.testing.assert_frame_equal(rows_of(table)[data], whole[data])


def test_a_damaged_part_is_scored_again(request_: ScoringRequest) -> None:
    plan = planned(request_)
    score_shards(plan)
    part = request_.parts / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    table = score_folder(request_)
    assert table.manifest["computed"] == SHARD_IMAGES
    assert len(rows_of(table)) == IMAGES


def test_parts_with_modified_bytes_are_scored_again(request_: ScoringRequest, tmp_path: Path) -> None:
    whole = rows_of(score_folder(replace(request_, output=tmp_path / "whole")))
    score_shards(planned(request_))
    for name, place in (("part-00000.parquet", 0.05), ("part-00001.parquet", 0.5)):
        content = bytearray((request_.parts / name).read_bytes())
        at = int(len(content) * place)
        content[at : at + 50] = bytes(50)
        (local_path(request_.parts) / name).write_bytes(content)
    table = score_folder(request_)
    assert table.manifest["computed"] == SIZES[0] + SIZES[1]
    data = [name for name in whole.columns if name not in ("run_id", "scored_at")]
    pd.testing.assert_frame_equal(rows_of(table)[data], whole[data])


def test_a_finished_run_is_kept_and_its_failed_rows_are_retried(request_: ScoringRequest) -> None:
    repaired = request_.images / "a/00007.png"
    good = repaired.read_bytes()
    repaired.write_bytes(b"broken")
    first = score_folder(request_)
    assert first.manifest["failed"] == 1
    before = rows_of(first)
    again = score_folder(request_)
    assert (again.manifest["computed"], again.manifest["failed"]) == (1, 1)
    pd.testing.assert_frame_equal(rows_of(again), before)
    # Once repaired, its size and time differ from the listing, so its shard is scored again.
    repaired.write_bytes(good)
    last = score_folder(request_)
    assert last.manifest["failed"] == 0
    assert last.manifest["run"] == first.manifest["run"]
    assert len(rows_of(last)) == IMAGES


def test_a_changed_folder_is_detected(request_: ScoringRequest) -> None:
    score_folder(request_)
    (request_.images / "a/00000.png").unlink()
    write_images(local_path(request_.images) / "c", 5, seed=9)
    table = score_folder(request_)
    paths = rows_of(table)["image_path"].tolist()
    assert "a/00000.png" not in paths
    assert paths[-1] == "c/00004.png"
    assert len(paths) == len(set(paths)) == IMAGES - 1 + 5
    shutil.rmtree(local_path(request_.images) / "b")
    assert len(rows_of(score_folder(request_))) == SHARD_IMAGES - 1 + 5


def test_the_output_of_another_run_is_refused_and_kept(request_: ScoringRequest, tmp_path: Path) -> None:
    score_folder(request_)
    before = state_of(local_path(request_.output))
    write_images(tmp_path / "other", 3)
    for other, key in (
        (replace(request_, images=tmp_path / "other"), "images"),
        (replace(request_, top_k=2), "top_k"),
        (replace(request_, bundle=replace(request_.bundle, onnx_sha256="0" * 64)), "model_sha256"),
    ):
        with pytest.raises(RequestError, match=f"contains a run with {key}"):
            score_folder(other)
    assert state_of(local_path(request_.output)) == before


def test_an_unfinished_run_of_another_request_is_refused(request_: ScoringRequest) -> None:
    score_shards(planned(request_))
    before = state_of(local_path(request_.output))
    with pytest.raises(RequestError, match="contains a run with top_k 1"):
        planned(replace(request_, top_k=2))
    assert state_of(local_path(request_.output)) == before


def test_fresh_replaces_another_run_only_once_the_new_one_is_complete(
    request_: ScoringRequest, tmp_path: Path
) -> None:
    score_folder(replace(request_, format="csv"))
    before = state_of(local_path(request_.output))
    write_images(tmp_path / "other", 3)
    other = replace(request_, images=tmp_path / "other", fresh=True)
    plan = planned(other)
    outcome = score_shards(plan)
    after = state_of(local_path(request_.output))
    assert {name: after[name] for name in before} == before
    table = committed(plan, outcome)
    assert len(rows_of(table)) == 3
    names = sorted(path.name for path in table.folder.iterdir())
    assert names == ["manifest.json", PARTS_FOLDER, REPORT_FILE]


def test_a_folder_with_other_files_is_refused_as_output(request_: ScoringRequest) -> None:
    request_.output.mkdir()
    (request_.output / "thesis.txt").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(RequestError, match=r"thesis\.txt"):
            score_folder(replace(request_, fresh=fresh))
    assert [path.name for path in request_.output.iterdir()] == ["thesis.txt"]


def test_a_folder_without_images_creates_no_output(bundle: ModelBundle, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    with pytest.raises(RequestError, match="contains no images"):
        score_folder(ScoringRequest(bundle=bundle, images=tmp_path / "empty", output=tmp_path / "out"))
    with pytest.raises(RequestError, match="is not a folder"):
        score_folder(ScoringRequest(bundle=bundle, images=tmp_path / "gone", output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"top_k": 0}, "`top_k` 0"),
        ({"top_k": 11}, "1 to 10"),
        ({"workers": 0}, "`workers` 0"),
        ({"max_failure_rate": 1.5}, "`max_failure_rate` 1.5"),
        ({"max_failure_rate": float("nan")}, "`max_failure_rate` nan"),
        ({"max_pixels": 0}, "`max_pixels` 0"),
    ],
)
def test_values_out_of_range_are_refused(
    request_: ScoringRequest, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        score_folder(replace(request_, **change))
    assert not request_.output.exists()


def test_a_missing_gpu_is_an_error(request_: ScoringRequest) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    with pytest.raises(RequestError, match="CUDAExecutionProvider"):
        score_folder(replace(request_, provider="cuda"))


def test_a_modified_part_is_detected_at_the_commit(request_: ScoringRequest) -> None:
    plan = planned(request_)
    outcome = score_shards(plan)
    shard = request_.shards / "00000.jsonl"
    (images,) = map(json.loads, shard.read_text().splitlines())
    assert images[0][0] == "a/00000.png"
    part = request_.parts / "part-00001.parquet"
    part.unlink()
    with pytest.raises(WorkError, match="shard 1 has no part"):
        commit_table(plan, outcome)
    assert not (request_.output / "manifest.json").exists()


def test_an_interrupted_fresh_run_resumes(request_: ScoringRequest, tmp_path: Path) -> None:
    write_images(tmp_path / "other", 3)
    score_folder(replace(request_, images=tmp_path / "other"))
    fresh = replace(request_, fresh=True)
    plan = planned(fresh)
    score_shards(plan)
    (request_.parts / "part-00002.parquet").unlink()
    # It resumes with and without `fresh`; only `fresh` after the end starts a new run.
    for again in (fresh, request_):
        assert planned(again).facts == plan.facts
    table = score_folder(fresh)
    assert (table.manifest["computed"], table.manifest["listed"]) == (SIZES[2], IMAGES)
    assert score_folder(fresh).manifest["run"] != table.manifest["run"]


def test_two_runs_never_share_an_output(request_: ScoringRequest) -> None:
    with lock_output(request_.output), pytest.raises(RequestError, match="in use by another run"):
        score_folder(request_)
    assert not request_.output.exists()
    assert score_folder(request_).manifest["failed"] == 0


@pytest.mark.parametrize(
    "name",
    ["predictions", "part-00000-spark.parquet", "predictions.csv", "report.html", "manifest.json"],
)
def test_files_that_resemble_a_table_are_kept(request_: ScoringRequest, name: str) -> None:
    request_.output.mkdir()
    (request_.output / name).write_text("{}")
    for fresh in (False, True):
        with pytest.raises(RequestError, match="scoring run"):
            score_folder(replace(request_, fresh=fresh))
    assert (request_.output / name).read_text() == "{}"
    assert [path.name for path in request_.output.iterdir()] == [name]


def test_unusual_files_are_failed_rows(bundle: ModelBundle, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, 2)
    Image.new("LAB", (9, 9)).save(images / "lab.tif")
    Image.new("F", (9, 9)).save(images / "float.tif")
    with (images / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)
    table = score_folder(ScoringRequest(bundle=bundle, images=images, output=tmp_path / "out"))
    assert table.manifest["failures"] == {"too_large": 1, "unsupported": 2}
    assert table.manifest["scored"] == 2


def test_a_model_that_cannot_be_loaded_is_reported(request_: ScoringRequest, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(request_.bundle.folder, tmp_path / "bundle"))
    (copy / "preprocessing.json").write_text('{"spec": {}}')
    with pytest.raises(RequestError, match=r"preprocessing\.json"):
        score_folder(replace(request_, bundle=replace(request_.bundle, folder=copy)))
