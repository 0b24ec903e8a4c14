"""Predictions reused from an earlier table: only the right ones, and none if anything differs."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.artifacts import MANIFEST, describe_files, sha256_of, write_json
from pixelmill.pipeline.bundles import LABELS_FILE, PREPROCESSING_FILE, ModelBundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.predictions.columns import Predictions, RunFacts, TableLayout
from pixelmill.pipeline.predictions.parts import file_facts, part_name, read_file_facts, writing_part
from pixelmill.pipeline.scoring import PredictionTable, ScoringPlan, ScoringRequest
from pixelmill.pipeline.scoring.listing import list_images
from pixelmill.pipeline.scoring.plan import describe_request, lock_output, plan_scoring
from pixelmill.pipeline.scoring.reuse import PreviousTable, index_previous
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.scoring.shards import find_part, growing_limits, write_shards
from pixelmill.pipeline.scoring.sources import ImageSource
from pixelmill.pipeline.scoring.worker.worker import Worker, score_shard
from pixelmill.pipeline.storage import local_path
from tests.conftest import update_manifest, write_images

COUNT = 11


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small shards, so that a table has several parts without thousands of images."""
    monkeypatch.setattr("pixelmill.pipeline.scoring.shards.FIRST_LIMIT", (4, 8 << 20))


@pytest.fixture
def request_(bundle: ModelBundle, tmp_path: Path) -> ScoringRequest:
    write_images(tmp_path / "images/a", COUNT - 4, seed=1)
    write_images(tmp_path / "images/b", 4, seed=2)
    return ScoringRequest(bundle=bundle, images=tmp_path / "images", output=tmp_path / "first", workers=1)


def score(request: ScoringRequest, output: str, **changes: Any) -> PredictionTable:
    """Score the same folder into another output."""
    return score_folder(replace(request, output=request.output.with_name(output), **changes))


def score_after(table: PredictionTable, request: ScoringRequest, **changes: Any) -> PredictionTable:
    """Score the folder with an earlier table."""
    return score(request, f"after {table.folder.name}", previous=table.folder, **changes)


def data(table: PredictionTable) -> pd.DataFrame:
    """The rows of a table without the columns of the run, which differ between tables."""
    return read_predictions(table.folder).drop(columns=["run_id", "scored_at"])


def counts(table: PredictionTable) -> tuple[int, int]:
    return table.manifest["reused"], table.manifest["computed"] + table.manifest["copied"]


def replace_bytes(file: Path) -> None:
    """Replace the pixels of a file, keeping its size, modification time and inode."""
    before = file.stat()
    random = np.random.default_rng(99)
    content = next(
        content
        for _ in range(10_000)
        if len(content := encode_png(random.integers(0, 256, (8, 8, 1), np.uint8))) == before.st_size
    )
    with file.open("r+b") as open_file:
        open_file.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert [after.st_size, after.st_mtime_ns, after.st_ino] == [
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    ]


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_an_unchanged_folder_is_reused_completely(request_: ScoringRequest, form: Any, top_k: int) -> None:
    whole = score(request_, "whole", top_k=top_k)
    first = score(request_, "first", top_k=top_k, format=form)
    assert counts(first) == (0, COUNT)
    assert len(list(whole.folder.glob("predictions/part-*"))) > 1
    again = score_after(first, request_, top_k=top_k)
    assert counts(again) == (COUNT, 0)
    assert again.manifest["previous"] == str(first.folder)
    assert again.manifest["run"]["run_id"] != first.manifest["run"]["run_id"]
    pd.testing.assert_frame_equal(data(again), data(whole))


def test_a_table_with_a_larger_top_k_gives_the_first_classes(request_: ScoringRequest) -> None:
    expected = data(score(request_, "two", top_k=2))
    for form in ("parquet", "csv"):
        first = score(request_, form, top_k=5, format=form)
        again = score_after(first, request_, top_k=2)
        assert counts(again) == (COUNT, 0)
        pd.testing.assert_frame_equal(data(again), expected)


def test_renamed_files_are_recognized_by_their_bytes(request_: ScoringRequest) -> None:
    first = score_folder(request_)
    before = data(first).set_index("image_sha256").drop(columns="image_path")
    (local_path(request_.images) / "b").rename(local_path(request_.images) / "moved")
    (local_path(request_.images) / "a/00000.png").rename(local_path(request_.images) / "zz.jpg")
    again = score_after(first, request_)
    assert counts(again) == (COUNT, 0)
    rows = data(again)
    assert {"moved/00003.png", "zz.jpg"} < set(rows["image_path"])
    after = rows.set_index("image_sha256").drop(columns="image_path")
    pd.testing.assert_frame_equal(after.sort_index(), before.sort_index())


