"""Changes of images, and what is measured of them."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.datasets import Labels, PreparedDataset
from pixelmill.pipeline.evaluation.metrics_file import Robustness
from pixelmill.pipeline.evaluation.perturbations import PERTURBATIONS, Perturbation
from pixelmill.pipeline.evaluation.robustness import measure_robustness
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.recipes import load_recipe
from tests.datasets import prepare_test_images

CHANGES = {each.change: each for each in PERTURBATIONS}


@pytest.mark.parametrize("change", PERTURBATIONS, ids=lambda each: each.change)
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 20, 3), (48, 64, 1)])
def test_a_change_keeps_the_shape_and_grows_with_its_level(
    change: Perturbation, shape: tuple[int, int, int]
) -> None:
    rows, columns = np.indices(shape[:2])
    image = (90 + 80 * np.sin(rows / 3) + 40 * np.cos(columns / 2)).astype(np.uint8)
    pixels = np.repeat(image[np.newaxis, ..., np.newaxis], shape[2], axis=3).repeat(4, axis=0)
    levels = change.levels(min(shape[:2]))
    differences = []
    for level in levels:
        changed = change.apply(pixels, level)
        assert changed.shape == pixels.shape
        assert changed.dtype == np.uint8
        differences.append(np.abs(changed.astype(int) - pixels).mean())
    if change.change in ("shift", "noise", "blur"):
        assert all(first < second for first, second in itertools.pairwise(differences))
    if change.change == "JPEG":
        assert differences[0] < differences[-1]


def test_a_shift_moves_pixels_in_four_directions_and_repeats_the_edge() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    right, left, down, up = CHANGES["shift"].apply(pixels, 2)
    assert (right[:, 2:] == pixels[0][:, :-2]).all()
    assert (right[:, :2] == pixels[0][:, :1]).all()
    assert (left[:, :-2] == pixels[1][:, 2:]).all()
    assert (down[2:] == pixels[2][:-2]).all()
    assert (up[:-2] == pixels[3][2:]).all()


def test_a_rotation_by_180_degrees_turns_the_image_over() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    turned = CHANGES["rotation"].apply(pixels, 180)
    assert np.abs(turned.astype(int) - pixels[:, ::-1, ::-1]).max() <= 2


def dots(folder: Path) -> PreparedDataset:
    """Files with a bright square in the upper or in the lower half, which is the class."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (60, 32, 32, 1), np.uint8)
    labels = [index % 2 for index in range(60)]
    for image, label in zip(pixels, labels, strict=True):
        image[16 * label + 5 : 16 * label + 11, 13:19] = 255
    folder.mkdir()
    files = [str(folder / f"{index}.png") for index in range(60)]
    dataset = prepare_test_images(folder / "store", pixels, labels, files, ("upper", "lower"))
    for file, image in zip(files, pixels, strict=True):
        Path(file).write_bytes(encode_png(image))
    return dataset


def half(pixels: Pixels) -> Labels:
    """The class of the brighter half."""
    sums = pixels.reshape(len(pixels), 2, -1).sum(axis=2, dtype=np.int64)
    classes: Labels = sums.argmax(axis=1)
    return classes


def unchanged(found: Robustness, change: str) -> dict[float | None, float]:
    (series,) = (series for series in found.series if series.change == change)
    return {row.level: row.unchanged for row in series.levels}


def test_invariance_to_shifts_and_its_lack_for_rotations_are_seen(tmp_path: Path) -> None:
    dataset = dots(tmp_path / "dots")
    recipe = load_recipe("digits", ["image.height=32", "image.width=32"])
    found = measure_robustness(half, dataset, recipe)
    assert found is not None
    assert (found.images, found.accuracy) == (60, 1)
    assert set(unchanged(found, "shift").values()) == {1}
    turned = unchanged(found, "rotation")
    assert (turned[5], turned[180]) == (1, 0)
    for series in found.series:
        for row in series.levels:
            # The model is right about every image, so a changed label is a wrong one.
            assert (row.accuracy, row.accuracy_interval) == (row.unchanged, row.unchanged_interval)
            assert row.accuracy_interval.low <= row.accuracy <= row.accuracy_interval.high


def test_files_are_decoded_by_opencv_unless_they_are_gone_or_changed(tmp_path: Path) -> None:
    dataset = dots(tmp_path / "dots")
    (tmp_path / "dots/0.png").unlink()
    (tmp_path / "dots/1.png").write_bytes((tmp_path / "dots/2.png").read_bytes())
    (tmp_path / "dots/3.png").write_bytes(b"no image")
    recipe = load_recipe("digits", ["image.height=32", "image.width=32", "evaluation.robustness_images=55"])
    found = measure_robustness(half, dataset, recipe)
    assert found is not None
    row = next(series for series in found.series if series.change == "decoding by OpenCV").levels[0]
    assert found.images == 55
    assert 52 <= row.images <= 55
    assert (row.level, row.unchanged) == (None, 1)


def test_a_recipe_may_ask_for_no_measurement_and_a_large_network_gets_few_images(tmp_path: Path) -> None:
    dataset = dots(tmp_path / "dots")
    size = ["image.height=32", "image.width=32"]
    assert (
        measure_robustness(half, dataset, load_recipe("digits", [*size, "evaluation.robustness_images=0"]))
        is None
    )
    large = load_recipe("digits", [*size, "model.layers.0.filters=20000"])
    found = measure_robustness(half, dataset, large)
    assert found is not None
    assert found.images == 50
