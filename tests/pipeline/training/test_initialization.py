"""The initialization of convolutions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.training.devices import import_tensorflow
from pixelmill.pipeline.training.initialization import initialize_dirac

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("initialization")

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Begun:
    """A network before and after Dirac initialization.

    Attributes:
        image: [1, 6, 5, 3].
        outputs: The output of each layer for the image.
        drawn: The weights before, by path.
        begun: The weights after, by path.
    """

    image: Array
    outputs: dict[str, Array]
    drawn: dict[str, Array]
    begun: dict[str, Array]


def begin() -> Begun:
    import_tensorflow()
    import keras

    keras.utils.set_random_seed(0)
    convolution = keras.layers.Conv2D
    inner_image = keras.Input((6, 5, 3))
    inner = keras.Model(inner_image, convolution(3, 3, name="inner")(inner_image), name="application")
    image = keras.Input((6, 5, 3))
    layers = [
        convolution(5, 3, padding="same", name="more_filters"),
        convolution(2, (1, 3), padding="same", name="fewer_filters"),
        convolution(4, 1, strides=2, name="strided"),
        convolution(3, 3, padding="valid", name="valid"),
        convolution(3, 2, padding="same", name="even"),
        keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
        keras.layers.SeparableConv2D(3, 3, padding="same", name="separable"),
        inner,
    ]
    network = keras.Model(image, [layer(image) for layer in layers])

    def weights() -> dict[str, Array]:
        return {weight.path: keras.ops.convert_to_numpy(weight).copy() for weight in network.weights}

    drawn, pixels = weights(), np.random.default_rng(0).random((1, 6, 5, 3), np.float32)
    initialize_dirac(network)
    outputs: Any = network(pixels)
    outputs = {
        layer.name: keras.ops.convert_to_numpy(output) for layer, output in zip(layers, outputs, strict=True)
    }
    return Begun(pixels, outputs, drawn, weights())


@pytest.fixture(scope="module")
def begun() -> Begun:
    return run_in_spawned_process(begin)


def test_channels_pass_through_unchanged(begun: Begun) -> None:
    image = begun.image
    for name, passed in {
        "more_filters": image,
        "fewer_filters": image[..., :2],
        "strided": image[:, ::2, ::2],
        "valid": image[:, 1:-1, 1:-1],
    }.items():
        found = begun.outputs[name][..., : passed.shape[-1]]
        np.testing.assert_allclose(found, passed, atol=1e-6, err_msg=name)


def test_further_filters_keep_their_random_kernels(begun: Begun) -> None:
    first = begun.image.shape[-1]
    for name in ("more_filters", "strided"):
        drawn, kernel = begun.drawn[f"{name}/kernel"], begun.begun[f"{name}/kernel"]
        assert drawn[..., first:].any()
        np.testing.assert_array_equal(kernel[..., first:], drawn[..., first:])


def test_nothing_else_is_changed(begun: Begun) -> None:
    changed = {path for path, drawn in begun.drawn.items() if not np.array_equal(drawn, begun.begun[path])}
    assert changed == {f"{name}/kernel" for name in ("more_filters", "fewer_filters", "strided", "valid")}
