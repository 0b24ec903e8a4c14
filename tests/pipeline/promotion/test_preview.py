"""What would change in production: a sample of the last batch, predicted before the alias moves."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import MANIFEST, read_json
from pixelmill.pipeline.config import PromotionSpec
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.promotion import TestImages, VersionRefused, judge_bundle, promote_bundle
from pixelmill.pipeline.registry import aliases_of, find_bundle, promote_version
from pixelmill.pipeline.scoring import PredictionTable, ScoringRequest, production_sample
from pixelmill.pipeline.scoring.production_sample import (
    SAMPLE_FILE,
    keep_production_sample,
    read_production_sample,
)
from pixelmill.pipeline.scoring.run import score_folder
from pixelmill.pipeline.storage import Location, parse_location
from tests.pipeline.promotion.versions import register, write_images

LABELS = [0, 1, 2] * 40
BATCH = 300
# The batch has 300 images with the numbers 1000 to 1299.
FIRST = 1000


def predicting(changed: int) -> list[int]:
    """Predictions that are right for the test images, and another class for some of the batch."""
    batch = [(number + (number - FIRST < changed)) % 3 for number in range(FIRST, FIRST + BATCH)]
    return [number % 3 for number in range(FIRST)] + batch


def score(store: Location, root: Path, reference: str, **options: Any) -> PredictionTable:
    """Score the batch, and one file that is no image."""
    images = root / "batch"
    images.mkdir(exist_ok=True)
    for number in range(FIRST, FIRST + BATCH):
        pixels = np.array([[[number // 256], [number % 256]]], np.uint8)
        (images / f"{number}.png").write_bytes(encode_png(pixels))
    (images / "broken.png").write_bytes(b"no image")
    bundle = find_bundle(store, reference)
    request = ScoringRequest(bundle=bundle, images=images, output=root / "table", workers=1, **options)
    table = score_folder(request)
    keep_production_sample(store, reference, table)
    return table


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store whose champion has scored a batch; copied by each test."""
    root = tmp_path_factory.mktemp("scored")
    register(root / "store", predicting(0))
    promote_version(root / "store", "pets", 1, "champion")
    score(root / "store", root, "pets@champion")
    return root