def test_only_changed_files_are_computed(request_: ScoringRequest) -> None:
    first = score_folder(request_)
    replace_bytes(local_path(request_.images) / "a/00002.png")
    write_images(local_path(request_.images) / "new", 2, seed=5)
    (request_.images / "b/00001.png").unlink()
    again = score_after(first, request_)
    assert counts(again) == (COUNT - 2, 3)
    pd.testing.assert_frame_equal(data(again), data(score(request_, "whole")))


def test_failed_rows_are_retried(request_: ScoringRequest) -> None:
    bad = request_.images / "a/00001.png"
    good = bad.read_bytes()
    bad.write_bytes(b"broken")
    first = score_folder(request_)
    again = score_after(first, request_)
    assert counts(again) == (COUNT - 1, 1)
    assert again.manifest["failures"] == first.manifest["failures"] == {"not_an_image": 1}
    trusting = score(request_, "trusting", previous=first.folder, trust_mtime=True)
    assert counts(trusting) == (COUNT - 1, 1)
    bad.write_bytes(good)
    last = score_after(again, request_, trust_mtime=True)
    assert (counts(last), last.manifest["failed"]) == ((COUNT - 1, 1), 0)


def test_a_table_with_only_failed_rows_gives_nothing(request_: ScoringRequest) -> None:
    for file in request_.images.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:20])
    for form in ("parquet", "csv"):
        first = score(request_, form, format=form, top_k=2)
        again = score_after(first, request_, top_k=2)
        assert (again.manifest["reused"], again.manifest["failed"]) == (0, COUNT)


def test_duplicates_have_equal_rows_and_are_all_reused(request_: ScoringRequest) -> None:
    for number in range(6):
        shutil.copy(
            local_path(request_.images) / "a/00000.png",
            local_path(request_.images) / f"a/00000 copy {number}.png",
        )
    shutil.copy(local_path(request_.images) / "a/00000.png", local_path(request_.images) / "far from it.png")
    (request_.images / "bad.png").write_bytes(b"broken")
    (request_.images / "bad too.png").write_bytes(b"broken")
    first = score_folder(replace(request_, workers=1))
    # A block of a shard scores duplicates once; copies in other folders and failures may be in two blocks.
    assert counts(first) == (0, COUNT + 9)
    assert first.manifest["computed"] in range(COUNT + 1, COUNT + 4)
    duplicates = data(first).query("image_path.str.startswith('a/00000') or image_path == 'far from it.png'")
    assert len(duplicates) == 8
    assert len(duplicates.drop(columns="image_path").drop_duplicates()) == 1
    bad = data(first).query("status == 'failed'")
    assert bad["image_path"].tolist() == ["bad too.png", "bad.png"]
    assert bad["error"].nunique() == bad["image_sha256"].nunique() == 1
    for trust in (False, True):
        again = score(request_, f"trust {trust}", previous=first.folder, trust_mtime=trust)
        assert counts(again) == (COUNT + 7, 2)
        pd.testing.assert_frame_equal(data(again), data(first))


