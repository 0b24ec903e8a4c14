"""Recipes suggested for five kinds of folders: what they say, and that they train."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.suggestion.recipe_text import write_recipe
from pixelmill.pipeline.suggestion.survey import survey_folder
from pixelmill.pipeline.training.trainer import train_model
from tests.conftest import Run

Sizes = Callable[[int], tuple[int, int]]


def write_folder(
    folder: Path, classes: int, per_class: Callable[[int], int], sizes: Sizes, mode: str
) -> Path:
    """Write images of smooth noise; the classes differ in their mean level."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class-{label:04d}").mkdir(parents=True)
        for number in range(per_class(label)):
            coarse = rng.integers(0, 120, (4, 4, 3)) + 120 * label // classes
            image = Image.fromarray(coarse.astype(np.uint8)).convert(mode)
            image.resize(sizes(number)).save(folder / f"class-{label:04d}/{number:03d}.jpg", quality=90)
    return folder


def icons(folder: Path) -> Path:
    return write_folder(folder, 3, lambda label: 20, lambda number: (24, 24), "RGB")


def photographs(folder: Path) -> Path:
    shapes = ((320, 180), (180, 240), (200, 200))
    return write_folder(
        folder, 3, lambda label: (90, 40, 30)[label], lambda number: shapes[number % 3], "RGB"
    )


def scans(folder: Path) -> Path:
    return write_folder(folder, 2, lambda label: 25, lambda number: (150, 200 + 40 * (number % 3)), "L")


def ten_a_class(folder: Path) -> Path:
    return write_folder(folder, 4, lambda label: 10, lambda number: (300, 225), "RGB")


def thousand_classes(folder: Path) -> Path:
    return write_folder(folder, 1000, lambda label: 3, lambda number: (40, 40), "RGB")


def suggest(folder: Path, weights: str = "imagenet") -> tuple[Recipe, str]:
    text = write_recipe(survey_folder(str(folder)), weights)
    path = folder.with_suffix(".yaml")
    path.write_text(text)
    return load_recipe(str(path)), text


def test_small_icons_keep_their_size(tmp_path: Path) -> None:
    recipe, text = suggest(icons(tmp_path / "icons"))
    assert (recipe.image.height, recipe.image.width, recipe.image.channels) == (24, 24, 3)
    assert recipe.training.head is None
    assert recipe.training.augmentation.flip == "none"
    assert "60 images in 3 classes of 20 to 20; median 24x24 pixels" in text


def test_photographs_start_from_a_pretrained_network(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photographs")
    recipe, text = suggest(folder)
    assert recipe.model.layers[0].model_dump()["weights"] == "imagenet"
    assert recipe.training.head is not None
    assert (recipe.image.resize, recipe.training.class_weights) == ("stretch", "balanced")
    assert "3.0 times the images of the smallest" in text
    plain, _ = suggest(folder, "none")
    assert (plain.image.height, plain.training.head) == (64, None)


def test_grey_scans_have_one_channel_and_are_not_mirrored(tmp_path: Path) -> None:
    recipe, text = suggest(scans(tmp_path / "scans"))
    assert (recipe.image.channels, recipe.image.resize) == (1, "pad")
    assert recipe.training.augmentation.flip == "none"
    assert "100% without colour" in text


def test_with_ten_images_a_class_the_network_stays_as_it_is(tmp_path: Path) -> None:
    recipe, _ = suggest(ten_a_class(tmp_path / "few"))
    assert recipe.model.layers[0].model_dump()["frozen_layers"] == "all"
    assert recipe.dataset.model_dump()["validation_fraction"] == 0.2


@pytest.mark.parametrize("write", [icons, photographs, scans, ten_a_class])
def test_every_choice_has_a_comment(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    _, text = suggest(write(tmp_path / "images"))
    lines = [line.strip() for line in text.splitlines()]
    chosen = ("height:", "channels:", "resize:", "early_stopping:", "augmentation:", "label_smoothing:")
    for name in chosen:
        (at,) = [number for number, line in enumerate(lines) if line.startswith(name)]
        assert lines[at - 1].startswith("# "), name


TRAINED = [
    (icons, ()),
    (scans, ()),
    (photographs, ("model.layers.0.weights=null", "image.height=64", "image.width=64")),
    (ten_a_class, ("model.layers.0.weights=null", "image.height=64", "image.width=64")),
    pytest.param(thousand_classes, (), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("write", "overrides"), TRAINED)
def test_the_recipe_trains(tmp_path: Path, write: Callable[[Path], Path], overrides: tuple[str, ...]) -> None:
    folder = write(tmp_path / "images")
    suggest(folder)
    given = load_recipe(str(folder.with_suffix(".yaml")), overrides)
    head = "training.head={epochs: 1}" if given.training.head else "training.head=null"
    recipe = load_recipe(
        str(folder.with_suffix(".yaml")),
        (*overrides, head, "training.epochs=1", "dataset.near_duplicates=false"),
    )
    dataset = prepare_dataset(download_dataset(recipe.dataset, tmp_path), recipe, tmp_path)
    model = run_in_spawned_process(train_model, dataset, recipe, tmp_path / "run", tmp_path / "state.npz")
    assert model.epochs == 1 + (given.training.head is not None)


def test_the_command_writes_a_recipe_and_never_replaces_a_file(run: Run, tmp_path: Path) -> None:
    folder, target = icons(tmp_path / "icons"), tmp_path / "icons.yaml"
    done = run("recipes", "suggest", folder, "--output", target)
    assert done.code == 0, done.errors
    assert load_recipe(str(target)).name == "icons"
    assert "pixelmill retrain" in done.output
    again = run("recipes", "suggest", folder, "--output", target)
    assert (again.code, "exists; expected a new file" in again.last_error) == (2, True)
    described = json.loads(run("recipes", "suggest", folder, "--json").output)
    assert described["folder"]["images"] == 60


def test_a_bad_folder_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    for name in ("a", "b"):
        (damaged / name).mkdir(parents=True)
        for number in range(3):
            (damaged / name / f"{number}.jpg").write_bytes(b"no image")
    for folder in (tmp_path / "missing", tmp_path / "empty", damaged):
        done = run("recipes", "suggest", folder)
        assert done.code == 2
        assert done.output == ""
        assert "; expected " in done.last_error
        assert "Traceback" not in done.errors
