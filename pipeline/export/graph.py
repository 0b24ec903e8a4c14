"""Simplifying a converted graph: standard ops, clear names, and the same bytes for the same model."""

from collections.abc import Mapping
from typing import Any

from pixelmill.pipeline import __version__
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.conversion import INPUT_NAME, OUTPUT_NAME, quote_error, require_standard_ops
from pixelmill.pipeline.export.runtimes import OnnxVersion


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
    import onnxslim

    model = onnxslim.slim(model)
    _flatten_after_global_pooling(model.graph)
    return canonicalize(model, version, metadata, documentation)


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
    import onnx

    graph = model.graph
    _drop_unused_constants(graph)
    _name_batch_dimension(graph)
    _order(graph)
    _rename_values(graph)
    graph.name = "pixelmill"
    graph.doc_string = ""
    for node in graph.node:
        node.doc_string = ""
    del graph.value_info[:]
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", version.opset))
    model.ir_version = version.ir_version
    model.producer_name, model.producer_version = "pixelmill", __version__
    model.domain = ""
    model.doc_string = documentation
    # This comes last because the tools above add metadata.
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    _check(model)
    return model


def serialize(model: Any) -> bytes:
    """The model's bytes, always the same for the same model."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _flatten_after_global_pooling(graph: Any) -> None:
    """Replace Squeeze after global pooling by Flatten, which is equivalent and supported by every engine."""
    import onnx

    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        source = producers.get(node.input[0]) if node.op_type == "Squeeze" else None
        if source is not None and source.op_type.startswith("Global"):
            flatten = onnx.helper.make_node("Flatten", node.input[:1], list(node.output), axis=1)
            node.CopyFrom(flatten)


def _drop_unused_constants(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _name_batch_dimension(graph: Any) -> None:
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _order(graph: Any) -> None:
    """Sort nodes depth-first from the output, and constants by their first use."""
    producers = {output: node for node in graph.node for output in node.output}
    ordered: list[Any] = []
    done: set[int] = set()
    stack = [(producers[value.name], False) for value in reversed(graph.output)]
    while stack:
        node, inputs_done = stack.pop()
        if id(node) in done:
            continue
        if inputs_done:
            done.add(id(node))
            ordered.append(node)
            continue
        stack.append((node, True))
        stack += [(producers[name], False) for name in reversed(node.input) if name in producers]
    copies = []
    for node in ordered:
        copy = type(node)()
        copy.CopyFrom(node)
        attributes = sorted(copy.attribute, key=lambda attribute: attribute.name)
        kept = [type(attribute).FromString(attribute.SerializeToString()) for attribute in attributes]
        del copy.attribute[:]
        copy.attribute.extend(kept)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
    uses = {name: at for at, name in reversed(list(enumerate(_inputs(graph))))}
    constants = sorted(graph.initializer, key=lambda constant: uses[constant.name])
    constants = [type(constant).FromString(constant.SerializeToString()) for constant in constants]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _rename_values(graph: Any) -> None:
    """Number nodes and values, which converters name after layers, scopes and memory addresses."""
    names = {graph.input[0].name: INPUT_NAME, graph.output[0].name: OUTPUT_NAME}
    for index, constant in enumerate(graph.initializer):
        names[constant.name] = constant.name = f"constant_{index}"
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        for output in node.output:
            names.setdefault(output, f"value_{index}")
    for node in graph.node:
        inputs = [names[name] if name else "" for name in node.input]
        outputs = [names[name] for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
    graph.input[0].name, graph.output[0].name = INPUT_NAME, OUTPUT_NAME


def _inputs(graph: Any) -> list[str]:
    return [name for node in graph.node for name in node.input]


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