def test_duplicates_are_decoded_once(request_: ScoringRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def noted(content: bytes, *arguments: Any) -> Any:
        decoded.append(content)
        return decode(content, *arguments)

    monkeypatch.setattr("pixelmill.pipeline.decoding.guard.decode", noted)
    shutil.copytree(local_path(request_.images) / "a", local_path(request_.images) / "c")
    request_.work.mkdir(parents=True)
    facts = RunFacts("digits", "1", "0", "run", "now")
    bundle = request_.bundle
    worker = Worker(
        ScoringPlan(
            request_, facts, bundle.labels(), bundle.image_spec(), 0.0, ImageSource.of_folder(request_.images)
        )
    )
    images = list(list_images(request_.images))
    predictions, taken, _ = worker.predict(images)
    assert (len(images), len(decoded), len(set(decoded)), taken) == (2 * COUNT - 4, COUNT, COUNT, 0)
    half = COUNT - 4
    assert predictions.sha256[:half] == predictions.sha256[-half:]
    assert np.array_equal(predictions.class_indices[:half], predictions.class_indices[-half:])
    assert np.array_equal(predictions.probabilities[:half], predictions.probabilities[-half:])
    assert predictions.probabilities.min() > 0


@pytest.mark.parametrize("what", ["model_sha256", "preprocessing_sha256", "top_k"])
@pytest.mark.parametrize("trust", [False, True])
def test_an_incompatible_table_gives_nothing_and_is_reported(
    request_: ScoringRequest, what: str, trust: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = score_folder(request_)
    changes: dict[str, Any] = {"top_k": 2} if what == "top_k" else {}
    if what == "model_sha256":
        shutil.copytree(request_.bundle.folder, tmp_path / "bundle")
        path = tmp_path / "bundle" / request_.bundle.onnx_path.name
        model = onnx.load(path)
        model.doc_string += " Another one."
        onnx.save(model, path)
        changes["bundle"] = replace(request_.bundle, folder=tmp_path / "bundle", onnx_sha256=sha256_of(path))
    if what == "preprocessing_sha256":
        shutil.copytree(request_.bundle.folder, tmp_path / "bundle")
        with (tmp_path / "bundle" / PREPROCESSING_FILE).open("a") as file:
            file.write("\n")
        changes["bundle"] = replace(request_.bundle, folder=tmp_path / "bundle")
    again = score_after(first, request_, trust_mtime=trust, **changes)
    assert counts(again) == (0, COUNT)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"no prediction of {first.folder} can be reused: its {what} differs"
    ]


def test_a_compatible_table_is_reused_silently(
    request_: ScoringRequest, caplog: pytest.LogCaptureFixture
) -> None:
    score_after(score_folder(request_), request_)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("trust", [False, True])
def test_a_row_over_the_pixel_limit_is_not_reused(request_: ScoringRequest, trust: bool) -> None:
    (request_.images / "large.png").write_bytes(encode_png(np.zeros((20, 20, 1), np.uint8)))
    first = score_folder(request_)
    assert first.manifest["failed"] == 0
    again = score_after(first, request_, trust_mtime=trust, max_pixels=399)
    assert counts(again) == (COUNT, 1)
    assert again.manifest["failures"] == {"too_many_pixels": 1}
    enough = score(request_, "enough", previous=first.folder, trust_mtime=trust, max_pixels=400)
    assert counts(enough) == (COUNT + 1, 0)


def test_trusted_files_are_not_read(request_: ScoringRequest) -> None:
    first = score_folder(request_)
    for file in local_path(request_.images).rglob("*.png"):
        replace_bytes(file)
    trusting = score(request_, "trusting", previous=first.folder, trust_mtime=True)
    assert counts(trusting) == (COUNT, 0)
    pd.testing.assert_frame_equal(data(trusting), data(first))
    # Reused rows can be reused again from the table that reused them.
    once_more = score_after(trusting, request_, trust_mtime=True)
    assert counts(once_more) == (COUNT, 0)
    pd.testing.assert_frame_equal(data(once_more), data(first))
    careful = score(request_, "careful", previous=first.folder)
    assert counts(careful) == (0, COUNT)
    assert not set(data(careful)["image_sha256"]) & set(data(first)["image_sha256"])


@pytest.mark.parametrize("top_k", [1, 3])
def test_trusted_rows_have_all_their_classes(request_: ScoringRequest, top_k: int) -> None:
    first = score(request_, "first", top_k=3)
    again = score_after(first, request_, top_k=top_k, trust_mtime=True)
    assert counts(again) == (COUNT, 0)
    pd.testing.assert_frame_equal(data(again), data(score(request_, "whole", top_k=top_k)))


def touch(file: Path) -> None:
    after = file.stat().st_mtime_ns + 1
    os.utime(file, ns=(after, after))


def replace_by_another(file: Path) -> None:
    before = file.stat().st_mtime_ns
    beside = file.with_name("beside")
    shutil.copyfile(file, beside)
    os.utime(beside, ns=(before, before))
    beside.replace(file)


def grow(file: Path) -> None:
    before = file.stat().st_mtime_ns
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file, ns=(before, before))


def swap_names(file: Path) -> None:
    other, spare = file.with_name("00001.png"), file.with_name("spare")
    file.rename(spare)
    other.rename(file)
    spare.rename(other)


@pytest.mark.parametrize("change", [touch, replace_by_another, grow, swap_names])
def test_a_file_that_may_have_changed_is_read(request_: ScoringRequest, change: Any) -> None:
    file = local_path(request_.images) / "a/00000.png"
    first = score_folder(request_)
    replace_bytes(file)
    change(file)
    again = score_after(first, request_, trust_mtime=True)
    pd.testing.assert_frame_equal(data(again), data(score(request_, "whole")))
    assert again.manifest["computed"] == 1


