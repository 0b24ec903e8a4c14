"""Transfer learning in two phases: features once, then the head, then all layers."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.training import TrainedModel, callbacks, read_history
from pixelmill.pipeline.training.callbacks import TrainingProgress
from pixelmill.pipeline.training.checkpoints import completed_epochs
from pixelmill.pipeline.training.features import FEATURES_FOLDER
from pixelmill.pipeline.training.trainer import train_model
from tests.pipeline.training.test_trainer import weights_sha256
from tests.pipeline.training.textures import write_textures

pytestmark = pytest.mark.xdist_group("phases")
NAMES = ("brick", "grass", "page")
SMALL = (
    *("image.height=32", "image.width=32", "model.layers.0.name=MobileNet", "model.layers.0.weights=null"),
    *("training.head.epochs=3", "training.epochs=2", "training.early_stopping=null"),
)


def recipe_for(folder: Path, *overrides: str) -> Recipe:
    return load_recipe("photos", (f"dataset.path={folder}", "name=textures", *SMALL, *overrides))


def prepare(recipe: Recipe, store: Path) -> PreparedDataset:
    return prepare_dataset(download_dataset(recipe.dataset, store), recipe, store)


@dataclass(frozen=True)
class Phases:
    """What several runs made of the same images.

    Attributes:
        whole: A run without interruption.
        resumed: The same run after two kills, one in each phase.
        after_kills: The epochs in the checkpoint after each kill.
        features: The modification times of the parts of the features after each kill, and at the end.
        frozen: Whether the network's statistics are those that it started with.
        worse: A run whose second phase made the validation loss worse.
        reports: The progress of the whole run.
    """

    whole: TrainedModel
    resumed: TrainedModel
    after_kills: tuple[int, int]
    features: list[dict[str, int]]
    frozen: bool
    worse: TrainedModel
    reports: list[TrainingProgress]


def part_times(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in store.glob(f"{FEATURES_FOLDER}/*/*.npy")}


def train_until(
    dataset: PreparedDataset, recipe: Recipe, folder: Path, checkpoint: Path, place: tuple[str, int]
) -> None:
    callbacks._SECONDS_BETWEEN_REPORTS = 0

    def die(progress: TrainingProgress) -> None:
        if (progress.phase, progress.epoch) == place:
            os.kill(os.getpid(), signal.SIGKILL)

    train_model(dataset, recipe, folder, checkpoint, die)


def is_frozen(model: TrainedModel) -> bool:
    """Whether every batch normalization of the application still has the statistics of a new network."""
    import keras

    from pixelmill.pipeline.training.pretrained import nested_network

    inner = nested_network(keras.saving.load_model(model.model_path, compile=False))
    layers = [layer for layer in inner.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return bool(layers) and all(
        np.all(np.asarray(layer.moving_mean) == 0) and np.all(np.asarray(layer.moving_variance) == 1)
        for layer in layers
    )


def train_whole(
    dataset: PreparedDataset, recipe: Recipe, worse: Recipe, store: Path
) -> tuple[TrainedModel, TrainedModel, bool, list[TrainingProgress]]:
    callbacks._SECONDS_BETWEEN_REPORTS = 0
    reports = list[TrainingProgress]()
    whole = train_model(dataset, recipe, store / "whole", store / "whole.npz", reports.append)
    second = train_model(dataset, worse, store / "worse", store / "worse.npz")
    return whole, second, is_frozen(whole), reports


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> Phases:
    store = tmp_path_factory.mktemp("phases")
    images = write_textures(store / "textures", names=NAMES)
    recipe = recipe_for(images)
    worse = recipe_for(images, "training.early_stopping=5", "training.learning_rate.peak=1")
    dataset = prepare(recipe, store)
    checkpoint, kills, features = store / "checkpoints/killed.npz", [], []
    for place in (("head, ", 2), ("", 2)):
        with pytest.raises(WorkError, match="died"):
            run_in_spawned_process(train_until, dataset, recipe, store / "killed", checkpoint, place)
        kills.append(completed_epochs(checkpoint))
        features.append(part_times(store))
    resumed = run_in_spawned_process(train_model, dataset, recipe, store / "killed", checkpoint)
    whole, second, frozen, reports = run_in_spawned_process(train_whole, dataset, recipe, worse, store)
    features.append(part_times(store))
    return Phases(whole, resumed, (kills[0], kills[1]), features, frozen, second, reports)


def test_both_phases_are_in_the_history(phases: Phases) -> None:
    rows = read_history(phases.whole)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert (phases.whole.epochs, phases.whole.chosen_epoch) == (5, 5)
    # Each phase has its own rate.
    assert max(row["learning_rate"] for row in rows[:3]) > 0.0005
    assert max(row["learning_rate"] for row in rows[3:]) <= 0.0002
    assert {progress.phase for progress in phases.reports} == {"head, ", ""}


def test_a_run_killed_in_each_phase_ends_with_the_same_weights(phases: Phases) -> None:
    assert phases.after_kills == (1, 4)
    assert weights_sha256(phases.resumed) == weights_sha256(phases.whole)
    assert read_json(phases.resumed.folder / "manifest.json")["resumed_after_epoch"] == 4


def test_features_are_computed_once(phases: Phases) -> None:
    first, *later = phases.features
    assert set(first) == {"train-00000.npy", "validation-00000.npy"}
    assert all(times == first for times in later)


def test_the_application_keeps_its_statistics(phases: Phases) -> None:
    assert phases.frozen
    assert phases.whole.normalization is None


def test_a_second_phase_that_makes_it_worse_does_not_count(phases: Phases) -> None:
    losses = [row["val_loss"] for row in read_history(phases.worse)]
    assert phases.worse.chosen_epoch <= 3
    assert losses[phases.worse.chosen_epoch - 1] == min(losses)
    assert phases.worse.validation_loss == pytest.approx(min(losses), rel=1e-3)


def test_a_head_needs_an_application() -> None:
    with pytest.raises(RequestError, match="application as the first layer"):
        load_recipe("folder", ["training.head={epochs: 3}"])
