"""TensorFlow ops that tf2onnx does not convert by itself. Imports TensorFlow when called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Handler = Callable[[Any, Any, str, Any], None]
"""Replaces one node of a tf2onnx graph: it gets the graph, the node, the node's name and no arguments."""


def op_handlers() -> dict[str, tuple[Handler, list[Any]]]:
    """Handlers by the name of the op, as `tf2onnx.convert` accepts them.

    erfc(x) = 1 - erf(x) is part of the exact GELU, and expm1(x) = exp(x) - 1 of CELU. Both formulas lose
    digits of results close to zero. There, the activations multiply the result by their input or add it to
    larger values, and the parity check covers what remains.
    """
    return {"Erfc": (_convert_erfc, []), "Expm1": (_convert_expm1, [])}


@contextmanager
def traceable_convolutions(network: Any) -> Iterator[None]:
    """Let grouped convolutions be traced as plain ops, which ONNX can express, during the block.

    TensorFlow cannot compute them on a CPU without XLA, so Keras compiles each into a function that tf2onnx
    cannot look into. Tracing computes nothing, and ONNX's `Conv` has groups.

    Args:
        network: A Keras network. It cannot predict on a CPU during the block.
    """
    import tensorflow as tf

    def traced(layer: Any) -> Callable[[Any, Any], Any]:
        def convolve(inputs: Any, kernel: Any) -> Any:
            return tf.nn.convolution(
                inputs,
                kernel,
                strides=list(layer.strides),
                padding=layer.padding.upper(),
                data_format="NHWC",
                dilations=list(layer.dilation_rate),
            )

        return convolve

    grouped = [layer for layer in network._flatten_layers() if _is_grouped(layer)]
    for layer in grouped:
        layer.convolution_op = traced(layer)
    try:
        yield
    finally:
        for layer in grouped:
            del layer.convolution_op


def _is_grouped(layer: Any) -> bool:
    return (
        getattr(layer, "groups", 1) > 1
        and getattr(layer, "rank", 0) == 2
        and layer.data_format == "channels_last"
    )


def _convert_erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    node.type = "Erf"
    result, one = node.output[0], _make_one(graph, node)
    graph.insert_new_node_on_output("Sub", result, name=f"{name}_from_one", inputs=[one, result])


def _convert_expm1(graph: Any, node: Any, name: str, _: Any) -> None:
    node.type = "Exp"
    result, one = node.output[0], _make_one(graph, node)
    graph.insert_new_node_on_output("Sub", result, name=f"{name}_minus_one", inputs=[result, one])


def _make_one(graph: Any, node: Any) -> str:
    """The name of a constant 1 of the type of a node's output."""
    from tf2onnx.utils import map_onnx_to_numpy_type

    dtype = map_onnx_to_numpy_type(graph.get_dtype(node.output[0]))
    return str(graph.make_const(f"{node.name}_one", np.array(1, dtype)).output[0])
