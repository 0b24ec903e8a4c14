"""The effect of each training setting, and that interrupted training ends like uninterrupted training."""

import hashlib
import os
import shutil
import signal
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pixelmill.pipeline.artifacts import read_json, sha256_of
from pixelmill.pipeline.config import LearningRate, TrainingSpec
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training import TrainedModel, callbacks, read_history
from pixelmill.pipeline.training.callbacks import TrainingProgress
from pixelmill.pipeline.training.checkpoints import completed_epochs
from pixelmill.pipeline.training.schedules import build_optimizer
from pixelmill.pipeline.training.trainer import explain_out_of_memory, train_model
from tests.pipeline.training.recipes import digits, small_recipe

pytestmark = pytest.mark.xdist_group("training")
STEPS = 100


@dataclass(frozen=True)
class Trained:
    """The results of one process, so that Keras is loaded only once."""

    rates: dict[str, list[float]]
    models: dict[str, TrainedModel]
    dtypes: dict[str, str]
    kernels: dict[str, npt.NDArray[np.float32]]
    evaluated: dict[str, tuple[float, float]]
    """The loss and accuracy of the saved model on the validation split, computed by Keras."""
    normalized: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
    """The channel means of the first convolution on the training split, and the stored statistics."""
    reports: list[TrainingProgress]
    diverged: str
    out_of_memory: str


TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "several steps a call": {"steps_per_execution": 16},
    "averaged, mixed precision": {"precision": "mixed_bfloat16", "ema_momentum": 0.98, "optimizer": "sgd"},
    "stopped early": {"epochs": 50, "early_stopping": 1, "learning_rate": {"peak": 0.3}},
    "passing channels on": {"initialization": "dirac", "learning_rate": {"peak": 0.001}},
    # Everything with a state: random layers, a schedule, averages, early stopping, and shuffling.
    "everything": {
        "epochs": 3,
        "ema_momentum": 0.9,
        "early_stopping": 2,
        "label_smoothing": 0.1,
        "learning_rate": {"schedule": "one_cycle"},
        "augmentation": {"shift": 0.1, "rotation": 10, "cutout": 0.2, "mixup": 0.2},
    },
    # Every option of the optimizer and the loss, with gradients of different lengths to accumulate and clip.
    "every option": {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": {"find": True},
        "clip_norm": 1.0,
        "accumulate_steps": 3,
        "loss": "focal",
        "class_weights": "balanced",
        "label_smoothing": 0.1,
        "ema_momentum": 0.9,
        "early_stopping": 4,
        "max_minutes": 60.0,
        "augmentation": {
            "crop": 0.2,
            "policy": "randaugment",
            "policy_strength": 0.1,
            "brightness": 0.2,
            "erasing": 0.1,
            "cutmix": 1.0,
        },
    },
}


def train_all(store: Path) -> Trained:
    dataset, reports = digits(store), list[TrainingProgress]()
    models = {
        name: train_model(
            dataset,
            small_recipe(**fields),
            store / name,
            store / f"checkpoints/{name}.npz",
            reports.append,
        )
        for name, fields in TRAININGS.items()
    }
    # Killed after the last epoch, before the model was saved.
    everything, checkpoint = small_recipe(**TRAININGS["everything"]), store / "checkpoints/everything.npz"
    models["taken up at its end"] = train_model(dataset, everything, store / "taken up", checkpoint)
    import keras

    networks = {
        name: keras.saving.load_model(model.model_path, compile=False) for name, model in models.items()
    }
    dtypes = {name: network.dtype_policy.name for name, network in networks.items()}
    kernels = {
        name: network.get_layer("0_convolution").get_weights()[0] for name, network in networks.items()
    }
    return Trained(
        rates(),
        models,
        dtypes,
        kernels,
        {name: evaluate(network, dataset) for name, network in networks.items()},
        {name: first_means(network, dataset) for name, network in networks.items()},
        reports,
        diverge(dataset, store),
        run_out_of_memory(),
    )


def evaluate(network: Any, dataset: PreparedDataset) -> tuple[float, float]:
    validation = dataset.split("validation")
    network.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    loss, accuracy = network.evaluate(np.asarray(validation.pixels), validation.labels, verbose=0)
    return float(loss), float(accuracy)


