"""Summaries of networks, computed by hand, and refusals; `tests/pipeline/training` compares with Keras."""

import importlib
import inspect
import pkgutil
from typing import get_args

import pytest

from pixelmill.pipeline import layers as package
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers import Layer, LayerSummary, ModelSpec, summarize_layers
from pixelmill.pipeline.layers.application import APPLICATIONS, ApplicationName
from pixelmill.pipeline.layers.kinds import SimpleLayer
from pixelmill.pipeline.layers.layer import LayerSpec, SimpleLayerSpec
from pixelmill.pipeline.layers.windows import ReceptiveField
from pixelmill.pipeline.recipes import load_recipe

CLASSES = 10
COLOUR_32 = ImageSpec(height=32, width=32, channels=3)
Layers = list[dict[str, object]]
OUTPUT: Layers = [{"layer": "dense", "units": "classes"}, {"layer": "softmax"}]


def summarize(
    layers: Layers, image: ImageSpec = COLOUR_32, classes: int = CLASSES
) -> tuple[LayerSummary, ...]:
    return summarize_layers(ModelSpec.model_validate({"layers": layers}), image, classes)


def refusal(layers: Layers, image: ImageSpec = COLOUR_32) -> str:
    with pytest.raises(RequestError) as caught:
        summarize(layers, image)
    assert int(caught.value.exit_code) == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def first_row(layer: dict[str, object], image: ImageSpec = COLOUR_32) -> LayerSummary:
    """The output of a single layer for an image."""
    return summarize([layer, {"layer": "global_average_pooling"}, *OUTPUT], image)[0]


def test_every_layer_and_every_application_is_in_its_table() -> None:
    (union, _) = get_args(Layer)
    written = {
        kind
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        for kind in vars(importlib.import_module(module.name)).values()
        if isinstance(kind, type) and issubclass(kind, LayerSpec) and not inspect.isabstract(kind)
    }
    assert set(get_args(union)) == written
    assert set(get_args(SimpleLayer)) == {kind for kind in written if issubclass(kind, SimpleLayerSpec)}
    assert list(APPLICATIONS) == list(get_args(ApplicationName))


def test_the_textbook_network() -> None:
    rows = summarize(
        [
            {"layer": "convolution", "filters": 12, "kernel_size": 3, "padding": "same", "bias": True},
            {"layer": "activation", "function": "relu"},
            {"layer": "max_pooling", "size": 2},
            {"layer": "flatten"},
            {"layer": "dense", "units": 10},
            {"layer": "softmax"},
        ]
    )
    assert [(row.layer, row.output, row.parameters, row.multiply_adds) for row in rows] == [
        ("convolution", (32, 32, 12), 3 * 3 * 3 * 12 + 12, 32 * 32 * 3 * 3 * 3 * 12),
        ("activation", (32, 32, 12), 0, 0),
        ("max_pooling", (16, 16, 12), 0, 0),
        ("flatten", (3072,), 0, 0),
        ("dense", (10,), 3072 * 10 + 10, 3072 * 10),
        ("softmax", (10,), 0, 0),
    ]
    assert [row.field for row in rows] == [
        *[ReceptiveField((3, 3), (1, 1), (-1, -1))] * 2,
        *[ReceptiveField((4, 4), (2, 2), (-1, -1))] * 2,
        *[ReceptiveField((34, 34), (2, 2), (-1, -1))] * 2,
    ]
    fully_connected = 3072 * 32 * 32 * 12 + 32 * 32 * 12
    assert [row.fully_connected for row in rows] == [fully_connected, None, None, None, None, None]
    assert sum(row.parameters for row in rows) == 31_066


