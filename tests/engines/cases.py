"""The test cases for engines: networks of the built-in recipes and other layers, and Keras's predictions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelmill.pipeline.artifacts import read_json, write_array, write_json
from pixelmill.pipeline.bundles import ONNX_FILE
from pixelmill.pipeline.bundles.engines import EngineName
from pixelmill.pipeline.bundles.model_files import LITERT_FILE
from pixelmill.pipeline.config import ExportSpec, ImageSpec
from pixelmill.pipeline.export.parity import MIN_ALLOWED, choose_tolerance
from pixelmill.pipeline.export.precision import all_layers, in_precision
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.layers import ModelSpec
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe, shipped_recipes

CLASSES = 10
BATCH = 4
OTHER_LAYERS, FOREIGN_LAYERS = "other-layers", "foreign-layers"
DEEP_NETWORKS = ("ConvNeXtTiny", "EfficientNetB0")
_IMAGE = ImageSpec(height=12, width=16, channels=3)
_DEEP_IMAGE = ImageSpec(height=64, width=64, channels=3)
_MODEL = ModelSpec.model_validate(
    {
        "layers": [
            {"layer": "fixed_convolution", "kernels": ["sobel_x", ((0, 1, 0), (1, -4, 1), (0, 1, 0))]},
            {"layer": "depthwise_convolution", "kernel_size": (3, 5), "multiplier": 2},
            {"layer": "batch_normalization"},
            {"layer": "activation", "function": "silu"},
            {
                "layer": "residual",
                "layers": [
                    {"layer": "separable_convolution", "filters": 16, "kernel_size": 3, "stride": 2},
                    {"layer": "batch_normalization"},
                ],
            },
            {"layer": "convolution", "filters": 8, "kernel_size": 3, "padding": "full", "bias": True},
            {"layer": "activation", "function": "elu"},
            {"layer": "average_pooling", "size": 2, "padding": "same"},
            {"layer": "convolution", "filters": 8, "kernel_size": 3, "dilation": 2},
            {"layer": "activation", "function": "tanh"},
            {"layer": "flatten"},
            {"layer": "dense", "units": "classes"},
            {"layer": "softmax"},
        ]
    }
)
"""The name of the case with the layers that no built-in recipe has."""
_TENSORS, _PROBABILITIES, _ALLOWED = "tensors.npy", "probabilities.npy", "allowed.json"


@dataclass(frozen=True)
class Case:
    """One exported network.

    Attributes:
        name: The recipe, `OTHER_LAYERS`, `FOREIGN_LAYERS` or one of `DEEP_NETWORKS`.
        onnx_path: The ONNX file, as in a bundle.
        tensors: uint8 [4, height, width, channels].
        probabilities: The predictions of Keras; float32 [4, 10].
        allowed: How much a probability may differ: as in an export, more for a deep network.
    """

    name: str
    onnx_path: Path
    tensors: Pixels
    probabilities: Probabilities
    allowed: float

    def path_for(self, engine: EngineName) -> Path:
        """The file for an engine of `pixelmill verify`."""
        return self.onnx_path.with_name(LITERT_FILE) if engine is EngineName.LITERT else self.onnx_path


def recipe_cases() -> tuple[str, ...]:
    """The built-in recipes with a network of their own, which no application is."""
    networks = {name: load_recipe(name).model.layers[0].layer for name in shipped_recipes()}
    return tuple(name for name, first in networks.items() if first != "application")


def make_cases(folder: Path) -> tuple[Case, ...]:
    """Export the networks of recipes and of other layers into `folder`, which must not exist yet."""
    run_in_spawned_process(_export_all, folder, _networks)
    return tuple(_read(path) for path in sorted(folder.iterdir()))


def make_deep_cases(folder: Path) -> tuple[Case, ...]:
    """Export `DEEP_NETWORKS` into `folder`, which must not exist yet; it takes a minute."""
    run_in_spawned_process(_export_all, folder, _deep_networks)
    return tuple(_read(path) for path in sorted(folder.iterdir()))


def _read(folder: Path) -> Case:
    return Case(
        name=folder.name,
        onnx_path=folder / ONNX_FILE,
        tensors=np.load(folder / _TENSORS),
        probabilities=np.load(folder / _PROBABILITIES),
        allowed=read_json(folder / _ALLOWED),
    )


def _export_all(folder: Path, networks: Callable[[], Iterator[tuple[str, ImageSpec, Any]]]) -> None:
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

    import_tensorflow()
    choose_device("cpu")
    import keras

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    for name, image, network in networks():
        tensors = _draw_images(image, random)
        _make_trained(network, tensors, random)
        (folder / name).mkdir(parents=True)
        _export(network, image, tensors, folder / name)


def _networks() -> Iterator[tuple[str, ImageSpec, Any]]:
    from pixelmill.pipeline.training.network import build_network

    for name in recipe_cases():
        recipe = load_recipe(name)
        yield name, recipe.image, build_network(recipe.model, recipe.image, CLASSES)
    yield OTHER_LAYERS, _IMAGE, build_network(_MODEL, _IMAGE, CLASSES)
    yield FOREIGN_LAYERS, _IMAGE, _foreign_network()


def _deep_networks() -> Iterator[tuple[str, ImageSpec, Any]]:
    """Networks of `keras.applications` with random weights, and with their own normalization of pixels."""
    import keras

    shape = (_DEEP_IMAGE.height, _DEEP_IMAGE.width, _DEEP_IMAGE.channels)
    for name in DEEP_NETWORKS:
        image = keras.Input(shape, dtype="uint8", name="image")
        application = getattr(keras.applications, name)(
            include_top=False, weights=None, input_shape=shape, pooling="avg"
        )
        features = application(keras.layers.Rescaling(1.0, dtype="float32")(image))
        logits = keras.layers.Dense(CLASSES)(features)
        yield name, _DEEP_IMAGE, keras.Model(image, keras.layers.Softmax()(logits))


def _foreign_network() -> Any:
    """A network with the layers that recipes lack and models from elsewhere have."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((_IMAGE.height, _IMAGE.width, _IMAGE.channels), dtype="uint8", name="image"),
            layers.Rescaling(1 / 255, dtype="float32"),
            layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.05, 0.06, 0.07]),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("gelu"),
            layers.Conv2D(16, 3, strides=2, groups=4),
            layers.LayerNormalization(epsilon=1e-6),
            layers.Activation("celu"),
            layers.Flatten(),
            layers.Dense(CLASSES),
            layers.Softmax(),
        ]
    )