def first_means(
    network: Any, dataset: PreparedDataset
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    import keras

    convolution = keras.Model(network.input, network.get_layer("0_convolution").output)
    found = convolution.predict_on_batch(np.asarray(dataset.split("train").pixels))
    kept = np.array(network.get_layer("1_batch_normalization").moving_mean)
    return found.mean(axis=(0, 1, 2)), kept


def rates() -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for schedule in ("constant", "cosine", "one_cycle"):
        spec = TrainingSpec(
            epochs=1,
            learning_rate=LearningRate.model_validate(
                {"schedule": schedule, "peak": 0.5, "warmup_fraction": 0.3}
            ),
        )
        optimizer = build_optimizer(spec, STEPS)
        found[schedule] = []
        for step in range(STEPS + 1):
            optimizer.iterations.assign(step)
            found[schedule].append(float(optimizer.learning_rate))
    return found


def diverge(dataset: PreparedDataset, store: Path) -> str:
    """Resume from a good checkpoint with a learning rate that makes the loss diverge."""
    shutil.copy(store / "checkpoints/plain.npz", store / "checkpoints/diverging.npz")
    recipe = small_recipe(epochs=3, learning_rate={"peak": 1e30})
    try:
        train_model(dataset, recipe, store / "diverging", store / "checkpoints/diverging.npz")
    except WorkError as error:
        return str(error)
    return "nothing"


def run_out_of_memory() -> str:
    import tensorflow as tf

    try:
        with explain_out_of_memory(TrainingSpec(epochs=1, batch_size=100)):
            tf.zeros((2**30, 2**20))  # Four million GB.
    except WorkError as error:
        return str(error)
    return "nothing"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def trained(store: Path) -> Trained:
    return run_in_spawned_process(train_all, store)


def test_the_learning_rate_follows_its_schedule(trained: Trained) -> None:
    constant, cosine, cycle = (trained.rates[name] for name in ("constant", "cosine", "one_cycle"))
    assert set(constant) == {0.5}
    for rates, first in ((cosine, 0.05), (cycle, 0.02)):
        assert rates[0] == pytest.approx(first)
        assert max(rates) == rates[30] == pytest.approx(0.5)
        assert np.all(np.diff(rates[:31]) > 0)
        assert np.all(np.diff(rates[30:100]) < 0)
    assert cosine[STEPS] == pytest.approx(0, abs=1e-7)
    assert cycle[STEPS - 1] == pytest.approx(0.5 / 250_000)
    assert cycle[15] == pytest.approx(0.26)


def test_the_history_has_the_learning_rate_at_the_end_of_each_epoch(trained: Trained) -> None:
    rates = [row["learning_rate"] for row in read_history(trained.models["everything"])]
    peak = small_recipe(**TRAININGS["everything"]).training.learning_rate.peak
    assert peak > rates[0] > rates[1] > rates[2] == pytest.approx(peak / 250_000, rel=1e-4)


@pytest.mark.parametrize("name", TRAININGS)
def test_every_setting_learns_and_saves_in_full_precision(trained: Trained, name: str) -> None:
    model = trained.models[name]
    assert model.validation_accuracy > 0.3
    assert trained.dtypes[name] == "float32"
    assert len(read_history(model)) == model.epochs


@pytest.mark.parametrize("name", TRAININGS)
def test_validation_and_statistics_are_those_of_the_saved_model(trained: Trained, name: str) -> None:
    model = trained.models[name]
    described = (model.validation_loss, model.validation_accuracy)
    assert described == pytest.approx(trained.evaluated[name], rel=1e-4)
    found, kept = trained.normalized[name]
    # A few images are not in a full batch.
    np.testing.assert_allclose(kept, found, atol=0.01)
    assert model.normalization is not None
    assert model.normalization.images in (1280, 1286)
    assert model.normalization.warning is None


def test_convolutions_are_initialized_as_in_the_recipe(trained: Trained) -> None:
    channel = np.zeros((3, 3))
    channel[1, 1] = 1
    np.testing.assert_allclose(trained.kernels["passing channels on"][:, :, 0, 0], channel, atol=0.15)
    assert not np.allclose(trained.kernels["plain"][:, :, 0, 0], channel, atol=0.15)


def test_several_steps_per_execution_give_the_same_result_as_single_steps(trained: Trained) -> None:
    one, several = (read_history(trained.models[name])[-1] for name in ("plain", "several steps a call"))
    assert several["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert several["val_loss"] == pytest.approx(one["val_loss"], rel=1e-4)


def test_early_stopping_keeps_the_epoch_with_the_lowest_loss(trained: Trained) -> None:
    model = trained.models["stopped early"]
    losses = [row["val_loss"] for row in read_history(model)]
    assert 2 <= model.epochs < 50
    assert losses[model.chosen_epoch - 1] == min(losses) == losses[-2]


def test_the_manifest_contains_the_seed_and_the_recipe(trained: Trained) -> None:
    manifest = read_json(trained.models["averaged, mixed precision"].folder / "manifest.json")
    assert manifest["seed"] == manifest["recipe"]["training"]["seed"] == 0
    assert manifest["recipe"]["training"]["ema_momentum"] == 0.98
    assert manifest["files"]["model.keras"]["sha256"] == sha256_of(
        trained.models["averaged, mixed precision"].model_path
    )


def test_the_last_report_is_at_the_end(trained: Trained) -> None:
    last = [report for report in trained.reports if report.share == 1]
    assert last
    assert {(report.epoch, report.step) for report in last} >= {(2, 41)}
    assert all(report.seconds_left == 0 for report in last)
    assert "step 41/41, loss" in str(last[0])
    assert "validation accuracy" in str(last[0])


def test_a_nan_loss_stops_training_and_keeps_the_last_checkpoint(trained: Trained, store: Path) -> None:
    assert trained.diverged.startswith("the loss is nan in epoch 3, step ")
    assert "the checkpoint of epoch 2 is kept" in trained.diverged
    assert "Lower training.learning_rate.peak." in trained.diverged
    assert "\n" not in trained.diverged
    assert completed_epochs(store / "checkpoints/diverging.npz") == 2


def test_out_of_memory_is_one_line_with_a_batch_size_to_try(trained: Trained) -> None:
    assert trained.out_of_memory.endswith("Try training.batch_size=50.")
    assert "\n" not in trained.out_of_memory


def die_in_the_second_epoch(progress: TrainingProgress) -> None:
    if (progress.epoch, progress.step) == (2, 17):
        os.kill(os.getpid(), signal.SIGKILL)


def test_training_killed_after_the_last_epoch_resumes_with_the_same_weights(trained: Trained) -> None:
    whole, taken_up = trained.models["everything"], trained.models["taken up at its end"]
    assert weights_sha256(taken_up) == weights_sha256(whole)
    assert taken_up.normalization == whole.normalization
    assert taken_up.validation_loss == whole.validation_loss
    assert read_json(taken_up.folder / "manifest.json")["resumed_after_epoch"] == 3


def train_until_killed(dataset: PreparedDataset, name: str, folder: Path, checkpoint: Path) -> None:
    callbacks._SECONDS_BETWEEN_REPORTS = 0
    recipe = small_recipe(**TRAININGS[name])
    train_model(dataset, recipe, folder, checkpoint, die_in_the_second_epoch)


def weights_sha256(model: TrainedModel) -> str:
    """The SHA-256 of the weights inside the Keras file."""
    with zipfile.ZipFile(model.model_path) as archive:
        return hashlib.sha256(archive.read("model.weights.h5")).hexdigest()


@pytest.mark.parametrize("name", ["everything", "every option"])
def test_killed_training_resumes_and_ends_with_the_same_weights(
    trained: Trained, name: str, tmp_path: Path
) -> None:
    dataset, checkpoint = digits(tmp_path), tmp_path / "checkpoints/killed.npz"
    with pytest.raises(WorkError, match="died"):
        run_in_spawned_process(train_until_killed, dataset, name, tmp_path / "killed", checkpoint)
    assert completed_epochs(checkpoint) == 1
    assert not (tmp_path / "killed").exists()
    recipe = small_recipe(**TRAININGS[name])
    resumed = run_in_spawned_process(train_model, dataset, recipe, tmp_path / "resumed", checkpoint)
    whole = trained.models[name]
    assert weights_sha256(resumed) == weights_sha256(whole)
    assert read_json(resumed.folder / "manifest.json")["resumed_after_epoch"] == 1
    assert read_json(whole.folder / "manifest.json")["resumed_after_epoch"] == 0
    histories = [
        [{**row, "seconds": 0, "start_seconds": 0} for row in read_history(model)]
        for model in (resumed, whole)
    ]
    assert histories[0] == histories[1]
    assert len(histories[0]) == recipe.training.epochs
    assert resumed.found_peak == whole.found_peak
