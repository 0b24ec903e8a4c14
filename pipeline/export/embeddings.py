"""The ONNX file with embeddings: the same graph with a second output, proven to predict the same.

An embedding is the input of the last dense layer. It is found in `model.onnx` itself, so it is of the weights
that were proven, whoever trained them.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from pixelmill.pipeline.bundles import EMBEDDINGS_FILE, ModelBundle
from pixelmill.pipeline.bundles.golden import read_golden
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.errors import GateRefused, RequestError
from pixelmill.pipeline.export.graph import serialize
from pixelmill.pipeline.export.held_out import HeldOut
from pixelmill.pipeline.export.parity import Parity
from pixelmill.pipeline.images import DecodedImage, Pixels
from pixelmill.pipeline.inference import EMBEDDING_OUTPUT, Probabilities, load_session
from pixelmill.pipeline.progress import progress

_DENSE = ("Gemm", "MatMul")
# What may follow the last dense layer: its bias, a temperature, and the activation. Behind any other op, such
# as a convolution, a dense layer is part of something else.
_AFTER_DENSE = ("Softmax", "Sigmoid", "Add", "Sub", "Mul", "Div", "Concat", "Identity", "Cast", "Reshape")


def export_embeddings(bundle: ModelBundle, held_out: HeldOut, parity: Parity) -> int:
    """Write `model.embeddings.onnx` beside `model.onnx`, and prove that it gives the same probabilities.

    Both files predict the golden images and all held-out images, at every batch size of the proof.

    Args:
        bundle: The bundle, whose `model.onnx` is proven.
        held_out: The held-out images.
        parity: The proof of `model.onnx`, whose limit holds here, too.

    Returns:
        The number of values of an embedding.

    Raises:
        RequestError: The network has no dense layer.
        GateRefused: A label differs, or a probability by more than the limit. The file is removed.
    """
    content, size = add_embedding(bundle.onnx_path.read_bytes(), str(bundle.onnx_path))
    path = bundle.folder / EMBEDDINGS_FILE
    path.write_bytes(content)
    original, second = load_session(bundle.onnx_path), load_session(path)
    golden, sizes = read_golden(bundle.folder).tensors, tuple(parity.batch_sizes)
    flips, images, largest = 0, 0, 0.0
    total = len(golden) + len(sizes) * len(held_out.paths)
    with progress("compare the file with embeddings", total, "images") as advance:
        for batch in itertools.chain([golden], _batches(bundle, held_out, sizes)):
            expected = original.probabilities(batch)
            found, embeddings = second.probabilities_and_embeddings(batch)
            flips += _count_flips(expected, found, parity.tie_margin)
            largest = max(largest, float(np.abs(expected - found).max()))
            images += len(batch)
            if embeddings.shape != (len(batch), size) or not np.isfinite(embeddings).all():
                largest = np.inf
            advance(len(batch), "")
    if flips or not largest <= parity.allowed_difference:
        path.unlink()
        raise GateRefused(
            f"{EMBEDDINGS_FILE}, of which {flips:,} of {images:,} labels differ, and probabilities by up to "
            f"{largest:.1e}",
            f"the labels of model.onnx, and probabilities within {parity.allowed_difference:.1e}",
            "Set export.embeddings to false, and report the network.",
        )
    return size


def add_embedding(content: bytes, name: str) -> tuple[bytes, int]:
    """The ONNX file with the output `embedding`, and the number of its values.

    Args:
        content: An ONNX file of the export.
        name: What to call it in an error.

    Raises:
        RequestError: The network has no dense layer.
    """
    import onnx

    model = onnx.load_from_string(content)
    dense = _last_dense(model.graph)
    size = _input_size(model.graph, dense) if dense is not None else None
    if dense is None or size is None:
        raise RequestError(
            f"export.embeddings, but {name} has no dense layer",
            "a network with a dense layer, whose input is the embedding",
            "End the network with a dense layer and softmax, or set export.embeddings to false.",
        )
    embedding = dense.input[0]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, value in enumerate(names):
                if value == embedding:
                    names[at] = EMBEDDING_OUTPUT
    shape: list[str | int | None] = ["batch", size]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(EMBEDDING_OUTPUT, onnx.TensorProto.FLOAT, shape)
    )
    model.doc_string += (
        f" Also float32 '{EMBEDDING_OUTPUT}' [batch, {size}], the input of the last dense layer."
    )
    onnx.checker.check_model(model, full_check=True)
    return serialize(model), size


def _last_dense(graph: Any) -> Any:
    """The dense layer nearest to the output; None if there is none."""
    producers = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name for tensor in graph.initializer}
    waiting, seen = [graph.output[0].name], set[str]()
    while waiting:
        node = producers.get(waiting.pop(0))
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in _DENSE and len(node.input) > 1 and node.input[1] in weights:
            return node
        if node.op_type in _AFTER_DENSE:
            waiting += node.input
    return None


def _input_size(graph: Any, dense: Any) -> int | None:
    """The number of values of the input of a dense layer; None if its weights are no matrix."""
    (weights,) = (tensor for tensor in graph.initializer if tensor.name == dense.input[1])
    if len(weights.dims) != 2 or dense.input[0] == graph.input[0].name:
        return None
    is_transposed = any(attribute.name == "transB" and attribute.i for attribute in dense.attribute)
    return int(weights.dims[1 if is_transposed else 0])


def _count_flips(expected: Probabilities, found: Probabilities, tie_margin: float) -> int:
    """The number of images whose label differs, other than between two classes that are tied."""
    rows = np.arange(len(expected))
    lost = expected.max(axis=1) - expected[rows, found.argmax(axis=1)]
    return int((lost > tie_margin).sum())


def _batches(bundle: ModelBundle, held_out: HeldOut, sizes: tuple[int, ...]) -> Iterator[Pixels]:
    """The held-out images at every batch size."""
    decoded = decode_files(held_out.files(), bundle.image_spec())
    readable = (image.pixels for image in decoded if isinstance(image, DecodedImage))
    while chunk := list(itertools.islice(readable, max(sizes))):
        tensors = np.stack(chunk)
        for size in sizes:
            yield from (tensors[start : start + size] for start in range(0, len(tensors), size))