def test_an_extreme_modification_time_is_trusted(request_: ScoringRequest) -> None:
    file = local_path(request_.images) / "a/00000.png"
    os.utime(file, ns=(10**19, 10**19))
    os.utime(local_path(request_.images) / "b/00000.png", ns=(-(10**17), -(10**17)))
    first = score_folder(request_)
    assert first.manifest["failed"] == 0
    assert counts(score_after(first, request_, trust_mtime=True)) == (COUNT, 0)


def test_a_table_records_the_facts_of_its_files(request_: ScoringRequest) -> None:
    table = score_folder(request_)
    facts = [read_file_facts(part) for part in sorted(local_path(table.folder).glob("predictions/part-*"))]
    assert np.concatenate(facts).tolist() == [list(image[1:4]) for image in list_images(request_.images)]


def test_times_are_trusted_only_if_the_table_records_them(request_: ScoringRequest) -> None:
    with pytest.raises(RequestError, match="`trust_mtime` without `previous`"):
        score(request_, "again", trust_mtime=True)
    first = score(request_, "csv", format="csv")
    with pytest.raises(RequestError, match=r"`trust_mtime` with .*predictions\.csv"):
        score_after(first, request_, trust_mtime=True)
    assert not request_.output.with_name("again").exists()
    # A table without file times is not an error, because its rows can be reused by their bytes.
    older = score_folder(request_)
    for part in local_path(older.folder).glob("predictions/part-*"):
        pd.read_parquet(part).to_parquet(part)
    update_manifest(local_path(older.folder))
    again = score_after(older, request_, trust_mtime=True)
    assert counts(again) == (COUNT, 0)