@pytest.fixture
def store(scored: Path, tmp_path: Path) -> Path:
    shutil.copytree(scored / "store", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def test_images(tmp_path: Path) -> TestImages:
    return write_images(tmp_path / "images", LABELS)


def test_the_sample_lists_scored_images_and_their_batch(store: Path, scored: Path) -> None:
    sample = read_production_sample(store, "pets")
    assert sample is not None
    assert sample.paths == tuple(f"{number}.png" for number in range(FIRST, FIRST + BATCH))
    assert sample.batch.scored == BATCH
    assert (sample.batch.model, sample.batch.alias) == ("pets@1", "champion")
    assert sample.batch.images == str(scored / "batch")


def test_the_changes_of_a_whole_batch_are_counted(store: Path, test_images: TestImages) -> None:
    judgement = judge_bundle(store, register(store, predicting(30)), PromotionSpec(), test_images)
    preview = judgement.preview
    assert preview is not None
    assert (preview.images, preview.missing, preview.changed, preview.share) == (300, 0, 30, 0.1)
    assert preview.interval == (0.1, 0.1), "the sample is the whole batch"
    assert [(change.before, change.after, change.images) for change in preview.changes] == [
        ("dog", "fish", 10),
        ("fish", "cat", 10),
        ("cat", "dog", 10),
    ]
    assert len(preview.examples) == 24
    assert all(example.picture.startswith("data:image/png;base64,") for example in preview.examples)
    facts = judgement.to_json()["preview"]
    assert facts["changed"] == 30
    assert "picture" not in facts["examples"][0]


@pytest.mark.parametrize(("limit", "is_refused"), [(0.09, True), (0.1, False)])
def test_too_many_changed_labels_are_refused(
    limit: float, is_refused: bool, store: Path, test_images: TestImages
) -> None:
    spec = PromotionSpec(max_changed_labels=limit)
    bundle = register(store, predicting(30))
    if not is_refused:
        assert promote_bundle(store, bundle, spec, test_images).replaced == 1
        return
    with pytest.raises(VersionRefused, match=r"gives 10\.00% of the last production batch another label"):
        promote_bundle(store, bundle, spec, test_images)
    assert aliases_of(store, "pets") == {"champion": 1}


def test_images_that_are_gone_or_have_changed_are_counted(
    scored: Path, store: Path, test_images: TestImages, tmp_path: Path
) -> None:
    images = scored / "batch"
    moved = [images / f"{FIRST + number}.png" for number in range(100)]
    for path in moved:
        path.rename(tmp_path / path.name)
    (images / f"{FIRST + 100}.png").write_bytes(encode_png(np.zeros((1, 2, 1), np.uint8)))
    try:
        spec = PromotionSpec(max_changed_labels=0.26)
        judgement = judge_bundle(store, register(store, predicting(160)), spec, test_images)
    finally:
        for path in moved:
            (tmp_path / path.name).rename(path)
    preview = judgement.preview
    assert preview is not None
    assert (preview.images, preview.missing, preview.changed) == (199, 101, 59)
    assert preview.interval == interval_of_proportion(59, 199)
    # 29.6%, but the interval begins at 23.7%, so chance may be the reason.
    assert judgement.verdicts[-1].verdict == "passed"
    assert judgement.verdicts[-1].interval == preview.interval


def test_without_a_sample_the_bar_is_not_judged(store: Path, test_images: TestImages) -> None:
    path = store / "models/pets" / SAMPLE_FILE
    path.write_bytes(b"damaged")
    spec = PromotionSpec(max_changed_labels=0.0)
    judgement = judge_bundle(store, register(store, predicting(30)), spec, test_images)
    assert judgement.preview is None
    assert judgement.refusal is None
    assert judgement.verdicts[-1].verdict == "not judged"


def test_a_batch_scored_by_number_or_by_folder_leaves_no_sample(
    scored: Path, tmp_path: Path, test_images: TestImages
) -> None:
    table = PredictionTable(scored / "table", {})
    register(tmp_path / "other", predicting(0))
    for reference in ("pets@1", "pets@nobody", str(tmp_path / "other/models/pets/1")):
        keep_production_sample(tmp_path / "other", reference, table)
    assert not (tmp_path / "other/models/pets" / SAMPLE_FILE).exists()


def test_a_sample_that_cannot_be_written_does_not_fail_the_scoring(scored: Path, store: Path) -> None:
    path = store / "models/pets" / SAMPLE_FILE
    path.unlink()
    path.mkdir()
    (path / "in the way").touch()
    table = PredictionTable(scored / "table", read_json(scored / "table" / MANIFEST))
    keep_production_sample(store, "pets@champion", table)
    assert (path / "in the way").exists()


def test_a_large_batch_is_sampled_uniformly_and_in_csv_as_well(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(production_sample, "MOST_IMAGES", 60)
    store = tmp_path / "store"
    shutil.copytree(scored / "store", store)
    score(store, tmp_path, "pets@champion", format="csv")
    sample = read_production_sample(store, "pets")
    assert sample is not None
    assert len(set(sample.paths)) == 60
    assert sample.paths == tuple(sorted(sample.paths))
    # A uniform sample of 60 has between 15 and 45 of each half, but for one in a million.
    half = sum(int(path.removesuffix(".png")) < FIRST + BATCH // 2 for path in sample.paths)
    assert 15 <= half <= 45


@pytest.mark.slow
def test_the_sample_of_a_model_in_an_object_store(s3_store: str, tmp_path: Path) -> None:
    store = parse_location(s3_store)
    register(store, predicting(0), work=tmp_path)
    promote_version(store, "pets", 1, "champion")
    score(store, tmp_path, "pets@champion")
    new = register(store, predicting(6), work=tmp_path)
    test = write_images(tmp_path / "images", LABELS)
    judgement = judge_bundle(store, new, PromotionSpec(), test)
    assert judgement.preview is not None
    assert judgement.preview.changed == 6
