"""Simplifying a converted graph: standard ops, clear names, and the same bytes for the same model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pixelmill.pipeline import __version__
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.conversion import INPUT_NAME, OUTPUT_NAME, quote_error, require_standard_ops
from pixelmill.pipeline.export.runtimes import OnnxVersion

if TYPE_CHECKING:
    import onnx_ir


def standardize(model: Any, version: OnnxVersion, metadata: Mapping[str, str], documentation: str) -> Any:
    """Simplify a converted graph and rename its values, so that the same model always gives the same bytes.

    Args:
        model: A converted `onnx.ModelProto`.
        version: The opset it was converted to, and the IR version to write.
        metadata: The file's metadata, which replaces any that tools wrote.
        documentation: The file's documentation string.

    Raises:
        RequestError: The result is not a valid standard model with one input and one output.
    """
    import onnx_ir
    import onnxslim

    simplified = onnx_ir.from_proto(onnxslim.slim(model))
    _flatten_after_global_pooling(simplified.graph)
    return _finish(simplified, version, metadata, documentation)


def canonicalize(model: Any, version: OnnxVersion, metadata: Mapping[str, str], documentation: str) -> Any:
    """Give a graph its final names, order and header without changing what it computes.

    Args:
        model: An `onnx.ModelProto`.
        version: The opset of its ops, and the IR version to write.
        metadata: The file's metadata, which replaces any that tools wrote.
        documentation: The file's documentation string.

    Raises:
        RequestError: The result is not a valid standard model with one input and one output.
    """
    import onnx_ir

    return _finish(onnx_ir.from_proto(model), version, metadata, documentation)


def serialize(model: Any) -> bytes:
    """The model's bytes, always the same for the same model."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _finish(
    model: "onnx_ir.Model", version: OnnxVersion, metadata: Mapping[str, str], documentation: str
) -> Any:
    import onnx_ir
    from onnx_ir.passes import Sequential, common

    Sequential(common.RemoveUnusedNodesPass(), common.ClearMetadataAndDocStringPass())(model)
    graph = model.graph
    _order(graph)
    _rename_values(graph)
    for value in (*graph.inputs, *graph.outputs):
        value.shape = onnx_ir.Shape(["batch", *(value.shape or ())[1:]])
    graph.name = "pixelmill"
    model.opset_imports.clear()
    model.opset_imports[""] = version.opset
    model.ir_version = version.ir_version
    model.producer_name, model.producer_version = "pixelmill", __version__
    model.domain = None
    model.doc_string = documentation
    model.metadata_props.clear()
    model.metadata_props.update(sorted(metadata.items()))
    finished = onnx_ir.to_proto(model)
    del finished.graph.value_info[:]
    _check(finished)
    return finished


def _flatten_after_global_pooling(graph: "onnx_ir.Graph") -> None:
    """Replace Squeeze after global pooling by Flatten, which is equivalent and supported by every engine."""
    import onnx_ir

    for node in graph:
        pooled = node.inputs[0] if node.op_type == "Squeeze" else None
        source = pooled.producer() if pooled is not None else None
        if source is not None and source.op_type.startswith("Global"):
            node.op_type = "Flatten"
            node.resize_inputs(1)
            node.attributes.clear()
            node.attributes.add(onnx_ir.AttrInt64("axis", 1))


def _order(graph: "onnx_ir.Graph") -> None:
    """Sort nodes depth-first from the output, constants by their first use, and attributes by name.

    Unlike a stable topological sort, this does not depend on the order in which converters wrote them.
    """
    ordered: dict[onnx_ir.Node, None] = {}
    stack = [(value.producer(), False) for value in reversed(graph.outputs)]
    while stack:
        node, inputs_done = stack.pop()
        if node is None or node in ordered:
            continue
        if inputs_done:
            ordered[node] = None
            continue
        stack.append((node, True))
        stack += [(value.producer(), False) for value in reversed(node.inputs) if value is not None]
    for node in ordered:
        attributes = sorted(node.attributes.items())
        node.attributes.clear()
        node.attributes.update(attributes)
    graph.remove(list(graph))
    graph.extend(ordered)
    constants = dict.fromkeys(
        value for node in ordered for value in node.inputs if value is not None and value.is_initializer()
    )
    graph.initializers.clear()
    for index, constant in enumerate(constants):
        constant.name = f"constant_{index}"
        graph.initializers.add(constant)


def _rename_values(graph: "onnx_ir.Graph") -> None:
    """Number nodes and values, which converters name after layers, scopes and memory addresses."""
    for index, node in enumerate(graph):
        node.name = f"{node.op_type}_{index}"
        for at, output in enumerate(node.outputs):
            if output.name:  # An optional output that is left out has no name.
                output.name = f"value_{index}_{at}" if at else f"value_{index}"
    graph.inputs[0].name, graph.outputs[0].name = INPUT_NAME, OUTPUT_NAME


def _check(model: Any) -> None:
    import onnx

    # Simplification may have introduced ops that are not in the opset.
    require_standard_ops(model, model.opset_import[0].version, {})
    outputs = [value.name for value in model.graph.output]
    if outputs != [OUTPUT_NAME]:
        raise RequestError(
            f"a graph with the outputs {outputs}",
            f"one output {OUTPUT_NAME!r}",
            "Build the network with one output, the probabilities.",
        )
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RequestError(
            f"a network whose ONNX graph is invalid ({quote_error(error)})",
            "a graph that passes onnx's full check",
            "Replace the layer that causes it, or choose another export.opset.",
        ) from error
