"""Registered versions that predict whatever a test wants: real ONNX files that look predictions up."""

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from pixelmill.pipeline.artifacts import publishing, write_json
from pixelmill.pipeline.bundles import (
    BASELINE_FILE,
    LABELS_FILE,
    METRICS_FILE,
    ONNX_FILE,
    PARITY_FILE,
    PREPROCESSING_FILE,
    TRAINING_IMAGES_FILE,
    ModelBundle,
    open_bundle,
)
from pixelmill.pipeline.bundles.metadata import scoring_metadata
from pixelmill.pipeline.bundles.preprocessing import describe_preprocessing
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.promotion import TestImages
from pixelmill.pipeline.registry import register_bundle, reserve_version
from pixelmill.pipeline.storage import Location, local_path

NAMES = ("cat", "dog", "fish")
# The two pixels of an image are its number in base 256.
SPEC = ImageSpec(height=1, width=2, channels=1)


def write_images(folder: Path, labels: Sequence[int], names: tuple[str, ...] = NAMES) -> TestImages:
    """One file for each label; image `n` is number `n` to the networks below."""
    folder.mkdir(parents=True, exist_ok=True)
    files, contents = [], []
    for number in range(len(labels)):
        path = folder / f"{number:05d}.png"
        path.write_bytes(encode_png(np.array([[[number // 256], [number % 256]]], np.uint8)))
        files.append(path)
        contents.append(f"{number:064x}")
    return TestImages(tuple(files), tuple(contents), np.array(labels, np.int64), names)


def write_network(path: Path, predicted: Sequence[int], names: tuple[str, ...]) -> None:
    """A network that predicts class `predicted[n]` for image `n`, with a probability of 0.9."""
    table = np.full((len(predicted), len(names)), 0.1 / (len(names) - 1), np.float32)
    table[np.arange(len(predicted)), list(predicted)] = 0.9
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "base"], ["digits"]),
        helper.make_node("ReduceSum", ["digits", "axes"], ["numbers"], keepdims=0),
        helper.make_node("Cast", ["numbers"], ["wanted"], to=TensorProto.INT64),
        helper.make_node("Min", ["wanted", "last"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["probabilities"]),
    ]
    constants: dict[str, np.ndarray] = {
        "base": np.array([[[256], [1]]], np.float32),
        "axes": np.array([1, 2, 3], np.int64),
        "last": np.array([len(predicted) - 1], np.int64),
        "table": table,
    }
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 2, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(names)])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, scoring_metadata(names, describe_preprocessing(SPEC)))
    onnx.save(model, str(path))


def register(
    store: Location,
    predicted: Sequence[int],
    names: tuple[str, ...] = NAMES,
    trained_on: Sequence[int] = (),
    name: str = "pets",
    work: Path | None = None,
) -> ModelBundle:
    """Register a version that predicts class `predicted[n]` for image `n`, trained on the given numbers.

    Its bundle is written below `work`; by default, in the store.
    """
    version = reserve_version(store, name)
    folder = local_path(store) if work is None else work
    return register_bundle(store, write_version(folder, predicted, version, names, trained_on, name))


def write_version(
    store: Path,
    predicted: Sequence[int],
    version: int,
    names: tuple[str, ...] = NAMES,
    trained_on: Sequence[int] = (),
    name: str = "pets",
    contents: Sequence[str] = (),
) -> ModelBundle:
    """The bundle of such a version, not registered yet; `contents` are further images it was trained on."""
    folder = store / "runs" / uuid4().hex
    with publishing(folder, {"kind": "model-bundle", "name": name, "version": version}) as staging:
        write_network(staging / ONNX_FILE, predicted, names)
        write_json(staging / LABELS_FILE, names)
        write_json(staging / PREPROCESSING_FILE, describe_preprocessing(SPEC))
        write_json(staging / BASELINE_FILE, {"class_counts": [1] * len(names), "confidence_counts": [1] * 10})
        write_json(staging / METRICS_FILE, {"test": {"accuracy": 0.5, "loss": 1.0, "images": 1}})
        write_json(staging / PARITY_FILE, {"images": 1, "label_flips": 0, "max_abs_difference": 0.0})
        hashes = [*(f"{number:064x}" for number in trained_on), *contents]
        rows = {"sha256": hashes, "split": ["train"] * len(hashes)}
        pq.write_table(
            pa.table(rows, pa.schema([("sha256", pa.string()), ("split", pa.string())])),
            staging / TRAINING_IMAGES_FILE,
        )
    return open_bundle(folder)
