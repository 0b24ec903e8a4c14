"""The final form of a graph depends on what it computes, not on how a converter wrote it."""

from random import Random

import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.graph import canonicalize, serialize, standardize
from pixelmill.pipeline.export.runtimes import OnnxVersion

VERSION = OnnxVersion(17, 8)


def converted() -> ModelProto:
    """Two branches over 6 x 6 images, one of which is split and joined again."""
    random = np.random.default_rng(4)
    weights = {
        "left": random.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "right": random.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "axes": np.array([2, 3]),
        "dense": random.normal(size=(4, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["in"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "left"], ["a"], pads=[1, 1, 1, 1], strides=[1, 1], group=1),
        helper.make_node("Split", ["a"], ["b", "c"], axis=1),
        helper.make_node("Concat", ["c", "b"], ["d"], axis=1),
        helper.make_node("Conv", ["planes", "right"], ["e"], dilations=[1, 1], strides=[1, 1]),
        helper.make_node("Add", ["d", "e"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Squeeze", ["g", "axes"], ["h"]),
        helper.make_node("MatMul", ["h", "dense"], ["i"]),
        helper.make_node("Softmax", ["i"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "converted",
        [helper.make_tensor_value_info("in", TensorProto.UINT8, [None, 6, 6, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, 5])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def written_otherwise(model: ModelProto, random: Random) -> ModelProto:
    """The same graph in another order, under other names, with remarks and with what nothing uses."""
    graph = model.graph
    unused = helper.make_node("Relu", ["floats"], ["nowhere"])
    nodes = [*graph.node, unused]
    constants = [*graph.initializer, numpy_helper.from_array(np.zeros(9), "spare")]
    random.shuffle(nodes)
    random.shuffle(constants)
    names = [name for node in nodes for name in (*node.input, *node.output)]
    new = {name: f"{random.random()}" for name in sorted(set(names)) if name not in ("in", "out")}
    for node in nodes:
        attributes = list(node.attribute)
        random.shuffle(attributes)
        renamed = helper.make_node(
            node.op_type,
            [new.get(name, name) for name in node.input],
            [new.get(name, name) for name in node.output],
            name=f"{random.random()}",
            doc_string="written by a converter",
        )
        renamed.attribute.extend(attributes)
        node.CopyFrom(renamed)
    for constant in constants:
        constant.name = new.get(constant.name, constant.name)
    other = helper.make_graph(nodes, "other", graph.input, graph.output, constants)
    return helper.make_model(other, opset_imports=model.opset_import, producer_name="another")


def final_bytes(model: ModelProto) -> bytes:
    return serialize(canonicalize(model, VERSION, {"b": "2", "a": "1"}, "A network."))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32))
def test_the_same_graph_gives_the_same_bytes_however_it_is_written(seed: int) -> None:
    assert final_bytes(written_otherwise(converted(), Random(seed))) == final_bytes(converted())


def test_the_final_form_is_final() -> None:
    once = final_bytes(converted())
    assert final_bytes(onnx.load_model_from_string(once)) == once


def test_a_graph_is_renamed_and_described() -> None:
    model = onnx.load_model_from_string(final_bytes(converted()))
    assert [node.name for node in model.graph.node][:2] == ["Cast_0", "Transpose_1"]
    (split,) = (node for node in model.graph.node if node.op_type == "Split")
    assert list(split.output) == [f"value_{split.name[6:]}", f"value_{split.name[6:]}_1"]
    assert [constant.name for constant in model.graph.initializer] == [f"constant_{at}" for at in range(4)]
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("a", "1"), ("b", "2")]
    assert (model.doc_string, model.producer_name, model.ir_version) == ("A network.", "pixelmill", 8)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    (image,), (probabilities,) = model.graph.input, model.graph.output
    assert (image.name, probabilities.name) == ("image", "probabilities")
    dimensions = [value.type.tensor_type.shape.dim[0].dim_param for value in (image, probabilities)]
    assert dimensions == ["batch", "batch"]


def test_pooling_is_flattened_and_nothing_else_changes() -> None:
    images = np.random.default_rng(5).integers(0, 256, (3, 6, 6, 3), np.uint8)
    simplified = standardize(converted(), VERSION, {}, "")
    ops = [node.op_type for node in simplified.graph.node]
    assert "Flatten" in ops
    assert "Squeeze" not in ops
    predictions = []
    for model, name in ((converted(), "in"), (simplified, "image")):
        (output,) = onnx.reference.ReferenceEvaluator(model).run(None, {name: images})
        predictions.append(np.asarray(output))
    assert np.abs(predictions[0] - predictions[1]).max() < 1e-5


def test_a_graph_with_two_outputs_is_refused() -> None:
    model = converted()
    model.graph.output.append(helper.make_tensor_value_info("i", TensorProto.FLOAT, [None, 5]))
    with pytest.raises(RequestError, match="a graph with the outputs"):
        final_bytes(model)
