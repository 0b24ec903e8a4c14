"""The files of a bundle that hold the network, and the engines that read each of them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import (
    EMBEDDINGS_FILE,
    ONNX_FILE,
    PARITY_FILE,
    Precision,
    read_allowed_difference,
)
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.config import ExportFormat
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.extras import install_command

ONNX_ENGINES = (
    EngineName.ONNXRUNTIME,
    EngineName.REFERENCE,
    EngineName.OPENVINO,
    EngineName.OPENCV,
    EngineName.TRACT,
)
LITERT_FILE, LITERT_INT8_FILE = "model.tflite", "model.int8.tflite"
OPENVINO_FILE, OPENVINO_WEIGHTS_FILE = "openvino/model.xml", "openvino/model.bin"
ORT_FILE, ORT_OPERATORS_FILE = "model.ort", "required_operators_and_types.config"
TRITON_FOLDER = "triton"


@dataclass(frozen=True)
class ModelFile:
    """One kind of file.

    Attributes:
        name: Its path in the bundle; `*` stands for one or more characters.
        format: The format.
        precision: The precision of the weights.
        engines: The engines that read it. `pixelmill verify` runs them.
        beside: Files that an engine needs beside it.
    """

    name: str
    format: ExportFormat
    engines: tuple[EngineName, ...]
    precision: Precision = "fp32"
    beside: tuple[str, ...] = ()


MODEL_FILES = (
    ModelFile(ONNX_FILE, "onnx", ONNX_ENGINES),
    ModelFile(EMBEDDINGS_FILE, "onnx", (EngineName.ONNXRUNTIME,)),
    ModelFile(LITERT_FILE, "litert", (EngineName.LITERT,)),
    ModelFile(LITERT_INT8_FILE, "litert", (EngineName.LITERT,), "int8"),
    ModelFile(OPENVINO_FILE, "openvino", (EngineName.OPENVINO,), beside=(OPENVINO_WEIGHTS_FILE,)),
    ModelFile(ORT_FILE, "ort", (EngineName.ONNXRUNTIME,)),
    # Triton runs ONNX files with onnxruntime.
    ModelFile(f"{TRITON_FOLDER}/*/*/{ONNX_FILE}", "triton", (EngineName.ONNXRUNTIME,)),
)


def model_files(names: Iterable[str]) -> dict[str, ModelFile]:
    """Those of a bundle's files, given by their paths, that engines load; in the order of `MODEL_FILES`."""
    ordered = sorted(names)
    return {name: kind for kind in MODEL_FILES for name in ordered if fnmatchcase(name, kind.name)}


def require_engines(formats: Collection[ExportFormat]) -> None:
    """Check that what converts to the formats, and predicts with them, is installed.

    Raises:
        RequestError: A package is missing.
    """
    wanted = [kind for kind in MODEL_FILES if kind.format in formats and kind.format != "onnx"]
    for kind in wanted:
        engine = ENGINES[kind.engines[0]]
        if engine.version() is None:
            raise RequestError(
                f"format {kind.format}, and {engine.packages[0]} is not installed",
                "the engine on which the file is compared with the model",
                f"Install it: {install_command('engines')}",
            )


def read_allowed_differences(folder: Path, names: Iterable[str]) -> dict[str, float]:
    """The largest difference from Keras's probabilities that `parity.json` allows each file.

    Args:
        folder: The bundle's folder.
        names: The paths of the files in it, as `model_files` returns them.

    Raises:
        RequestError: There is none for a file, or it is malformed.
    """
    content = read_json(folder / PARITY_FILE)
    entries = content.get("formats", ()) if isinstance(content, dict) else ()
    found = dict.fromkeys((ONNX_FILE, EMBEDDINGS_FILE), read_allowed_difference(folder))
    try:
        found |= {entry["file"]: entry["allowed_difference"] for entry in entries}
        wrong = [name for name in names if not 0 < found[name] <= 1]
    except (KeyError, TypeError) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    if wrong:
        raise RequestError(
            f"{folder / PARITY_FILE} has no valid allowed_difference for every file ({wrong[0][:50]})",
            "for each file with the network, a number above 0 and up to 1",
            "Use a bundle exported by pixelmill, or export the model again.",
        )
    return found