def _make_trained(network: Any, images: Pixels, random: np.random.Generator) -> None:
    """Simulate training: normalization with statistics, and predictions that differ between images."""
    for layer in all_layers(network):
        # Without momentum, one call stores the statistics of these images.
        layer.momentum = 0.0
        for weight in layer.weights:
            if weight.name == "gamma":
                weight.assign(random.uniform(0.5, 1.5, weight.shape))
            elif weight.name in {"beta", "bias"}:
                weight.assign(random.normal(0, 0.2, weight.shape))
    network(images, training=True)
    # Neither uniform nor saturated probabilities, which would hide differences.
    dense = network.layers[-2]
    logits = np.log(network(images, training=False))
    dense.kernel.assign(dense.kernel * (2 / logits.std(axis=1).mean()))


def _export(network: Any, image: ImageSpec, tensors: Pixels, folder: Path) -> None:
    from pixelmill.pipeline.export.draft import write_onnx
    from pixelmill.pipeline.export.formats.litert import convert_to_litert

    for name, content in convert_to_litert(network, None).items():
        (folder / name).write_bytes(content)
    (folder / ONNX_FILE).write_bytes(write_onnx(network, image, ExportSpec(), {}))
    write_array(folder / _TENSORS, tensors)
    probabilities = np.asarray(network(tensors, training=False), np.float32)
    write_array(folder / _PROBABILITIES, probabilities)
    allowed = _allowed(network, tensors, probabilities) if folder.name in DEEP_NETWORKS else MIN_ALLOWED
    write_json(folder / _ALLOWED, allowed)


def _allowed(network: Any, tensors: Pixels, probabilities: Probabilities) -> float:
    """The bound of an export, from the difference of the network from itself in float64."""
    exact = np.asarray(in_precision(network, "float64")(tensors, training=False), np.float64)
    return choose_tolerance(float(np.abs(exact - probabilities).max()), ExportSpec()).allowed_difference


def _draw_images(image: ImageSpec, random: np.random.Generator) -> Pixels:
    """Coloured blocks with noise, because a network cannot distinguish images of pure noise."""
    blocks = random.integers(0, 256, (BATCH, 4, 4, image.channels))
    rows, columns = np.arange(image.height) * 4 // image.height, np.arange(image.width) * 4 // image.width
    noise = random.integers(0, 256, (BATCH, image.height, image.width, image.channels))
    return ((blocks[:, rows][:, :, columns] + noise) // 2).astype(np.uint8)
