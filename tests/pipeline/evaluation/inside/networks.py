"""Untrained networks of every kind and their pages, made in one separate process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.evaluation.inside.maps import MapSection, draw_sections, find_fields
from pixelmill.pipeline.evaluation.inside.page import MAX_CHANNELS, choose_images, draw_inside
from pixelmill.pipeline.layers import summarize_layers
from pixelmill.pipeline.recipes import load_recipe, parse_recipe
from pixelmill.pipeline.training.activations import list_map_layers, predict_logits, record_maps
from pixelmill.pipeline.training.class_activation import map_classes
from pixelmill.pipeline.training.devices import import_tensorflow
from tests.datasets import prepare_test_images

SIDE = 32
NAMES = ("<script>alert(1)</script>", "b & c", "third")
Layers = list[dict[str, Any]]
Array = npt.NDArray[np.float32]
OUTPUT: Layers = [{"layer": "dense", "units": "classes"}, {"layer": "softmax"}]
NETWORKS: dict[str, Layers] = {
    "plain": [
        {"layer": "convolution", "filters": 14, "kernel_size": 3},
        {"layer": "batch_normalization"},
        {"layer": "activation", "function": "relu"},
        {"layer": "max_pooling", "size": 2},
        {"layer": "convolution", "filters": 6, "kernel_size": 3, "stride": 2},
        {"layer": "global_average_pooling"},
        {"layer": "dropout", "rate": 0.1},
        *OUTPUT,
    ],
    "residual": [
        {"layer": "fixed_convolution", "kernels": ["sobel_x", "scharr_y"]},
        {"layer": "convolution", "filters": 8, "kernel_size": 3, "padding": "full"},
        {"layer": "activation", "function": "gelu"},
        {
            "layer": "residual",
            "layers": [
                {"layer": "convolution", "filters": 12, "kernel_size": 3, "stride": 2},
                {"layer": "activation"},
                {"layer": "depthwise_convolution", "kernel_size": 3},
            ],
        },
        {"layer": "separable_convolution", "filters": 9, "kernel_size": 3},
        {"layer": "average_pooling", "size": 2},
        {"layer": "flatten"},
        {"layer": "dense", "units": 7},
        {"layer": "activation"},
        *OUTPUT,
    ],
    "dense": [{"layer": "flatten"}, {"layer": "dense", "units": 5}, {"layer": "activation"}, *OUTPUT],
    "pretrained": [
        {"layer": "application", "name": "MobileNet"},
        {"layer": "global_average_pooling"},
        *OUTPUT,
    ],
}


@dataclass(frozen=True)
class Drawn:
    """A page, and what an independent computation with Keras gives for the same network.

    Attributes:
        page: The page.
        probabilities: The predictions of the network for all images.
        chosen: The indices of the images shown.
        labels: The class index of each image.
        outputs: The output of each of Keras's layers for the images shown, by name.
        sections: The feature maps as drawn.
        logits: The logits of the images shown.
        class_maps: The class activation maps of all classes for the first image; empty for a
            network whose page alone is tested, like the other fields below.
        biases: The biases of all classes.
        insensitive: For each layer, the largest change of its strongest value when every pixel outside its
            receptive field is changed.
    """

    page: str
    probabilities: Array
    chosen: list[int]
    labels: list[int]
    outputs: dict[str, Array]
    sections: list[MapSection]
    logits: Array
    class_maps: Array
    biases: Array
    insensitive: dict[str, float]


def recipe_of(layers: Layers) -> Recipe:
    content = load_recipe("digits").model_dump()
    content["model"] = {"layers": layers}
    content["image"] = {"height": SIDE, "width": SIDE, "channels": 3}
    return parse_recipe(content, "made-up")


def draw_networks(folder: Path) -> dict[str, Drawn]:
    """Build every network with random weights and draw its page."""
    import_tensorflow()
    return {kind: _draw(kind, layers, folder / kind) for kind, layers in NETWORKS.items()}


def _draw(kind: str, layers: Layers, folder: Path) -> Drawn:
    import keras

    from pixelmill.pipeline.training.network import build_network

    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (9, SIDE, SIDE, 3), np.uint8)
    labels = [index % 3 for index in range(len(pixels))]
    files = [f"<b>/{index}.png" for index in range(len(pixels))]
    dataset = prepare_test_images(folder, pixels, labels, files, NAMES)
    recipe = recipe_of(layers)
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    network = build_network(recipe.model, recipe.image, len(NAMES))
    probabilities = network.predict_on_batch(pixels)
    chosen = list(choose_images(probabilities, np.array(labels)).values())
    shown = pixels[chosen]
    page = draw_inside(network, dataset, probabilities, recipe)
    logits = predict_logits(network, shown)
    none = np.zeros(0, np.float32)
    if kind not in ("plain", "residual"):
        return Drawn(page, probabilities, chosen, labels, {}, [], logits, none, none, {})
    layers_found = list_map_layers(network)
    summaries = summarize_layers(recipe.model, recipe.image, len(NAMES))
    fields = find_fields(layers_found, summaries)
    sections = draw_sections(record_maps(network, layers_found, shown, MAX_CHANNELS), fields, summaries)
    own = [layer for layer in network.layers if len(layer.output.shape) == 4 and layer.name[0].isdigit()]
    values = keras.Model(network.inputs, [layer.output for layer in own])([shown], training=False)
    (maps,) = map_classes(network, shown[:1], [[0, 1, 2]])
    return Drawn(
        page=page,
        probabilities=probabilities,
        chosen=chosen,
        labels=labels,
        outputs={layer.name: np.asarray(value) for layer, value in zip(own, values, strict=True)},
        sections=sections,
        logits=logits,
        class_maps=maps.values,
        biases=maps.biases,
        insensitive=_change_outside(network, shown[:1], sections, layers_found),
    )


def _change_outside(network: Any, pixels: Any, sections: list[MapSection], layers: Any) -> dict[str, float]:
    changes = {}
    for section, layer in zip(sections, layers, strict=True):
        drawn = section.images[0]
        if drawn.box is None:
            continue
        box, other = drawn.box, 255 - pixels
        rows = slice(max(box.top, 0), max(box.top + box.height, 0))
        columns = slice(max(box.left, 0), max(box.left + box.width, 0))
        other[:, rows, columns] = pixels[:, rows, columns]
        after = record_maps(network, [layer], other, MAX_CHANNELS)[0].values[0]
        at = drawn.row, drawn.column, drawn.channel
        changes[layer.name] = abs(float(after[at]) - drawn.strongest)
    return changes
