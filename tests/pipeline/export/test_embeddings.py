"""The ONNX file with embeddings: the input of the last dense layer, and the same probabilities."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import TypeAdapter

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import EMBEDDINGS_FILE, ONNX_FILE, PARITY_FILE, ModelBundle
from pixelmill.pipeline.bundles.engines import EngineName
from pixelmill.pipeline.bundles.golden import GOLDEN_FOLDER, read_golden
from pixelmill.pipeline.bundles.verification import verify_bundle
from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.export.embeddings import add_embedding, export_embeddings
from pixelmill.pipeline.export.held_out import HeldOut, from_folder
from pixelmill.pipeline.export.parity import Parity
from pixelmill.pipeline.inference import load_session
from tests.conftest import update_manifest

ENGINE = [EngineName.ONNXRUNTIME]


@pytest.fixture
def copy(bundle: ModelBundle, tmp_path: Path) -> ModelBundle:
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    return replace(bundle, folder=tmp_path / "bundle")


def proof_of(bundle: ModelBundle) -> Parity:
    return TypeAdapter(Parity).validate_python(read_json(bundle.folder / PARITY_FILE))


def held_out(bundle: ModelBundle) -> HeldOut:
    return from_folder(bundle.folder / GOLDEN_FOLDER, bundle.labels(), bundle.image_spec())


def test_the_embedding_is_the_input_of_the_last_dense_layer(copy: ModelBundle) -> None:
    size = export_embeddings(copy, held_out(copy), proof_of(copy))
    session = load_session(copy.folder / EMBEDDINGS_FILE)
    golden = read_golden(copy.folder)
    probabilities, embeddings = session.probabilities_and_embeddings(golden.tensors)
    assert embeddings.shape == (len(golden.tensors), size)
    assert embeddings.dtype == np.float32
    assert np.array_equal(probabilities, load_session(copy.onnx_path).probabilities(golden.tensors))
    # The last dense layer and a softmax, computed here, give the probabilities.
    graph = onnx.load(copy.onnx_path).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (dense,) = (node for node in graph.node if node.op_type in ("Gemm", "MatMul"))
    matrix = weights[dense.input[1]]
    bias = next(
        weights[name]
        for node in graph.node
        for name in node.input
        if weights.get(name, matrix).ndim == 1 and len(weights[name]) == 10
    )
    logits = embeddings.astype(np.float64) @ (matrix if matrix.shape[0] == size else matrix.T) + bias
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert np.allclose(exponents / exponents.sum(axis=1, keepdims=True), probabilities, atol=1e-5)


def test_the_same_model_gives_the_same_bytes(bundle: ModelBundle) -> None:
    content = bundle.onnx_path.read_bytes()
    assert add_embedding(content, "model.onnx") == add_embedding(content, "model.onnx")
    found = onnx.load_from_string(add_embedding(content, "model.onnx")[0])
    assert [value.name for value in found.graph.output] == ["probabilities", "embedding"]
    assert found.metadata_props == onnx.load_from_string(content).metadata_props


def test_a_file_that_predicts_otherwise_is_refused(
    copy: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turned(content: bytes, name: str) -> tuple[bytes, int]:
        """The file of another network: its last dense layer has other weights."""
        made, size = add_embedding(content, name)
        model = onnx.load_from_string(made)
        (dense,) = (node for node in model.graph.node if node.op_type in ("Gemm", "MatMul"))
        for tensor in model.graph.initializer:
            if tensor.name == dense.input[1]:
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
        return model.SerializeToString(), size

    monkeypatch.setattr("pixelmill.pipeline.export.embeddings.add_embedding", turned)
    with pytest.raises(GateRefused, match="labels differ"):
        export_embeddings(copy, held_out(copy), proof_of(copy))
    assert not (copy.folder / EMBEDDINGS_FILE).exists()


def test_verification_replays_the_file_with_embeddings(copy: ModelBundle) -> None:
    export_embeddings(copy, held_out(copy), proof_of(copy))
    update_manifest(copy.folder)
    assert {check.file: check.agrees for check in verify_bundle(copy, ENGINE).engines} == {
        ONNX_FILE: True,
        EMBEDDINGS_FILE: True,
    }
    path = copy.folder / EMBEDDINGS_FILE
    model = onnx.load(path)
    (dense,) = (node for node in model.graph.node if node.op_type in ("Gemm", "MatMul"))
    for tensor in model.graph.initializer:
        if tensor.name == dense.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path)
    update_manifest(copy.folder)
    assert {check.file: check.agrees for check in verify_bundle(copy, ENGINE).engines} == {
        ONNX_FILE: True,
        EMBEDDINGS_FILE: False,
    }


def network_without_dense_head(with_dense_inside: bool) -> bytes:
    """Ends with a convolution and pooling; a dense layer inside is no last one."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(4, 4, 1, 1)).astype(np.float32),
        "matrix": rng.normal(size=(4, 4)).astype(np.float32),
    }
    nodes = [helper.make_node("Cast", ["image"], ["floats"], name="cast", to=TensorProto.FLOAT)]
    last = "floats"
    if with_dense_inside:
        nodes.append(helper.make_node("MatMul", [last, "matrix"], ["mixed"], name="inside"))
        last = "mixed"
    nodes += [
        helper.make_node("Conv", [last, "kernel"], ["maps"], name="convolution"),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Softmax", ["flat"], ["probabilities"], name="softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4, 4, 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    content: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return content


@pytest.mark.parametrize("with_dense_inside", [False, True])
def test_a_network_without_a_last_dense_layer_is_refused(with_dense_inside: bool) -> None:
    with pytest.raises(RequestError, match="has no dense layer"):
        add_embedding(network_without_dense_head(with_dense_inside), "model.onnx")
