"""Writing the files of a bundle that need Keras. Imports TensorFlow, so run it in a separate process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelmill.pipeline.artifacts import write_json
from pixelmill.pipeline.bundles import LABELS_FILE, MODEL_FILE, ONNX_FILE, PREPROCESSING_FILE
from pixelmill.pipeline.bundles.golden import GoldenVectors, read_golden, write_golden
from pixelmill.pipeline.bundles.metadata import decision_metadata, scoring_metadata
from pixelmill.pipeline.bundles.preprocessing import describe_preprocessing
from pixelmill.pipeline.config import ExportSpec, ImageSpec
from pixelmill.pipeline.export.adaptation import (
    accept_uint8,
    add_sigmoid,
    add_softmax,
    divide_logits,
    with_two_classes,
)
from pixelmill.pipeline.export.conversion import INPUT_NAME, OUTPUT_NAME, convert
from pixelmill.pipeline.export.graph import serialize, standardize
from pixelmill.pipeline.export.keras_loader import load_network, require_labels
from pixelmill.pipeline.export.outputs import final_activation, require_logits
from pixelmill.pipeline.export.prediction import measure_noise, predict, predict_files
from pixelmill.pipeline.export.runtimes import choose_version
from pixelmill.pipeline.export.source import ExportSource
from pixelmill.pipeline.images import Pixels

# The number of held-out images on which outputs are checked for being logits.
_LOGITS_IMAGES = 250
# Entries of the ONNX file's metadata, and the manifest keys they are taken from.
_METADATA_FROM_MANIFEST = {"run": "run_id", "dataset_fingerprint": "dataset_fingerprint"}


@dataclass(frozen=True)
class Draft:
    """Facts about a network whose bundle was drafted.

    Attributes:
        parameters: The number of parameters, trainable or not.
        noise: The network's rounding error, as a difference of probabilities; see `measure_noise`.
    """

    parameters: int
    noise: float


def draft_bundle(
    source: ExportSource, folder: Path, golden: Pixels, held_out: Sequence[Path], predictions: Path
) -> Draft:
    """Write the ONNX file, the Keras file, their metadata and the golden vectors, and predict with Keras.

    Args:
        source: The model.
        folder: The bundle's folder, which exists and has no manifest yet.
        golden: Held-out images for the golden vectors; uint8 [images, height, width, channels].
        held_out: The held-out image files on which parity is checked.
        predictions: An existing folder in which Keras's `FilePredictions` for `held_out` are saved.

    Raises:
        RequestError: The model cannot be loaded or expressed in ONNX, does not match the labels, or outputs
            probabilities although `source.from_logits` is set.
    """
    network = load_network(source.model_path)
    activation = final_activation(network)
    if network.outputs[0].shape[-1] == 1:
        network = with_two_classes(network, source.from_logits)
    require_labels(source.class_names, network.outputs[0].shape[-1])
    network = accept_uint8(network, source.pixel_range, source.image)
    if source.from_logits:
        outputs = predict_files(network, held_out[:_LOGITS_IMAGES], source.image)
        require_logits(source.model_path, activation, outputs, source.multi_label)
        network = add_sigmoid(network) if source.multi_label else add_softmax(network)
    if source.temperature != 1:
        network = divide_logits(network, source.temperature)
    network.save(folder / MODEL_FILE)
    preprocessing = describe_preprocessing(source.image, source.multi_label)
    write_json(folder / LABELS_FILE, source.class_names)
    write_json(folder / PREPROCESSING_FILE, preprocessing)
    metadata = {
        **scoring_metadata(source.class_names, preprocessing),
        **decision_metadata(source.metrics()),
        **{
            name: str(source.facts[fact])
            for name, fact in _METADATA_FROM_MANIFEST.items()
            if fact in source.facts
        },
        "name": source.name,
        "version": str(source.version),
        "licence": source.export.licence,
    }
    (folder / ONNX_FILE).write_bytes(write_onnx(network, source.image, source.export, metadata))
    write_golden(folder, golden, source.image, lambda tensors: predict(network, tensors))
    _write_test_data(folder, read_golden(folder))
    predicted = predict_files(network, held_out, source.image)
    predicted.save(predictions)
    noise = measure_noise(network, held_out, source.image, predicted)
    return Draft(int(network.count_params()), noise)


def write_onnx(network: Any, image: ImageSpec, export: ExportSpec, metadata: dict[str, str]) -> bytes:
    """Serialize a Keras network as an ONNX file; the same network gives the same bytes.

    Raises:
        RequestError: A layer cannot be expressed in the requested opset.
    """
    version = choose_version(export)
    documentation = (
        f"{metadata.get('name', 'An image classifier')}, version {metadata.get('version', '0')}: uint8 "
        f"'{INPUT_NAME}' [batch, height, width, channels] in, float32 '{OUTPUT_NAME}' [batch, classes] out. "
        "Class names and preprocessing are in the metadata."
    )
    converted = convert(network, image, version.opset)
    return serialize(standardize(converted, version, metadata, documentation))


def _write_test_data(folder: Path, golden: GoldenVectors) -> None:
    """Write the golden vectors in the ONNX model zoo's format, for other teams' test runners."""
    from onnx import numpy_helper

    data = folder / "test_data_set_0"
    data.mkdir()
    for name, array, title in (
        ("input_0.pb", golden.tensors, INPUT_NAME),
        ("output_0.pb", golden.probabilities, OUTPUT_NAME),
    ):
        (data / name).write_bytes(numpy_helper.from_array(array, title).SerializeToString())
