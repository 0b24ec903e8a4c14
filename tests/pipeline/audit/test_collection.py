"""What an audit gets of a dataset in a store: splits, near duplicates, predictions, and files that fail."""

from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json, write_array
from pixelmill.pipeline.audit.collection import collect
from pixelmill.pipeline.audit.retraining import audit_retraining
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset, RawDataset, SplitName
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.recipes import load_recipe
from tests.pipeline.audit.planted import CLASSES, crops

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("collection")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    images = tmp_path_factory.mktemp("images")
    for name in CLASSES:
        (images / name).mkdir()
        for index, pixels in enumerate(crops(name, 20)):
            (images / name / f"{index:02}.png").write_bytes(encode_png(pixels))
    (images / "brick/copy.png").write_bytes((images / "brick/03.png").read_bytes())
    (images / "brick/near.png").write_bytes(encode_png(crops("brick", 20)[5] + 2))
    (images / "grass/brick.png").write_bytes((images / "brick/04.png").read_bytes())
    (images / "grass/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return load_recipe("folder", (f"dataset.path={images}", "dataset.max_unreadable_fraction=0.1"))


@pytest.fixture(scope="module")
def raw(recipe: Recipe, store: Path) -> RawDataset:
    return download_dataset(recipe.dataset, store)


@pytest.fixture(scope="module")
def prepared(raw: RawDataset, recipe: Recipe, store: Path) -> PreparedDataset:
    return prepare_dataset(raw, recipe, store)


def test_every_file_is_a_row_with_what_is_known(
    raw: RawDataset, recipe: Recipe, store: Path, prepared: PreparedDataset
) -> None:
    given = collect(raw, recipe, store, prepared)
    rows = {row["path"]: row for row in given.images.to_pylist()}
    assert len(rows) == len(given.images) == 64
    broken, both = rows["grass/broken.png"], rows["grass/brick.png"]
    assert broken["error"].startswith("corrupt")
    assert (broken["tensor"], broken["split"], broken["brightness"]) == (None, None, None)
    # No dataset uses it, so only the audit decodes it.
    assert (both["split"], both["error"]) == (None, None)
    assert both["tensor"] == rows["brick/04.png"]["tensor"]
    np.testing.assert_array_equal(given.tensors[[both["tensor"]]][0], crops("brick", 20)[4])
    assert rows["brick/copy.png"]["split"] == rows["brick/03.png"]["split"]
    assert rows["brick/near.png"]["component"] == rows["brick/05.png"]["component"]
    splits = [row["split"] for row in rows.values()]
    assert {name: splits.count(name) for name in prepared.counts} == prepared.counts


def test_without_splits_those_of_the_source_are_given(raw: RawDataset, recipe: Recipe, store: Path) -> None:
    assert collect(raw, recipe, store).images["split"].null_count == 64


def test_a_retraining_is_audited_again_with_its_predictions(
    raw: RawDataset, recipe: Recipe, store: Path, prepared: PreparedDataset, tmp_path: Path
) -> None:
    first = audit_retraining(raw, prepared, recipe, store, tmp_path)
    assert first.findings["label_error"] == ()
    predictions: dict[SplitName, Path] = {}
    splits: tuple[SplitName, ...] = ("validation", "test")
    for split in splits:
        labels = prepared.split(split).labels.copy()
        if split == "test":
            labels[0] = (labels[0] + 1) % 3
        probabilities = np.full((len(labels), 3), 0.01, np.float32)
        probabilities[np.arange(len(labels)), labels] = 0.98
        predictions[split] = tmp_path / f"{split}.npy"
        write_array(predictions[split], probabilities)
    audit_retraining(raw, prepared, recipe, store, tmp_path, predictions)
    findings = read_json(tmp_path / "audit.json")["findings"]
    (error,) = findings["label_error"]
    assert error["path"] == prepared.names("test")[0]
    assert error["sha256"] == prepared.rows("test", ["sha256"])["sha256"][0].as_py()
    assert [finding["path"] for finding in findings["duplicate"]] == ["brick/copy.png"]
    assert {finding["path"] for finding in findings["contradiction"]} == {"brick/04.png", "grass/brick.png"}
    assert len(findings["near_duplicate"]) == 1
