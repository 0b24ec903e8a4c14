"""Filling a bundle's folder with all that needs Keras. Run it in a process of its own."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import write_array, write_json
from pipeline.config import ExportSpec, ImageSpec
from pipeline.decoding.files import decode_files
from pipeline.export import LABELS_FILE, ONNX_FILE, PREPROCESSING_FILE
from pipeline.export.conversion import INPUT_NAME, OUTPUT_NAME, convert
from pipeline.export.golden import GoldenVectors, read_golden, write_golden
from pipeline.export.loading import adapt_network, load_network, require_labels
from pipeline.export.metadata import describe_itself
from pipeline.export.runtimes import choose_version
from pipeline.export.source import ExportSource
from pipeline.export.standardizing import serialize, standardize
from pipeline.images import DecodedImage, Pixels
from pipeline.inference import Probabilities
from pipeline.preprocessing import describe_preprocessing
from pipeline.progress import progress
from pipeline.training import MODEL_FILE

_BATCH = 250
# What of the manifest the ONNX file says, too, and under which name.
_TOLD = {"run": "run_id", "dataset_fingerprint": "dataset_fingerprint"}


def draft_bundle(
    source: ExportSource, folder: Path, golden: Pixels, held_out: Sequence[Path], answers: Path
) -> int:
    """Write the ONNX file, the Keras file, what describes them and the golden vectors; ask Keras.

    Args:
        source: The model.
        folder: Of the bundle; exists, without a manifest yet.
        golden: Held-out images, uint8 [images, height, width, channels], to make the golden vectors of.
        held_out: Image files that decide over the bundle.
        answers: Where Keras's answers to these go: float32 [files, classes] as `.npy`, NaN in the row of
            a file that cannot be read.

    Returns:
        How many numbers the network holds, learned or kept.

    Raises:
        RequestError: The model cannot be loaded, or expressed in ONNX, or does not fit the labels.
    """
    network = load_network(source.model_path)
    require_labels(source.class_names, network.outputs[0].shape[-1])
    if network.inputs[0].dtype != "uint8" or source.from_logits:
        network = adapt_network(network, source.pixel_range, source.from_logits)
    network.save(folder / MODEL_FILE)
    preprocessing = describe_preprocessing(source.image)
    write_json(folder / LABELS_FILE, source.class_names)
    write_json(folder / PREPROCESSING_FILE, preprocessing)
    metadata = {
        **describe_itself(source.class_names, preprocessing),
        **{name: str(source.facts[fact]) for name, fact in _TOLD.items() if fact in source.facts},
        "name": source.name,
        "version": str(source.version),
        "licence": source.export.licence,
    }
    (folder / ONNX_FILE).write_bytes(write_onnx(network, source.image, source.export, metadata))
    write_golden(folder, golden, source.image, lambda tensors: _answer(network, tensors))
    _write_test_data(folder, read_golden(folder))
    write_array(answers, _answer_files(network, held_out, source))
    return int(network.count_params())


def write_onnx(network: Any, image: ImageSpec, export: ExportSpec, metadata: dict[str, str]) -> bytes:
    """A Keras network as the bytes of an ONNX file; the same network gives the same bytes.

    Raises:
        RequestError: A layer cannot be expressed in the opset asked for.
    """
    version = choose_version(export)
    documentation = (
        f"{metadata.get('name', 'An image classifier')}, version {metadata.get('version', '0')}: uint8 "
        f"'{INPUT_NAME}' [batch, height, width, channels] in, float32 '{OUTPUT_NAME}' [batch, classes] out. "
        "Class names and preprocessing are in the metadata."
    )
    converted = convert(network, image, version.opset)
    return serialize(standardize(converted, version, metadata, documentation))


def _answer(network: Any, tensors: Pixels) -> Probabilities:
    answer: Probabilities = np.asarray(network.predict_on_batch(np.ascontiguousarray(tensors)), np.float32)
    return answer


def _answer_files(network: Any, files: Sequence[Path], source: ExportSource) -> Probabilities:
    answers = np.full((len(files), len(source.class_names)), np.nan, np.float32)
    decoded = enumerate(decode_files(files, source.image))
    with progress("ask Keras", len(files), "images") as advance:
        while batch := list(itertools.islice(decoded, _BATCH)):
            tensors = {place: image.pixels for place, image in batch if isinstance(image, DecodedImage)}
            if tensors:
                answers[list(tensors)] = _answer(network, np.stack(list(tensors.values())))
            advance(len(batch), "")
    return answers


def _write_test_data(folder: Path, golden: GoldenVectors) -> None:
    """The golden vectors in the ONNX model zoo's form, for other teams' test runners."""
    from onnx import numpy_helper

    data = folder / "test_data_set_0"
    data.mkdir()
    for name, array, title in (
        ("input_0.pb", golden.tensors, INPUT_NAME),
        ("output_0.pb", golden.probabilities, OUTPUT_NAME),
    ):
        (data / name).write_bytes(numpy_helper.from_array(array, title).SerializeToString())
