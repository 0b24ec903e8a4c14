"""From a Keras network to an ONNX graph. Run it in a process of its own: it imports TensorFlow."""

import logging
import re
from typing import Any

from pipeline.config import ImageSpec
from pipeline.errors import RequestError, WorkError

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
_STANDARD_DOMAINS = ("", "ai.onnx")
# What to take instead of layers that ONNX cannot express, by a word that the trouble has in its name.
_INSTEAD = {
    "Erfc": "gelu with approximate=True",
    "Expm1": "elu or relu",
    "StatefulPartitionedCall": "convolutions without groups, or depthwise ones",
    "normalization": "Rescaling with a scale and an offset for each channel",
}


def convert(network: Any, image: ImageSpec, opset: int) -> Any:
    """Convert a Keras network to an `onnx.ModelProto` of an opset.

    The graph takes uint8 `image` [batch, height, width, channels] and gives float32 `probabilities`
    [batch, classes]. Called with `training=False`, so that no layer acts as it does in training.

    Raises:
        RequestError: A layer cannot be expressed in that opset; it is named.
    """
    import tensorflow as tf
    import tf2onnx

    # It prints a line of what it cannot express, and goes on; `require_standard_ops` ends it.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    signature = tf.TensorSpec((None, image.height, image.width, image.channels), tf.uint8, name=INPUT_NAME)

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def answer(pixels: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: network(pixels, training=False)}

    try:
        model, _ = tf2onnx.convert.from_function(answer, input_signature=[signature], opset=opset)
    except Exception as error:  # tf2onnx raises whatever the layer's conversion stumbled over.
        raise WorkError(
            f"the network cannot be converted to ONNX ({type(error).__name__}: {error})",
            f"layers that opset {opset} can express",
            "Replace the layer, or raise the opset.",
        ) from error
    require_standard_ops(model, opset, _names_of_layers(network))
    return model


def require_standard_ops(model: Any, opset: int, layers: dict[str, str]) -> None:
    """See that a converted graph says all it needs in the ops of an opset.

    tf2onnx leaves an op that it does not know in the graph, and takes constants that it cannot fold for
    further inputs; in both cases it only prints a line.

    Args:
        model: An `onnx.ModelProto` as converted, its nodes named after layers.
        opset: Of the standard domain.
        layers: What to call each layer, by its name.

    Raises:
        RequestError: An op is not in the opset, or a layer brought inputs of its own along.
    """
    for node in model.graph.node:
        if not _is_in_opset(node, opset):
            raise _cannot_express(node.name, node.op_type, opset, layers)
    for value in model.graph.input:
        if value.name != INPUT_NAME:
            raise _cannot_express(value.name, "a constant of its own", opset, layers)


def _is_in_opset(node: Any, opset: int) -> bool:
    import onnx

    if node.domain not in _STANDARD_DOMAINS:
        return False
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return False
    return not schema.deprecated


def _cannot_express(place: str, what: str, opset: int, layers: dict[str, str]) -> RequestError:
    name = next((found for part in reversed(place.split("/")) if (found := _layer_of(part, layers))), None)
    layer = f"layer {name!r} ({layers[name]})" if name else f"a layer ({place})"
    kind = layers.get(name or "", "").lower()
    instead = next((better for word, better in _INSTEAD.items() if word in what or word == kind), None)
    return RequestError(
        f"{layer}, which needs {what}",
        f"layers that the standard ops of opset {opset} can express",
        f"Use {instead} instead." if instead else "Replace the layer, or take a newer runtime's opset.",
    )


def _layer_of(part: str, layers: dict[str, str]) -> str | None:
    # Keras numbers a layer's name where it meets it again.
    return next((name for name in (part, re.sub(r"_\d+$", "", part)) if name in layers), None)


def _names_of_layers(network: Any) -> dict[str, str]:
    """The class of every operation of a network, also of those within another, by its name."""
    found = {}
    for layer in network._flatten_layers():
        for operation in (layer, *getattr(layer, "operations", ())):
            found[operation.name] = type(operation).__name__
    return found
