"""The table of a network matches what Keras builds, predicts and exports: every layer, in one process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from pixelmill.pipeline.config import ExportSpec, ImageSpec
from pixelmill.pipeline.inference import Probabilities, load_session
from pixelmill.pipeline.layers import Layer, LayerSummary, ModelSpec, summarize_layers
from pixelmill.pipeline.layers.activation import ActivationFunction
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe, shipped_recipes

CLASSES = 10
IMAGE = ImageSpec(height=23, width=19, channels=3)
Layers = list[dict[str, Any]]
POOLED: Layers = [{"layer": "global_average_pooling"}]
OUTPUT: Layers = [{"layer": "dense", "units": "classes"}, {"layer": "softmax"}]
# Every other worker would have to build the cases again.
pytestmark = pytest.mark.xdist_group("network")


def convolution(**settings: Any) -> dict[str, Any]:
    return {"layer": "convolution", "filters": 4, "kernel_size": 3, **settings}


def residual(*layers: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"layer": "residual", "layers": list(layers), **settings}


def sliding(kind: str, **settings: Any) -> Layers:
    """Every padding, stride, dilation and kernel shape."""
    return [
        {"layer": kind, "kernel_size": 3, "padding": "full", "dilation": 2, **settings},
        {"layer": kind, "kernel_size": [1, 4], "bias": True, **settings},
        {"layer": kind, "kernel_size": [3, 2], "stride": 2, **settings},
        {"layer": kind, "kernel_size": 2, "dilation": 3, "padding": "valid", **settings},
        {"layer": kind, "kernel_size": 1, **settings},
    ]


CASES: dict[str, Layers] = {
    "convolution": [*sliding("convolution", filters=5), *POOLED],
    "depthwise": [
        *sliding("depthwise_convolution"),
        {"layer": "depthwise_convolution", "kernel_size": 3, "multiplier": 2},
        *POOLED,
    ],
    "separable": [*sliding("separable_convolution", filters=5, multiplier=2), *POOLED],
    "fixed": [
        {"layer": "fixed_convolution", "kernels": ["sobel_x", "sobel_y", "scharr_x", "scharr_y"]},
        {"layer": "fixed_convolution", "kernels": [[[0.5, -1.0], [2, 3]]], "stride": 2, "padding": "full"},
        {"layer": "batch_normalization"},
        *POOLED,
    ],
    "pooling": [
        {"layer": "max_pooling", "size": [2, 1], "stride": 1, "padding": "same"},
        {"layer": "average_pooling", "size": 3, "stride": 2, "padding": "same"},
        {"layer": "average_pooling", "size": 2, "stride": 1},
        {"layer": "max_pooling", "size": [2, 3]},
        {"layer": "global_max_pooling"},
    ],
    "activations": [
        convolution(bias=True),
        *[
            residual({"layer": "activation", "function": name}, activation=None)
            for name in get_args(ActivationFunction)
        ],
        *POOLED,
    ],
    "residual": [
        convolution(),
        residual(convolution(), {"layer": "batch_normalization"}),
        residual(convolution(stride=2, filters=6), {"layer": "activation"}, convolution(filters=6)),
        residual(convolution(filters=6), shortcut="projection", activation="leaky_relu"),
        {"layer": "dropout", "rate": 0.5},
        *POOLED,
    ],
    "flat": [
        {"layer": "max_pooling", "size": 4},
        {"layer": "flatten"},
        {"layer": "dense", "units": 7},
        {"layer": "batch_normalization"},
        residual({"layer": "dense", "units": 7}, activation="tanh"),
    ],
}


def network(case: str) -> ModelSpec:
    return ModelSpec.model_validate({"layers": [*CASES[case], *OUTPUT]})


@dataclass(frozen=True)
class Built:
    """A case as built by Keras.

    Attributes:
        outputs: The output volume at each position of the recipe.
        parameters: The parameters of the Keras layers at each position.
        predictions: The predictions for the images, float32 [images, classes].
        changes: By position: for every place of the output, which input pixels change it:
            bool [height, width, places...].
    """

    outputs: dict[str, tuple[int, ...]]
    parameters: dict[str, int]
    predictions: Probabilities
    changes: dict[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Everything:
    """Every case, and the parameters of every built-in recipe."""

    cases: dict[str, Built]
    recipes: dict[str, int]


def build_all(folder: Path) -> Everything:
    """Build, predict, perturb and export every case; build every recipe."""
    return Everything(
        {case: build(case, folder) for case in CASES},
        {name: count_parameters(name) for name in shipped_recipes()},
    )


def count_parameters(name: str) -> int:
    from pixelmill.pipeline.training.network import build_network

    recipe = load_recipe(name)
    count: int = build_network(recipe.model, recipe.image, CLASSES).count_params()
    return count


def build(case: str, folder: Path) -> Built:
    from pixelmill.pipeline.export.draft import write_onnx
    from pixelmill.pipeline.export.keras_loader import load_network
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow
    from pixelmill.pipeline.training.network import build_network

    import_tensorflow()
    choose_device("cpu")
    import keras

    keras.utils.set_random_seed(0)
    built = build_network(network(case), IMAGE, CLASSES)
    last, parameters = {}, dict[str, int]()
    for layer in built.layers[2:]:  # After the input and the rescaling, which are not in the recipe.
        position = position_of(layer.name, case)
        last[position] = layer.output
        parameters[position] = parameters.get(position, 0) + layer.count_params()
    changes = perturb(keras, built, last)
    randomize(built, np.random.default_rng(1))
    spread(keras, built)
    path = folder / f"{case}.keras"
    built.save(path)
    (folder / f"{case}.onnx").write_bytes(write_onnx(load_network(path), IMAGE, ExportSpec(), {}))
    return Built(
        {position: tuple(tensor.shape[1:]) for position, tensor in last.items()},
        parameters,
        built.predict(images(), verbose=0),
        changes,
    )


def position_of(name: str, case: str) -> str:
    """The position in the recipe, with which the name of a Keras layer begins: `3_shortcut_0_convolution`."""
    positions = [row.position for row in rows(case) if name.startswith(row.position.replace(".", "_") + "_")]
    return max(positions, key=len)


def perturb(keras: Any, built: Any, last: dict[str, Any]) -> dict[str, npt.NDArray[np.bool_]]:
    """Set one pixel after the other in a black image, and find the outputs that change.

    Weights are positive, so that nothing cancels out and no maximum hides a pixel.
    """
    random = np.random.default_rng(0)
    for variable in built.variables:
        if variable.name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            variable.assign(random.uniform(0.5, 1, variable.shape) / np.prod(variable.shape[:-1]) * 2)
    dark = np.zeros((1, IMAGE.height, IMAGE.width, 3), np.uint8)
    lit = np.repeat(dark, IMAGE.height * IMAGE.width, axis=0)
    lit.reshape(len(lit), -1, 3)[np.arange(len(lit)), np.arange(len(lit))] = 255
    watched = {position: tensor for position, tensor in last.items() if len(tensor.shape) == 4}
    if not watched:
        return {}
    outputs = keras.Model(built.inputs, watched).predict(np.concatenate([dark, lit]), verbose=0)
    return {
        position: (np.abs(output[1:] - output[:1]).max(axis=-1) > 1e-6).reshape(
            IMAGE.height, IMAGE.width, *output.shape[1:3]
        )
        for position, output in outputs.items()
    }


def randomize(built: Any, random: np.random.Generator) -> None:
    """Randomize all trained values, so that an export cannot lose any unnoticed."""
    for variable in [variable for layer in built.layers if layer.trainable for variable in layer.variables]:
        low = 0.5 if variable.name in ("gamma", "moving_variance") else -1.0
        # So that neither kernels nor biases hide the differences between images.
        size = np.prod(variable.shape[:2]) if "kernel" in variable.name else 100 if low < 0 else 1
        variable.assign(random.uniform(low, 1.5, variable.shape) / size**0.5)


def spread(keras: Any, built: Any) -> None:
    """Rotate the last dense layer so that the predictions of the images are far apart."""
    dense = built.layers[-2]
    scores = keras.Model(built.inputs, dense.output).predict(images(), verbose=0)
    dense.kernel.assign(dense.kernel / scores.std(axis=0))
    dense.bias.assign((dense.bias - scores.mean(axis=0)) / scores.std(axis=0))


def images() -> npt.NDArray[np.uint8]:
    """Noise with another colour and strength in each image."""
    random = np.random.default_rng(2)
    noise = random.integers(0, 256, (16, IMAGE.height, IMAGE.width, 3))
    return (noise * random.random((16, 1, 1, 3))).astype(np.uint8)


def rows(case: str) -> tuple[LayerSummary, ...]:
    return summarize_layers(network(case), IMAGE, CLASSES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def everything(folder: Path) -> Everything:
    return run_in_spawned_process(build_all, folder)


@pytest.fixture(scope="module")
def built(everything: Everything) -> dict[str, Built]:
    return everything.cases


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_built_in_recipes_have_the_documented_parameters(name: str, everything: Everything) -> None:
    recipe = load_recipe(name)
    described = sum(row.parameters for row in summarize_layers(recipe.model, recipe.image, CLASSES))
    assert described == everything.recipes[name]
    assert described <= {"mnist": 8_000}.get(name, described)


def test_every_kind_of_layer_is_in_a_case() -> None:
    used = {type(layer) for case in CASES for layer in network(case).layers}
    used |= {
        type(inner)
        for case in CASES
        for layer in network(case).layers
        for inner in getattr(layer, "layers", ())
    }
    (kinds, _) = get_args(Layer)
    assert {kind.__name__ for kind in get_args(kinds)} - {kind.__name__ for kind in used} == {"Application"}


@pytest.mark.parametrize("case", CASES)
def test_volumes_and_parameters_match_keras(case: str, built: dict[str, Built]) -> None:
    # Operations in Keras that are not layers do not have our names.
    listed = [row for row in rows(case) if row.settings != "function gelu"]
    assert {row.position: row.output for row in listed} == built[case].outputs
    assert {row.position: row.parameters for row in listed} == built[case].parameters


@pytest.mark.parametrize("case", CASES)
def test_only_pixels_in_the_receptive_field_change_an_output(case: str, built: dict[str, Built]) -> None:
    for row in rows(case):
        if row.position not in built[case].changes or row.field is None:
            continue
        changes = built[case].changes[row.position]
        field, whole = row.field, 0
        for place in np.ndindex(changes.shape[2:]):
            first = [field.start[axis] + place[axis] * field.stride[axis] for axis in (0, 1)]
            past = [first[axis] + field.size[axis] for axis in (0, 1)]
            changed = np.argwhere(changes[:, :, *place])
            assert (changed >= first).all(), (row, place)
            assert (changed < past).all(), (row, place)
            # Without padding, the first and the last pixel change it; stride and dilation may leave gaps
            # in between.
            if min(first) >= 0 and past[0] <= IMAGE.height and past[1] <= IMAGE.width and case != "fixed":
                whole += 1
                assert changed.min(axis=0).tolist() == first, (row, place)
                assert (changed.max(axis=0) + 1).tolist() == past, (row, place)
        assert whole or case == "fixed" or max(field.size) > 12, row


@pytest.mark.parametrize("case", CASES)
def test_the_export_predicts_like_keras(case: str, built: dict[str, Built], folder: Path) -> None:
    predictions = built[case].predictions
    # The predictions differ between images, so a graph that ignores its input would fail.
    assert np.ptp(predictions, axis=0).min() > 0.05
    session, pixels = load_session(folder / f"{case}.onnx"), images()
    for size in (1, 5):
        parts = [session.probabilities(pixels[at : at + size]) for at in range(0, len(pixels), size)]
        assert np.abs(np.concatenate(parts) - predictions).max() < 1e-5
