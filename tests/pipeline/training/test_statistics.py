"""The statistics of batch normalization: those of the training images, and good enough at inference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pixelmill.pipeline.config import TrainingSpec
from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.training import NormalizationCheck
from pixelmill.pipeline.training.devices import choose_device, import_tensorflow
from pixelmill.pipeline.training.statistics import estimate_statistics, limit_momentum
from pixelmill.pipeline.training.trainer import train_model
from tests.pipeline.training.textures import write_textures

pytestmark = pytest.mark.xdist_group("training")
Array = npt.NDArray[np.float64]
SPEC = TrainingSpec(epochs=1, batch_size=40)
RANDOM = np.random.default_rng(0)
IMAGES = Images(RANDOM.integers(0, 256, (150, 6, 5, 2), np.uint8), RANDOM.integers(0, 3, 150))


@dataclass(frozen=True)
class Estimated:
    """A network after its statistics were estimated.

    Attributes:
        before: The initial weights, by path.
        after: The final weights, by path.
        again: The final weights of a second run.
        inputs: The mean and variance per channel of each normalization layer's input at inference.
        check: The returned check.
        without: The result for a network without normalization.
        momentum: The momentum of the first normalization layer, by steps per epoch.
    """

    before: dict[str, Array]
    after: dict[str, Array]
    again: dict[str, Array]
    inputs: dict[str, tuple[Array, Array]]
    check: NormalizationCheck | None
    without: NormalizationCheck | None
    momentum: dict[int, float]


def network(keras: Any, *, normalizes: bool = True) -> Any:
    layers = keras.layers
    image = keras.Input((6, 5, 2), dtype="uint8")
    tensor = layers.Rescaling(1 / 255)(image)
    if normalizes:
        inner_image = keras.Input((6, 5, 2))
        inner = layers.BatchNormalization(name="inner")(inner_image)
        frozen = layers.BatchNormalization(name="frozen", trainable=False)(inner)
        tensor = keras.Model(inner_image, frozen, name="application")(tensor)
    tensor = layers.Conv2D(4, 3, name="convolution")(tensor)
    tensor = layers.Dropout(0.5)(tensor)
    if normalizes:
        tensor = layers.BatchNormalization(name="after_dropout")(tensor)
    tensor = layers.Dense(3, name="dense")(layers.Flatten()(tensor))
    return keras.Model(image, layers.Softmax()(tensor))


def weights_of(model: Any) -> dict[str, Array]:
    return {weight.path: np.array(weight, np.float64) for weight in model.weights}


def estimate() -> Estimated:
    import_tensorflow()
    choose_device("cpu")
    import keras

    keras.utils.set_random_seed(0)
    model = network(keras)
    inner = model.get_layer("application")
    # As after mixed-precision training; the statistics must not depend on it.
    inner.get_layer("inner").moving_variance.assign([np.inf, 1])
    start, before = model.get_weights(), weights_of(model)
    check = estimate_statistics(model, IMAGES, SPEC)
    after = weights_of(model)
    inputs = {
        name: moments(keras.Model(model.input, tensor).predict(IMAGES.pixels, verbose=0))
        for name, tensor in (
            ("inner", model.get_layer("rescaling").output),
            ("after_dropout", model.get_layer("convolution").output),
        )
    }
    model.set_weights(start)
    estimate_statistics(model, IMAGES, SPEC)
    plain = network(keras, normalizes=False)
    momentum = {}
    for steps in (1, 4, 30, 300, 100_000):
        limited = network(keras)
        limit_momentum(limited, steps)
        momentum[steps] = limited.get_layer("after_dropout").momentum
    return Estimated(
        before, after, weights_of(model), inputs, check, estimate_statistics(plain, IMAGES, SPEC), momentum
    )


def moments(values: Any) -> tuple[Array, Array]:
    channels = values.reshape(-1, values.shape[-1]).astype(np.float64)
    return channels.mean(axis=0), channels.var(axis=0)


@pytest.fixture(scope="module")
def estimated() -> Estimated:
    return run_in_spawned_process(estimate)


def test_the_statistics_are_those_of_all_images(estimated: Estimated) -> None:
    mean, variance = estimated.inputs["inner"]
    np.testing.assert_allclose(estimated.after["inner/moving_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(estimated.after["inner/moving_variance"], variance, rtol=1e-4)
    # Its input is normalized batch by batch, without dropout, which would add a half.
    mean, variance = estimated.inputs["after_dropout"]
    np.testing.assert_allclose(estimated.after["after_dropout/moving_mean"], mean, atol=0.02)
    np.testing.assert_allclose(estimated.after["after_dropout/moving_variance"], variance, rtol=0.05)


def test_nothing_else_changes_and_the_result_is_reproducible(estimated: Estimated) -> None:
    changed = {
        path for path, value in estimated.before.items() if not np.array_equal(value, estimated.after[path])
    }
    assert changed == {
        f"{layer}/moving_{name}" for layer in ("inner", "after_dropout") for name in ("mean", "variance")
    }
    for path, value in estimated.after.items():
        np.testing.assert_array_equal(estimated.again[path], value)


def test_the_check_is_reported(estimated: Estimated) -> None:
    assert estimated.without is None
    assert estimated.check is not None
    assert estimated.check.images == 150
    assert abs(estimated.check.accuracy - estimated.check.batch_accuracy) < 0.1


def test_moving_averages_forget_within_an_epoch(estimated: Estimated) -> None:
    assert estimated.momentum == pytest.approx({1: 0.5, 4: 0.5, 30: 0.9, 300: 0.99, 100_000: 0.99})


def test_a_drop_at_inference_gives_a_one_line_warning() -> None:
    assert NormalizationCheck(1000, 0.93, 0.95).warning is None
    warning = NormalizationCheck(2000, 0.354, 1.0).warning
    assert warning is not None
    assert warning.startswith("on 2,000 training images the accuracy is 0.3540 with the stored ")
    assert "training.batch_size" in warning


def train_on_textures(folder: Path, seed: int, store: Path) -> tuple[float, float, float]:
    """The accuracies of the recipe's model on test images, on training images, and with batch statistics."""
    recipe = load_recipe("folder", (f"dataset.path={folder}", f"training.seed={seed}"))
    dataset = prepare_dataset(download_dataset(recipe.dataset, store), recipe, store)
    model = train_model(dataset, recipe, store / "training", store / "state.npz")
    import keras

    loaded = keras.saving.load_model(model.model_path, compile=False)
    train, test = dataset.split("train"), dataset.split("test")
    tensor: Any = np.asarray(train.pixels)
    for layer in loaded.layers[1:]:
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        tensor = layer(tensor, training=True) if is_normalization else layer(tensor)

    def accuracy(predicted: Any, images: Images) -> float:
        return float(np.mean(np.argmax(predicted, axis=1) == images.labels))

    return (
        accuracy(loaded.predict(np.asarray(test.pixels), verbose=0), test),
        accuracy(loaded.predict(np.asarray(train.pixels), verbose=0), train),
        accuracy(tensor, train),
    )


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))], ids=str
)
def test_a_few_steps_are_enough_for_distinct_textures(seed: int, tmp_path: Path) -> None:
    folder = write_textures(tmp_path / "textures")
    test, train, of_batches = run_in_spawned_process(train_on_textures, folder, seed, tmp_path / "store")
    assert test >= 0.95
    assert train >= of_batches - 0.02
