"""`verify` on malicious bundles, which read other files, loop, exhaust memory, or mislead."""

import io
import os
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pixelmill.pipeline.artifacts import read_json, read_verified, write_json
from pixelmill.pipeline.bundles import ONNX_FILE, ModelBundle
from pixelmill.pipeline.bundles.engines import EngineName
from pixelmill.pipeline.bundles.external_data import external_locations, require_embedded_weights
from pixelmill.pipeline.bundles.golden import parse_array, read_golden
from pixelmill.pipeline.bundles.verification import verify_bundle
from pixelmill.pipeline.errors import RequestError, WorkError
from tests.conftest import Run, update_manifest

ENGINE = [EngineName.ONNXRUNTIME]


@pytest.fixture
def copy(bundle: ModelBundle, tmp_path: Path) -> ModelBundle:
    shutil.copytree(bundle.folder, tmp_path / "copy")
    return replace(bundle, folder=tmp_path / "copy")


def external(location: str, name: str = "weights") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def in_constant(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_subgraph(model: onnx.ModelProto, tensor: TensorProto) -> None:
    graph = helper.make_graph([], "inner", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph))


def in_sparse_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)


def in_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    model.functions.append(
        helper.make_function("here", "f", [], ["c"], [node], [helper.make_opsetid("", 17)])
    )


def in_list_of_tensors(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Own", [], ["c"], domain="here", values=[tensor]))


PLACES = [
    in_initializer,
    in_constant,
    in_subgraph,
    in_sparse_initializer,
    in_function,
    in_list_of_tensors,
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["model.onnx.data", "/etc/passwd", "../../other", ""])
def test_weights_in_another_file_are_found_wherever_they_are(
    place: Callable[[onnx.ModelProto, TensorProto], None], location: str
) -> None:
    model = onnx.ModelProto()
    in_initializer(model, numpy_helper.from_array(np.ones(4, np.float32), "inside"))
    assert external_locations(model.SerializeToString()) == ()
    place(model, external(location))
    assert external_locations(model.SerializeToString()) == (location,)


def test_our_own_models_have_no_external_data(bundle: ModelBundle) -> None:
    assert external_locations(bundle.onnx_path.read_bytes()) == ()


@given(st.binary(max_size=200))
def test_bytes_that_are_not_a_model_are_searched_to_the_end(content: bytes) -> None:
    assert isinstance(external_locations(content), tuple)


@given(st.integers(0, 3000), st.binary(min_size=1, max_size=4))
def test_a_damaged_model_is_searched_to_the_end(place: int, noise: bytes) -> None:
    model = onnx.ModelProto()
    for add in PLACES:
        add(model, external("model.onnx.data"))
    content = bytearray(model.SerializeToString())
    content[place % len(content) :][: len(noise)] = noise
    external_locations(bytes(content))


@pytest.mark.parametrize("listed", [True, False])
def test_a_model_with_external_weights_is_refused(listed: bool, copy: ModelBundle, tmp_path: Path) -> None:
    target = str(tmp_path / "outside.bin") if not listed else "model.onnx.data"
    (copy.folder / target).write_bytes(np.ones(4, np.float32).tobytes())
    model = onnx.load(copy.onnx_path)
    model.graph.initializer.append(external(target))
    copy.onnx_path.write_bytes(model.SerializeToString())
    update_manifest(copy.folder)
    with pytest.raises(WorkError, match="stores weights in another file") as caught:
        verify_bundle(copy, ENGINE)
    assert target in str(caught.value)


@pytest.mark.parametrize("name", ["model.onnx.data", "golden/more.png", "notes.txt"])
def test_an_unlisted_file_is_refused(name: str, copy: ModelBundle) -> None:
    (copy.folder / name).write_bytes(b"added")
    with pytest.raises(WorkError, match=name):
        verify_bundle(copy, ENGINE)


def with_tail(model: onnx.ModelProto, nodes: list[onnx.NodeProto], tensors: list[TensorProto]) -> bytes:
    """The model with more nodes before its output, whose input is called `before`."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["before" if name == "probabilities" else name for name in node.output]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    return bytes(model.SerializeToString())


def endless_loop(model: onnx.ModelProto) -> bytes:
    """A loop that adds zero 2**63 - 1 times."""
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "zero"], ["y"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    tensors = [
        numpy_helper.from_array(np.array(2**63 - 1), "often"),
        numpy_helper.from_array(np.array(True), "start"),
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
    ]
    loop = helper.make_node("Loop", ["often", "start", "before"], ["probabilities"], body=body)
    return with_tail(model, [loop], tensors)


def huge_array(model: onnx.ModelProto) -> bytes:
    """A node that allocates an array of a terabyte, and adds its minimum, zero."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["much"]),
        helper.make_node("ReduceMin", ["much"], ["least"], keepdims=0),
        helper.make_node("Add", ["before", "least"], ["probabilities"]),
    ]
    return with_tail(model, nodes, [numpy_helper.from_array(np.array([2**19, 2**19]), "shape")])


def put(copy: ModelBundle, make: Callable[[onnx.ModelProto], bytes]) -> None:
    copy.onnx_path.write_bytes(make(onnx.load(copy.onnx_path)))
    update_manifest(copy.folder)


@pytest.mark.timeout(120)
def test_an_endless_loop_is_one_line(run: Run, copy: ModelBundle) -> None:
    put(copy, endless_loop)
    result = run("verify", copy.folder, "--engine", "onnxruntime", "--timeout", "1")
    assert result.code == 3
    (line,) = [line for line in result.output.splitlines() if line.startswith("onnxruntime ")]
    assert line.endswith("cannot run the model: it does not finish within 1 s")
    (error,) = result.errors.strip().splitlines()
    assert error.startswith("pixelmill: ")


