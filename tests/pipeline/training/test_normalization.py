"""The fused batch normalization of training batches, compared with that of Keras."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training.devices import choose_device, import_tensorflow
from pixelmill.pipeline.training.normalization import fuse_normalization

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("normalization")

Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Trained:
    """The result of the same steps on the same network.

    Attributes:
        kinds: The class of each normalization layer.
        before: The initial weights, by path.
        after: The trained weights, by path.
    """

    kinds: dict[str, str]
    before: Weights
    after: Weights


def network(keras: Any) -> Any:
    """Normalization at every position; without momentum, so that the batch statistics are visible."""
    layers = keras.layers

    def normalization(name: str, **settings: Any) -> Any:
        return layers.BatchNormalization(name=name, momentum=0.5, **settings)

    inner_image = keras.Input((6, 5, 2))
    inner = keras.Model(inner_image, normalization("inner")(inner_image), name="application")
    image = keras.Input((6, 5, 2))
    tensor = inner(image)
    tensor = layers.Conv2D(3, 3, name="convolution")(tensor)
    tensor = normalization("plain")(tensor)
    tensor = normalization("without_scale", scale=False)(tensor)
    tensor = normalization("of_rows", axis=1)(tensor)
    tensor = normalization("frozen", trainable=False)(tensor)
    tensor = normalization("flat")(layers.Dense(4, name="dense")(layers.Flatten()(tensor)))
    return keras.Model(image, tensor)


def train_both() -> tuple[Trained, Trained]:
    """Train with the normalization of Keras, and with the fused one."""
    import_tensorflow()
    choose_device("cpu")
    import keras

    rng = np.random.default_rng(0)
    # Few values per batch, so that the biased and the unbiased variance differ.
    images = rng.normal(3, 2, (12, 6, 5, 2)).astype(np.float32)
    targets = rng.normal(size=(12, 4)).astype(np.float32)
    of_keras, fused = network(keras), network(keras)
    fused.set_weights(of_keras.get_weights())
    fuse_normalization(fused)
    return tuple(train(one, images, targets) for one in (of_keras, fused))  # type: ignore[return-value]


def train(model: Any, images: Any, targets: Any) -> Trained:
    import keras

    def weights() -> Weights:
        return {weight.path: keras.ops.convert_to_numpy(weight).copy() for weight in model.weights}

    layers = [*model.layers, *model.get_layer("application").layers]
    kinds = {
        layer.name: type(layer).__qualname__.rpartition(".")[2]
        for layer in layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    before = weights()
    model.compile(optimizer=keras.optimizers.SGD(0.02), loss="mse")
    model.fit(images, targets, batch_size=4, epochs=3, shuffle=False, verbose=0)
    return Trained(kinds, before, weights())


@pytest.fixture(scope="module")
def both() -> tuple[Trained, Trained]:
    return run_in_spawned_process(train_both)


def test_the_same_steps_give_the_same_weights_and_averages(both: tuple[Trained, Trained]) -> None:
    of_keras, fused = both
    assert of_keras.after.keys() == fused.after.keys()
    for path, expected in of_keras.after.items():
        np.testing.assert_allclose(fused.after[path], expected, rtol=1e-3, atol=1e-4, err_msg=path)
    moved = {path for path, value in fused.before.items() if not np.array_equal(value, fused.after[path])}
    assert moved == {path for path in fused.before if "frozen" not in path}


def test_only_supported_layers_are_fused(both: tuple[Trained, Trained]) -> None:
    _, fused = both
    taken = {name for name, kind in fused.kinds.items() if kind == "FusedBatchNormalization"}
    # Keras normalizes frozen and flat layers.
    assert taken == {"inner", "plain", "frozen", "flat"}
    assert fused.kinds.keys() - taken == {"without_scale", "of_rows"}
