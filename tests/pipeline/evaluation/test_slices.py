"""Slices of the test images, and which of them are found to be worse than the others."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.datasets import ROWS_FILE, PreparedDataset
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.evaluation.slices import measure_slices
from tests.datasets import prepare_test_images

COUNT = 200


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Images of noise, half of them dark, with further columns."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (COUNT, 8, 8, 1), np.uint8)
    pixels[::2] //= 4
    names = [f"{index}.png" for index in range(COUNT)]
    store = tmp_path_factory.mktemp("slices")
    found = prepare_test_images(store, pixels, [0, 1] * (COUNT // 2), names, ("cat", "dog"))
    rows = pq.read_table(found.folder / ROWS_FILE)
    columns = {
        "camera": ["north" if index % 4 < 2 else "south" for index in range(COUNT)],
        "altitude": [None if index == 0 else str(index / 4) for index in range(COUNT)],
        "photographer": [None if index < 8 else " " if index < 10 else "ada" for index in range(COUNT)],
        "identifier": names,
        "constant": ["same"] * COUNT,
    }
    for name, values in columns.items():
        rows = rows.append_column(f"slice:{name}", pa.array(values, pa.string()))
    pq.write_table(rows, found.folder / ROWS_FILE)
    return found


def test_a_slice_has_the_accuracy_on_its_images(dataset: PreparedDataset) -> None:
    right = np.arange(COUNT) % 5 > 0
    groups = {group.property: group.slices for group in measure_slices(dataset, right)}
    # The size, and the columns with the same or with a different value for every image, have no slices.
    assert list(groups) == [
        "class",
        "brightness",
        "contrast",
        "sharpness",
        "column camera",
        "column altitude",
        "column photographer",
    ]
    north = groups["column camera"][0]
    assert (north.value, north.images) == ("north", COUNT // 2)
    correct = int(right[[index for index in range(COUNT) if index % 4 < 2]].sum())
    assert north.accuracy == correct / (COUNT // 2)
    assert north.accuracy_interval == interval_of_proportion(correct, COUNT // 2)
    for slices in groups.values():
        assert sum(each.images for each in slices) == COUNT
    assert [each.value for each in groups["column photographer"]] == ["(none)", "ada"]
    altitudes = {each.value: each.images for each in groups["column altitude"]}
    assert altitudes == {
        "0.25 to 10": 39,
        "10 to 20": 40,
        "20 to 29.8": 39,
        "29.8 to 39.8": 40,
        "39.8 to 49.8": 41,
        "(none)": 1,
    }


def test_a_slice_of_dark_images_that_are_predicted_worse_is_found(dataset: PreparedDataset) -> None:
    rng = np.random.default_rng(0)
    is_dark = np.arange(COUNT) % 2 == 0
    right = rng.random(COUNT) < np.where(is_dark, 0.5, 0.95)
    below = {
        (group.property, each.value)
        for group in measure_slices(dataset, right)
        for each in group.slices
        if each.is_below
    }
    # Every other image is dark, and every other image is a cat.
    assert ("class", "cat") in below
    assert len([value for name, value in below if name == "brightness"]) >= 1
    assert {name for name, _ in below} <= {"class", "brightness", "contrast"}


def test_hardly_any_slice_is_found_where_all_are_alike(
    dataset: PreparedDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        groups = measure_slices(dataset, rng.random(COUNT) < 0.8)
        alarms += any(each.is_below for group in groups for each in group.slices)
    with capsys.disabled():
        print(f"\n{alarms} of 200 models that are equally good everywhere have a slice that is marked")
    assert alarms <= 10