def test_a_folder_without_a_table_is_refused(request_: ScoringRequest, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for previous in (tmp_path / "empty", tmp_path / "gone", request_.bundle.folder):
        with pytest.raises(RequestError, match=str(previous)):
            score(request_, "again", previous=previous)
    with pytest.raises(RequestError, match="an earlier table"):
        score(request_, "again", previous=request_.images)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_damaged_table_is_refused(request_: ScoringRequest, form: Any) -> None:
    first = score(request_, "first", format=form)
    (file, *_) = sorted([*first.folder.glob("predictions/part-*"), *first.folder.glob("*.csv")])
    file.write_bytes(file.read_bytes()[100:])
    with pytest.raises(RequestError, match=f"`previous` {first.folder} cannot be read"):
        score_after(first, request_)


@pytest.mark.parametrize("trust", [False, True])
def test_a_table_without_one_of_its_parts_is_refused(request_: ScoringRequest, trust: bool) -> None:
    first = score_folder(request_)
    max(first.folder.glob("predictions/part-*")).unlink()
    with pytest.raises(RequestError, match=r"cannot be read \(.*part-\d+\.parquet, .* is missing"):
        score_after(first, request_, trust_mtime=trust)


@pytest.mark.parametrize("trust", [False, True])
def test_a_table_may_be_its_own_previous_table(request_: ScoringRequest, trust: bool) -> None:
    first = score_folder(request_)
    before = data(first)
    replace_bytes(local_path(request_.images) / "a/00000.png")
    touch(local_path(request_.images) / "a/00000.png")
    again = score_folder(replace(request_, previous=request_.output, trust_mtime=trust, fresh=True))
    assert counts(again) == (COUNT - 1, 1)
    assert data(again).iloc[1:].equals(before.iloc[1:])
    assert data(again)["image_sha256"][0] != before["image_sha256"][0]


def test_a_persistent_worker_uses_the_previous_table_of_its_run(request_: ScoringRequest) -> None:
    first = score_folder(request_)
    request = replace(request_, output=request_.output.with_name("shared"))
    for previous, reused in ((None, 0), (first.folder, 4), (None, 0)):
        # In this process, like a cluster's worker that scores shards of several runs.
        with lock_output(request.output):
            plan = plan_scoring(replace(request, previous=previous, fresh=True))
            shard = next(write_shards(plan, growing_limits()))
            result = score_shard(str(request.work), shard.number)
            assert (result.rows, result.reused) == (4, reused)
            assert find_part(plan, shard.number, shard.shard_key)
            shutil.rmtree(local_path(request.work) / "parts")
            (request.work / "run.json").unlink()


def test_true_labels_are_those_of_the_current_run(request_: ScoringRequest) -> None:
    images = local_path(request_.images)
    (images / "a").rename(images / "1")
    first = score(request_, "first", labels_from_folders=True)
    (local_path(request_.images) / "b").rename(local_path(request_.images) / "c")
    again = score_after(first, request_, labels_from_folders=True)
    assert counts(again) == (COUNT, 0)
    assert sorted(set(data(again)["true_label"])) == ["1", "c"]
    assert "true_label" not in data(score(request_, "without", previous=first.folder))


CLASSES = 5
# Hashes many of which share their first bytes, unlike those of real files.
DIGESTS = st.builds(
    bytes.__add__,
    st.sampled_from([bytes(8), b"\xff" * 8, bytes(7) + b"\1", b"\x80" + bytes(7)])
    | st.binary(min_size=8, max_size=8),
    st.sampled_from([bytes(24), b"\xff" * 24, bytes(23) + b"\1"]) | st.binary(min_size=24, max_size=24),
)


def table_of(
    folder: Path, digests: list[bytes], failed: int, top_k: int
) -> tuple[ScoringRequest, Predictions]:
    """A request with an earlier table whose rows have the given hashes; the last rows have failed."""
    write_json(folder / "model" / LABELS_FILE, [f"class {index}" for index in range(CLASSES)])
    write_json(folder / "model" / PREPROCESSING_FILE, {})
    request = ScoringRequest(
        bundle=ModelBundle(folder / "model", "digits", 1, "0" * 64),
        images=folder / "images",
        output=folder / "out",
        previous=folder / "previous",
        top_k=top_k,
    )
    predictions = Predictions([f"{number:06d}.png" for number in range(len(digests))], top_k)
    predictions.sha256 = [digest.hex() for digest in digests]
    predictions.errors = [None] * (len(digests) - failed) + ["corrupt: at its end"] * failed
    random = np.random.default_rng(len(digests))
    for place in range(len(digests)):
        predictions.class_indices[place] = random.permutation(CLASSES)[:top_k]
        predictions.probabilities[place] = np.sort(random.random(top_k, np.float32))[::-1]
        predictions.widths[place], predictions.heights[place] = random.integers(1, 9, 2)
    facts = RunFacts("digits", "1", "0" * 64, "run", "now")
    layout = TableLayout(request.top_k)
    with writing_part(folder / "previous/predictions" / part_name(0), layout, "key") as part:
        table = predictions.to_table(request.bundle.labels(), facts, layout)
        part.write(table, file_facts([(1, 2, 3)] * len(digests)))
    described = {"request": describe_request(request), "run": vars(facts)}
    files = describe_files(folder / "previous")
    write_json(folder / "previous" / MANIFEST, {"kind": "prediction-table", "files": files, **described})
    return request, predictions


@settings(max_examples=80, deadline=None)
@given(
    known=st.lists(DIGESTS, min_size=1, max_size=20, unique=True),
    others=st.lists(DIGESTS, max_size=10),
    failed=st.integers(0, 3),
    top_k=st.integers(1, 3),
    random=st.randoms(use_true_random=False),
)
def test_no_image_gets_the_prediction_of_other_bytes(
    known: list[bytes],
    others: list[bytes],
    failed: int,
    top_k: int,
    random: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    failed = min(failed, len(known))
    request, table = table_of(tmp_path_factory.mktemp("previous"), known, failed, top_k)
    index_previous(request)
    requested = [*known, *others]
    random.shuffle(requested)
    predictions = Predictions([f"new {number}.png" for number in range(len(requested))], top_k)
    predictions.sha256 = [digest.hex() for digest in requested]
    places = [place for place in range(len(requested)) if place % 5]
    taken = PreviousTable(request).take_same_bytes(places, predictions)
    assert taken <= set(places)
    scored = known[: len(known) - failed]
    prefixes = [digest[:8] for digest in scored]
    for place, digest in enumerate(requested):
        if place in taken:
            source = scored.index(digest)
            for column in ("class_indices", "probabilities", "widths", "heights"):
                assert np.array_equal(getattr(predictions, column)[place], getattr(table, column)[source])
        else:
            assert predictions.widths[place] == predictions.probabilities[place].max() == 0
            # Only one of several hashes with the same first bytes is found; the others are computed again.
            assert place not in places or digest not in scored or prefixes.count(digest[:8]) > 1
    assert not any(predictions.errors)


def test_an_empty_request_reads_nothing_of_an_earlier_table(tmp_path: Path) -> None:
    request, _ = table_of(tmp_path, [bytes(32)], 0, 1)
    index_previous(request)
    assert PreviousTable(request).take_same_bytes([], Predictions([], 1)) == set()
    assert PreviousTable(request).take_unchanged([], Predictions([], 1)) == set()