@pytest.mark.parametrize("engine", [EngineName.ONNXRUNTIME, EngineName.REFERENCE])
def test_a_model_that_allocates_a_terabyte_is_reported(engine: EngineName, copy: ModelBundle) -> None:
    put(copy, huge_array)
    (check,) = verify_bundle(copy, [engine]).engines
    assert check.difference is None
    assert check.error


def test_the_model_that_runs_is_the_one_that_was_hashed(
    copy: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced as soon as the bytes that an engine gets have been read."""
    reads: list[str] = []

    def read_and_swap(folder: Path, name: str, manifest: dict[str, Any] | None = None) -> bytes:
        content = read_verified(folder, name, manifest)
        reads.append(name)
        if reads.count(ONNX_FILE) == 2:  # The first read looks for weights in other files.
            copy.onnx_path.write_bytes(b"another model")
        return content

    monkeypatch.setattr("pixelmill.pipeline.bundles.verification.read_verified", read_and_swap)
    found = verify_bundle(copy, ENGINE)
    assert copy.onnx_path.read_bytes() == b"another model"
    assert found.agrees


def test_a_model_that_is_replaced_after_it_was_checked_does_not_run(
    copy: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_and_swap(model: bytes, title: str) -> None:
        require_embedded_weights(model, title)
        copy.onnx_path.write_bytes(b"another model")

    monkeypatch.setattr("pixelmill.pipeline.bundles.verification.require_embedded_weights", check_and_swap)
    with pytest.raises(WorkError, match=re.escape("model.onnx has 13 bytes; expected")):
        verify_bundle(copy, ENGINE)


def header(shape: str, dtype: str = "|u1", order: str = "False") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}"
    content = (text.ljust(117) + "\n").encode(errors="surrogatepass")
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00\x00\x00",
        header("(4, 8, 8, 1)"),
        header("(1000000, 1000000, 3, 1)") + bytes(256),
        header("(4, 8, 8, 1)") + bytes(257),
        header("(-1, 8, 8, 1)"),
        header("(256,)") + bytes(256),
        header("(4, 8, 8, 1)", dtype="|O") + bytes(256),
        header("(4, 8, 8, 1)", order="True") + bytes(256),
        header("__import__('os')") + bytes(256),
        header("(4, 8, 8, True)") + bytes(256),
        header("(" * 100) + bytes(256),
    ],
    ids=ascii,
)
def test_an_array_with_a_false_size_is_refused(content: bytes, copy: ModelBundle) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # Ours or NumPy's.
        parse_array(content, np.dtype(np.uint8), 4)
    (copy.folder / "golden/tensors.npy").write_bytes(content)
    with pytest.raises(RequestError, match="malformed golden vectors"):
        read_golden(copy.folder)


@given(st.text(max_size=80))
def test_an_invalid_array_header_is_refused(text: str) -> None:
    content = text.encode(errors="surrogatepass")
    with pytest.raises(ValueError):  # noqa: PT011
        parse_array(
            b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content, np.dtype(np.uint8), 4
        )
    with suppress(ValueError):
        parse_array(header(text), np.dtype(np.uint8), 4)


def test_our_own_arrays_are_read(bundle: ModelBundle) -> None:
    content = (bundle.folder / "golden/tensors.npy").read_bytes()
    assert np.array_equal(parse_array(content, np.dtype(np.uint8), 4), np.load(io.BytesIO(content)))


@pytest.mark.parametrize(
    "index",
    [
        [],
        {},
        {"images": []},
        {"images": [{}]},
        {"images": [{"file": "../../../etc/passwd"}] * 4},
        {"images": [{"file": "/etc/passwd"}] * 4},
        {"images": [{"file": ""}] * 4},
        {"images": [{"file": "plain.png"}] * 5},
    ],
)
def test_a_malformed_index_of_golden_images_is_one_line(index: object, copy: ModelBundle) -> None:
    write_json(copy.folder / "golden/golden.json", index)
    update_manifest(copy.folder)
    with pytest.raises(RequestError, match="malformed golden vectors"):
        verify_bundle(copy, ENGINE)


@pytest.mark.timeout(120)
def test_a_fifo_in_a_bundle_does_not_hang(run: Run, copy: ModelBundle) -> None:
    for name in ("golden/tensors.npy", "labels.json"):
        kept = (copy.folder / name).read_bytes()
        (copy.folder / name).unlink()
        os.mkfifo(copy.folder / name)
        result = run("verify", copy.folder)
        assert result.code == 1
        (line,) = result.errors.strip().splitlines()
        assert name in line
        assert "a FIFO, not a regular file" in line
        (copy.folder / name).unlink()
        (copy.folder / name).write_bytes(kept)


def test_a_golden_image_that_exhausts_memory_does_not_match(copy: ModelBundle) -> None:
    spec = read_json(copy.folder / "preprocessing.json")
    spec["spec"].update(height=200_000, width=200_000)
    write_json(copy.folder / "preprocessing.json", spec)
    update_manifest(copy.folder)
    found = verify_bundle(copy, ENGINE)
    assert len(found.changed_tensors) == 4


def test_verification_may_run_in_a_thread(bundle: ModelBundle) -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(verify_bundle(bundle, ENGINE).agrees))
    thread.start()
    thread.join()
    assert found == [True]