@pytest.mark.parametrize(
    ("size", "stride", "padding", "sides"),
    [
        (3, 1, "valid", (30, 26)),
        (3, 1, "same", (32, 28)),
        (3, 2, "valid", (15, 13)),
        (3, 2, "same", (16, 14)),
        (5, 3, "valid", (10, 8)),
        (5, 3, "same", (11, 10)),
        (1, 1, "valid", (32, 28)),
        (28, 1, "valid", (5, 1)),
        (4, 40, "same", (1, 1)),
        ([1, 5], 1, "valid", (32, 24)),
        ([7, 1], 2, "valid", (13, 14)),
    ],
)
@pytest.mark.parametrize("kind", ["convolution", "max_pooling", "average_pooling"])
def test_sides_by_size_stride_and_padding(
    kind: str, size: object, stride: int, padding: str, sides: tuple[int, int]
) -> None:
    own: dict[str, object] = {"filters": 4, "kernel_size": size} if kind == "convolution" else {"size": size}
    layer = {"layer": kind, "stride": stride, "padding": padding, **own}
    row = first_row(layer, ImageSpec(height=32, width=28, channels=3))
    assert row.output == (*sides, 4 if kind == "convolution" else 3)


@pytest.mark.parametrize(
    ("kernel_size", "dilation", "padding", "sides"),
    [
        (3, 1, "full", (34, 30)),
        (3, 4, "full", (40, 36)),
        ([1, 5], 1, "full", (32, 32)),
        (3, 4, "valid", (24, 20)),
        (3, 4, "same", (32, 28)),
    ],
)
@pytest.mark.parametrize(
    "kind", ["convolution", "depthwise_convolution", "separable_convolution", "fixed_convolution"]
)
def test_full_padding_and_dilation_of_everything_that_slides_kernels(
    kind: str, kernel_size: int | list[int], dilation: int, padding: str, sides: tuple[int, int]
) -> None:
    own: dict[str, object] = {"kernel_size": kernel_size}
    if kind == "fixed_convolution":
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        own = {"kernels": [[[1] * width] * height]}
    elif kind != "depthwise_convolution":
        own["filters"] = 3
    row = first_row(
        {"layer": kind, "padding": padding, "dilation": dilation, **own},
        ImageSpec(height=32, width=28, channels=3),
    )
    assert row.output == (*sides, 3)


@pytest.mark.parametrize(
    ("layer", "depth", "weights", "biases"),
    [
        ({"layer": "convolution", "filters": 8, "kernel_size": 5}, 8, 5 * 5 * 3 * 8, 0),
        ({"layer": "convolution", "filters": 8, "kernel_size": [1, 7], "bias": True}, 8, 7 * 3 * 8, 8),
        ({"layer": "depthwise_convolution", "kernel_size": 3}, 3, 9 * 3, 0),
        (
            {"layer": "depthwise_convolution", "kernel_size": 3, "multiplier": 4, "bias": True},
            12,
            9 * 12,
            12,
        ),
        ({"layer": "separable_convolution", "kernel_size": 3, "filters": 8}, 8, 9 * 3 + 3 * 8, 0),
        (
            {
                "layer": "separable_convolution",
                "kernel_size": 3,
                "filters": 8,
                "multiplier": 2,
                "bias": True,
            },
            8,
            9 * 6 + 6 * 8,
            8,
        ),
        ({"layer": "fixed_convolution", "kernels": ["sobel_x", "scharr_y"]}, 6, 9 * 6, 0),
        ({"layer": "fixed_convolution", "kernels": [[[1, -1]]]}, 3, 2 * 3, 0),
    ],
)
def test_weights_are_used_once_a_place_and_biases_not_at_all(
    layer: dict[str, object], depth: int, weights: int, biases: int
) -> None:
    row = first_row(layer)
    assert row.output == (32, 32, depth)
    assert (row.parameters, row.multiply_adds) == (weights + biases, weights * 32 * 32)
    places = 32 * 32 * depth
    assert row.fully_connected == 32 * 32 * 3 * places + (places if biases else 0)


def test_parameters_of_layers_without_kernels() -> None:
    rows = summarize(
        [
            {"layer": "batch_normalization"},
            {"layer": "dropout", "rate": 0.5},
            {"layer": "global_average_pooling"},
            {"layer": "dense", "units": 20},
            {"layer": "batch_normalization"},
            *OUTPUT,
        ]
    )
    assert [row.parameters for row in rows] == [12, 0, 0, 3 * 20 + 20, 80, 20 * 10 + 10, 0]
    assert [row.multiply_adds for row in rows] == [0, 0, 0, 60, 0, 200, 0]


