"""Making a converted graph the plainest that says the same: standard ops, clear names, stable bytes."""

from collections.abc import Mapping
from typing import Any

from pipeline import __version__
from pipeline.errors import WorkError
from pipeline.export.conversion import INPUT_NAME, OUTPUT_NAME

# The first IR version of each opset's release, which the oldest runtimes for that opset can read.
_IR_VERSION = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8}


def standardize(model: Any, metadata: Mapping[str, str], documentation: str) -> Any:
    """Simplify and name a converted graph, so that the same model gives the same bytes anywhere.

    Args:
        model: An `onnx.ModelProto` as converted.
        metadata: Written into the file, replacing what tools left there.
        documentation: Written into the file for people.

    Raises:
        WorkError: The result is not a valid standard model with one input and one output.
    """
    import onnxslim

    model = onnxslim.slim(model)
    _flatten_after_global_pooling(model.graph)
    return canonicalize(model, metadata, documentation)


def canonicalize(model: Any, metadata: Mapping[str, str], documentation: str) -> Any:
    """Give a graph its final names, order and header, and leave what it computes as it is.

    Args:
        model: An `onnx.ModelProto`.
        metadata: Written into the file, replacing what tools left there.
        documentation: Written into the file for people.

    Raises:
        WorkError: The result is not a valid standard model with one input and one output.
    """
    import onnx

    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
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
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    model.ir_version = _IR_VERSION[opset]
    model.producer_name, model.producer_version = "pixelmill", __version__
    model.domain = ""
    model.doc_string = documentation
    # Last, because the tools above add entries of their own.
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    _check(model)
    return model


def serialize(model: Any) -> bytes:
    """The model's bytes; the same for the same model."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _flatten_after_global_pooling(graph: Any) -> None:
    """Flatten says the same as Squeeze for [batch, depth, 1, 1], and every engine has it."""
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
    """Sort nodes depth first from the output and constants by their first use."""
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
    """Number what converters name after layers, scopes and addresses in memory."""
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

    foreign = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if foreign or inputs != [INPUT_NAME] or outputs != [OUTPUT_NAME]:
        raise WorkError(
            f"a graph with inputs {inputs}, outputs {outputs}, foreign ops {sorted(foreign)}",
            f"one input {INPUT_NAME!r}, one output {OUTPUT_NAME!r} and standard ops only",
            "A layer brought its own constants or ops along: replace it in the recipe.",
        )
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise WorkError(
            f"an invalid ONNX graph ({error})",
            "one that passes onnx's full check",
            "Replace the layer it names, or choose another export.opset.",
        ) from error
