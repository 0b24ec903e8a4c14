"""Converting a Keras network to an ONNX graph. Imports TensorFlow, so run it in a separate process."""

import logging
import re
from collections.abc import Iterator
from typing import Any

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.tensorflow_ops import op_handlers, traceable_convolutions

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
_STANDARD_DOMAINS = ("", "ai.onnx")
# Replacements for layers that ONNX cannot express, by a word in the name of the unsupported op.
_INSTEAD = {"StatefulPartitionedCall": "convolutions with channels last"}
_MAX_QUOTE_LENGTH = 200


def convert(network: Any, image: ImageSpec, opset: int) -> Any:
    """Convert a Keras network to an `onnx.ModelProto`.

    The graph maps uint8 `image` [batch, height, width, channels] to float32 `probabilities`
    [batch, classes]. The network is traced with `training=False`.

    Raises:
        RequestError: A layer cannot be expressed in the opset; the message names it if it is known.
    """
    import tensorflow as tf
    import tf2onnx

    # tf2onnx only logs ops that it cannot express; `require_standard_ops` raises for them.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    signature = tf.TensorSpec((None, image.height, image.width, image.channels), tf.uint8, name=INPUT_NAME)

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def predict(pixels: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: network(pixels, training=False)}

    try:
        with traceable_convolutions(network):
            model, _ = tf2onnx.convert.from_function(
                predict, input_signature=[signature], opset=opset, custom_op_handlers=op_handlers()
            )
    except Exception as error:  # tf2onnx raises exceptions of many types.
        raise RequestError(
            f"the network cannot be converted to ONNX ({quote_error(error)})",
            f"layers that opset {opset} can express",
            "Replace the layer, or choose a higher opset.",
        ) from error
    _embed_captured_constants(model.graph, predict.get_concrete_function().graph.captures)
    require_standard_ops(model, opset, _layer_classes(network))
    return model


def quote_error(error: Exception) -> str:
    """The type and the beginning of a library's exception, on one line."""
    words = " ".join(str(error).split())
    shortened = words if len(words) <= _MAX_QUOTE_LENGTH else f"{words[:_MAX_QUOTE_LENGTH]}..."
    return f"{type(error).__name__}: {shortened}"


def _embed_captured_constants(graph: Any, captures: Any) -> None:
    """Turn captured constants, which tf2onnx exports as graph inputs, into initializers.

    A layer such as Normalization holds constants outside its weights.
    """
    from onnx import numpy_helper

    values = {placeholder.name: value for value, placeholder in captures}
    captured = [item for item in graph.input if item.name in values]
    for item in captured:
        graph.initializer.append(numpy_helper.from_array(values[item.name].numpy(), item.name))
        graph.input.remove(item)


def require_standard_ops(model: Any, opset: int, layers: dict[str, str]) -> None:
    """Check every node of a converted graph against the schemas of an opset.

    tf2onnx leaves an unknown op in the graph and only logs it.

    Args:
        model: A converted `onnx.ModelProto` whose nodes are named after layers.
        opset: The opset of the standard domain.
        layers: The class of each layer, by the layer's name.

    Raises:
        RequestError: A node's op, one of its attributes or its number of inputs or outputs is not in the
            opset, or the graph has an input other than the image.
    """
    for node in _all_nodes(model.graph):
        if missing := _missing_from_opset(node, opset):
            raise _cannot_express(node.name, missing, opset, layers)
    for value in model.graph.input:
        if value.name != INPUT_NAME:
            raise _cannot_express(value.name, "an additional input", opset, layers)


def _all_nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of its subgraphs, such as the branches of an If."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _all_nodes(inner)


def _missing_from_opset(node: Any, opset: int) -> str:
    """What a node uses that is not in the opset; empty if there is nothing."""
    import onnx

    is_known = node.domain in _STANDARD_DOMAINS and onnx.defs.has(node.op_type, opset, "")
    schema = onnx.defs.get_schema(node.op_type, opset, "") if is_known else None
    if schema is None or schema.deprecated:
        return str(node.op_type)
    unknown = [attribute.name for attribute in node.attribute if attribute.name not in schema.attributes]
    if unknown:
        return f"the attribute {unknown[0]} of {node.op_type}"
    if not schema.min_input <= len(node.input) <= schema.max_input:
        return f"{node.op_type} with {len(node.input)} inputs"
    if not schema.min_output <= len(node.output) <= schema.max_output:
        return f"{node.op_type} with {len(node.output)} outputs"
    return ""


def _cannot_express(place: str, what: str, opset: int, layers: dict[str, str]) -> RequestError:
    name = next((found for part in reversed(place.split("/")) if (found := _layer_of(part, layers))), None)
    layer = f"layer {name!r} ({layers[name]})" if name else f"a layer ({place})"
    kind = layers.get(name or "", "").lower()
    instead = next((better for word, better in _INSTEAD.items() if word in what or word == kind), None)
    return RequestError(
        f"{layer}, which needs {what}",
        f"layers that the standard ops of opset {opset} can express",
        f"Use {instead} instead." if instead else "Replace the layer, or choose a newer runtime version.",
    )


def _layer_of(part: str, layers: dict[str, str]) -> str | None:
    # Keras appends a number to a name that is used again.
    return next((name for name in (part, re.sub(r"_\d+$", "", part)) if name in layers), None)


def _layer_classes(network: Any) -> dict[str, str]:
    """The class of every operation of a network, including nested ones, by the operation's name."""
    found = {}
    for layer in network._flatten_layers():
        for operation in (layer, *getattr(layer, "operations", ())):
            found[operation.name] = type(operation).__name__
    return found