def test_the_default_stride_of_pooling_is_its_size() -> None:
    rows = summarize(
        [
            {"layer": "max_pooling", "size": 3},
            {"layer": "average_pooling", "size": 3, "stride": 1},
            {"layer": "max_pooling", "size": [2, 4]},
            {"layer": "max_pooling", "size": 2, "stride": [1, 2]},
            {"layer": "global_max_pooling"},
            *OUTPUT,
        ]
    )
    sides = [(10, 10, 3), (8, 8, 3), (4, 2, 3), (3, 1, 3), (3,), (10,), (10,)]
    assert [row.output for row in rows] == sides


CONVOLUTION = {"layer": "convolution", "filters": 8, "kernel_size": 3}


@pytest.mark.parametrize(
    ("settings", "branch", "output", "projection"),
    [
        ({}, {"filters": 3}, (32, 32, 3), 0),
        ({}, {}, (32, 32, 8), 3 * 8 + 4 * 8),
        ({}, {"stride": 2}, (16, 16, 8), 3 * 8 + 4 * 8),
        ({"shortcut": "projection"}, {"filters": 3}, (32, 32, 3), 3 * 3 + 4 * 3),
        ({"shortcut": "identity"}, {"filters": 3}, (32, 32, 3), 0),
    ],
    ids=["kept", "deeper", "halved", "projection", "identity"],
)
def test_a_residual_block_projects_where_it_must(
    settings: dict[str, object],
    branch: dict[str, object],
    output: tuple[int, ...],
    projection: int,
) -> None:
    inner = [{**CONVOLUTION, **branch}, {"layer": "batch_normalization"}]
    rows = summarize(
        [
            {"layer": "residual", "layers": inner, **settings},
            {"layer": "global_average_pooling"},
            *OUTPUT,
        ]
    )
    block = [row for row in rows if row.position.split(".")[0] == "0"]
    assert [row.position for row in block[:2]] == ["0.0", "0.1"]
    assert (block[-1].position, block[-1].layer, block[-1].output) == ("0", "residual", output)
    assert sum(row.parameters for row in block if "shortcut" in row.position) == projection


def test_a_residual_block_sees_what_its_widest_branch_sees() -> None:
    inner = [{**CONVOLUTION, "filters": 3, "kernel_size": [3, 5]}] * 2
    rows = summarize(
        [{"layer": "residual", "layers": inner}, {"layer": "global_average_pooling"}, *OUTPUT],
    )
    assert rows[2].field == ReceptiveField((5, 9), (1, 1), (-2, -4))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (
            [{"layer": "max_pooling", "size": 4}, {"layer": "max_pooling", "size": 9}],
            ("model.layers.1 (max_pooling) of size 9x9 gets the volume 8x8x3", "at least 9x9 pixels"),
        ),
        (
            [{"layer": "residual", "layers": [{**CONVOLUTION, "kernel_size": [1, 40], "padding": "valid"}]}],
            ("model.layers.0.0 (convolution) of size 1x40 gets the volume 32x32x3",),
        ),
        (
            [{**CONVOLUTION, "kernel_size": 9, "dilation": 5, "padding": "valid"}],
            ("model.layers.0 (convolution) of size 41x41 gets the volume 32x32x3",),
        ),
        ([{**CONVOLUTION, "stride": 2, "dilation": 2}], ("stride 2 and dilation 2",)),
        (
            [{"layer": "residual", "layers": [CONVOLUTION], "shortcut": "identity"}],
            ("model.layers.0 (residual) adds 32x32x8", "32x32x3 from its shortcut"),
        ),
        (
            [{"layer": "residual", "layers": [{**CONVOLUTION, "padding": "valid"}]}],
            ("adds 30x30x8 from its branch to 16x16x8 from its shortcut", "padding: same"),
        ),
        (
            [{"layer": "residual", "layers": [{"layer": "flatten"}]}],
            ("adds 3072 from its branch to 32x32x3 from its shortcut",),
        ),
        (
            [{"layer": "flatten"}, {"layer": "residual", "layers": [{"layer": "dense", "units": 7}]}],
            ("adds 7 from its branch to 3072 from its shortcut",),
        ),
        (
            [{"layer": "activation"}, {"layer": "application", "name": "MobileNetV2"}],
            ("model.layers.1 (application MobileNetV2)", "Put it first"),
        ),
        (
            [{"layer": "application", "name": "InceptionV3"}],
            ("(application InceptionV3) gets the image 32x32x3", "at least 75x75 pixels"),
        ),
        (
            [{"layer": "application", "name": "VGG16", "frozen_layers": 20}],
            ("(application VGG16) with 20 frozen layers", "at most 19"),
        ),
    ],
)
def test_a_layer_that_cannot_take_what_reaches_it_is_named(layers: Layers, words: tuple[str, ...]) -> None:
    message = refusal([*layers, {"layer": "flatten"}, *OUTPUT])
    for word in words:
        assert word in message


