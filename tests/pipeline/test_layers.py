"""What a list of layers makes of a volume: by hand, in refusals, and as Keras builds it."""

import pytest

from pipeline.config import ImageSpec, ModelSpec
from pipeline.errors import RequestError
from pipeline.layers import LayerSummary, summarize_layers
from pipeline.recipes import load_recipe

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
    assert rows == (
        LayerSummary("convolution", (32, 32, 12), 3 * 3 * 3 * 12 + 12),
        LayerSummary("activation", (32, 32, 12), 0),
        LayerSummary("max_pooling", (16, 16, 12), 0),
        LayerSummary("flatten", (3072,), 0),
        LayerSummary("dense", (10,), 3072 * 10 + 10),
        LayerSummary("softmax", (10,), 0),
    )
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
    ],
)
@pytest.mark.parametrize("kind", ["convolution", "max_pooling", "average_pooling"])
def test_sides_by_size_stride_and_padding(
    kind: str, size: int, stride: int, padding: str, sides: tuple[int, int]
) -> None:
    own: dict[str, object] = {"filters": 4, "kernel_size": size} if kind == "convolution" else {"size": size}
    layer = {"layer": kind, "stride": stride, "padding": padding, **own}
    rows = summarize(
        [layer, {"layer": "global_average_pooling"}, *OUTPUT], ImageSpec(height=32, width=28, channels=3)
    )
    depth = 4 if kind == "convolution" else 3
    assert rows[0].output == (*sides, depth)
    assert rows[0].parameters == (size * size * 3 * 4 if kind == "convolution" else 0)


def test_pooling_steps_by_its_size_unless_told() -> None:
    rows = summarize(
        [
            {"layer": "max_pooling", "size": 3},
            {"layer": "average_pooling", "size": 3, "stride": 1},
            {"layer": "global_max_pooling"},
            *OUTPUT,
        ]
    )
    assert [row.output for row in rows] == [(10, 10, 3), (8, 8, 3), (3,), (10,), (10,)]


def test_parameters_of_each_kind() -> None:
    rows = summarize(
        [
            {"layer": "convolution", "filters": 8, "kernel_size": 5},
            {"layer": "batch_normalization"},
            {"layer": "dropout", "rate": 0.5},
            {"layer": "global_average_pooling"},
            {"layer": "dense", "units": 20},
            {"layer": "batch_normalization"},
            *OUTPUT,
        ]
    )
    assert [row.parameters for row in rows] == [
        5 * 5 * 3 * 8,
        4 * 8,
        0,
        0,
        8 * 20 + 20,
        4 * 20,
        20 * 10 + 10,
        0,
    ]


def test_a_pooling_that_finds_too_few_pixels_is_named() -> None:
    message = refusal(
        [
            {"layer": "max_pooling", "size": 4},
            {"layer": "max_pooling", "size": 9},
            {"layer": "flatten"},
            *OUTPUT,
        ]
    )
    assert "model.layers.1 (max_pooling) of size 9 gets the volume 8x8x3" in message
    assert "at least 9x9 pixels" in message


def test_a_convolution_that_finds_too_few_pixels_is_named() -> None:
    message = refusal(
        [
            {"layer": "convolution", "filters": 8, "kernel_size": 5, "padding": "valid"},
            {"layer": "flatten"},
            *OUTPUT,
        ],
        ImageSpec(height=32, width=4, channels=1),
    )
    assert "model.layers.0 (convolution) of size 5 gets the volume 32x4x1" in message


def test_a_dense_layer_on_a_volume_that_is_not_flat_is_named() -> None:
    message = refusal([{"layer": "activation"}, *OUTPUT])
    assert "model.layers.1 (dense) gets the volume 32x32x3" in message
    assert "flatten" in message


@pytest.mark.parametrize(
    "layer",
    [
        {"layer": "convolution", "filters": 8, "kernel_size": 3},
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


def test_the_summary_is_what_keras_builds() -> None:
    from pipeline.training.network import build_network

    recipes = {name: load_recipe(name) for name in ("digits", "mnist", "folder")}
    many: Layers = [
        {"layer": "convolution", "filters": 4, "kernel_size": 4, "stride": 3, "bias": True},
        {"layer": "average_pooling", "size": 2, "stride": 1, "padding": "same"},
        {"layer": "convolution", "filters": 5, "kernel_size": 2, "stride": 2, "padding": "valid"},
        {"layer": "max_pooling", "size": 3, "stride": 2, "padding": "same"},
        *[dict[str, object](layer="activation", function=name) for name in ("leaky_relu", "elu", "silu")],
        {"layer": "max_pooling", "size": 2, "padding": "valid"},
        {"layer": "flatten"},
        {"layer": "dense", "units": 7},
        {"layer": "batch_normalization"},
        *OUTPUT,
    ]
    networks = {name: (recipe.model, recipe.image) for name, recipe in recipes.items()}
    networks["every layer"] = (
        ModelSpec.model_validate({"layers": many}),
        ImageSpec(height=37, width=41, channels=3),
    )
    for name, (model, image) in networks.items():
        rows = summarize_layers(model, image, CLASSES)
        built = build_network(model, image, CLASSES)
        layers = built.layers[2:]  # After the input and the scaling, which no recipe lists.
        assert [row.output for row in rows] == [tuple(layer.output.shape[1:]) for layer in layers], name
        assert [row.parameters for row in rows] == [layer.count_params() for layer in layers], name
        assert sum(row.parameters for row in rows) == built.count_params(), name