def test_an_application_takes_three_channels() -> None:
    layers: Layers = [
        {"layer": "application", "name": "MobileNetV2"},
        {"layer": "global_average_pooling"},
        *OUTPUT,
    ]
    assert "Set image.channels=3" in refusal(layers, ImageSpec(height=32, width=32, channels=1))
    rows = summarize(layers, ImageSpec(height=96, width=65, channels=3))
    assert (rows[0].output, rows[0].parameters) == ((3, 3, 1280), 2_257_984)
    assert (rows[0].multiply_adds, rows[0].field, rows[-1].field) == (None, None, None)


def test_a_dense_layer_on_a_volume_that_is_not_flat_is_named() -> None:
    message = refusal([{"layer": "activation"}, *OUTPUT])
    assert "model.layers.1 (dense) gets the volume 32x32x3" in message
    assert "flatten" in message


@pytest.mark.parametrize(
    "layer",
    [
        CONVOLUTION,
        {"layer": "depthwise_convolution", "kernel_size": 3},
        {"layer": "separable_convolution", "kernel_size": 3, "filters": 3},
        {"layer": "fixed_convolution", "kernels": ["sobel_x"]},
        {"layer": "max_pooling"},
        {"layer": "average_pooling"},
        {"layer": "global_average_pooling"},
        {"layer": "global_max_pooling"},
    ],
    ids=lambda layer: layer["layer"],
)
def test_a_layer_that_needs_an_image_is_named_on_a_flat_volume(layer: dict[str, object]) -> None:
    message = refusal([{"layer": "flatten"}, layer, *OUTPUT])
    assert f"model.layers.1 ({layer['layer']}) gets the flat volume 3072" in message


@pytest.mark.parametrize("units", [1, 9, 11])
def test_other_outputs_than_classes_are_refused(units: int) -> None:
    message = refusal([{"layer": "flatten"}, {"layer": "dense", "units": units}, {"layer": "softmax"}])
    assert f"a network with the output {units}; expected {CLASSES}, one for each class" in message
    assert "`units: classes`" in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.layers.0.kernel_size=[3]", "a whole number above 0, or two of them: [height, width]"),
        ("model.layers.0.kernel_size=[3, 0]", "a whole number above 0, or two of them"),
        ("model.layers.0.kernel_size=true", "a whole number above 0, or two of them"),
        ("model.layers.0={layer: fixed_convolution, kernels: [sobel]}", "one of sobel_x, sobel_y"),
        ("model.layers.0={layer: fixed_convolution, kernels: [[[1, 2], [3]]]}", "rows of numbers"),
        ("model.layers.0={layer: fixed_convolution, kernels: [[[1, .nan]]]}", "rows of numbers"),
        ("model.layers.0={layer: fixed_convolution, kernels: [sobel_x, [[1]]]}", "kernels of one size"),
        ("model.layers.0={layer: fixed_convolution, kernels: []}", "at least 1 item"),
        ("model.layers.0={layer: residual, layers: []}", "at least 1 item"),
        ("model.layers.0={layer: application, name: VGG16, frozen_layers: some}", "frozen_layers is 'some'"),
    ],
)
def test_invalid_layer_settings_are_refused_in_one_line(override: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_recipe("digits", [override])
    assert "model.layers.0" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
