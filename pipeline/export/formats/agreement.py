"""Comparing the files of other formats with `model.onnx` and Keras, and the gate before publication.

A float32 file must predict the class of `model.onnx` for every held-out image, ties excluded, and every
probability must differ by less than the allowed difference of the proof; so must those of the golden images
from Keras's. An int8 file has the limits of the int8 variant.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import ONNX_FILE, PREPROCESSING_FILE, Precision, says_multi_label
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.golden import GoldenVectors, read_golden
from pixelmill.pipeline.bundles.model_files import ModelFile, model_files
from pixelmill.pipeline.bundles.verification import largest_difference
from pixelmill.pipeline.config import ExportFormat, ImageSpec, VariantSpec
from pixelmill.pipeline.datasets import Labels
from pixelmill.pipeline.decoding.files import decode_files
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.export.parity import Tolerance
from pixelmill.pipeline.export.variants import compare_predictions, exceeded_limits
from pixelmill.pipeline.images import DecodedImage
from pixelmill.pipeline.inference import Probabilities, are_probabilities, load_session
from pixelmill.pipeline.progress import progress

_BATCH_SIZE = 64
# Integer arithmetic is rounded differently on other processors, and by less than what int8 itself loses.
_INT8_MARGIN, _INT8_STEP = 2.0, 1 / 256


@dataclass(frozen=True)
class FormatResult:
    """How the predictions of one file compare.

    Attributes:
        format: The format.
        file: The file's path in the bundle.
        precision: The precision of its weights.
        engine: The engine that predicted.
        version: The version of the engine.
        bytes: The size of the file and of those that it needs beside it.
        images: The number of held-out images predicted.
        label_flips: The number of held-out images whose top-1 class differs from that of `model.onnx`;
            without ties for float32.
        invalid: The number of held-out images without valid probabilities.
        max_abs_difference: The largest difference from a probability of `model.onnx` for them.
        golden_difference: The largest difference from Keras's probabilities for the golden images, in one
            batch or image by image.
        accuracy: The accuracy on the held-out images, 0 to 1; None without labels.
        allowed_difference: The largest difference from the golden probabilities with which
            `pixelmill verify` accepts the file.
        refused: Why the file is not published; empty if it is.
    """

    format: ExportFormat
    file: str
    precision: Precision
    engine: EngineName
    version: str
    bytes: int
    images: int
    label_flips: int
    invalid: int
    max_abs_difference: float
    golden_difference: float
    accuracy: float | None
    allowed_difference: float
    refused: str = ""


def measure_formats(
    folder: Path,
    formats: Sequence[ExportFormat],
    files: Sequence[Path],
    labels: Labels | None,
    spec: ImageSpec,
    tolerance: Tolerance,
    limits: VariantSpec,
) -> tuple[FormatResult, ...]:
    """Predict images with every file of some formats. Run it in a separate process.

    Args:
        folder: The bundle's folder.
        formats: The formats to measure.
        files: Held-out image files; unreadable ones are skipped.
        labels: Their true classes, int64 [files]; None if they are not known.
        spec: The model's input.
        tolerance: How much float32 files may differ.
        limits: How much int8 files may differ; `refused` is set for those that exceed it.
    """
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    wanted = {name: kind for name, kind in model_files(names).items() if kind.format in formats}
    predicted, rows = _predict_files(folder, [ONNX_FILE, *wanted], wanted, files, spec)
    original = predicted.pop(ONNX_FILE)
    known = None if labels is None else labels[rows]
    accuracy = compare_predictions(original[np.newaxis], original, known).accuracy
    golden = read_golden(folder)
    results = []
    for name, kind in wanted.items():
        result = _compare(folder, name, kind, predicted[name], original, known, golden, tolerance)
        if kind.precision == "int8":
            refused = exceeded_limits(
                result.label_flips, result.images, result.accuracy, accuracy, ONNX_FILE, limits
            )
            result = replace(result, refused=refused)
        results.append(result)
    return tuple(results)


def require_formats_agree(results: Sequence[FormatResult], tolerance: Tolerance) -> None:
    """Refuse a float32 file whose predictions differ.

    Raises:
        GateRefused: It predicts another class or no probabilities for an image, or a probability differs by
            the allowed difference or more.
    """
    for each in results:
        difference = max(each.max_abs_difference, each.golden_difference)
        agrees = not each.label_flips and not each.invalid and difference < tolerance.allowed_difference
        if each.precision == "fp32" and not agrees:
            raise GateRefused(
                f"{each.file} on {ENGINES[each.engine].title} {each.version} predicts another label than "
                f"{ONNX_FILE} for {each.label_flips} of {each.images} held-out images, no valid "
                f"probabilities for {each.invalid}, with a largest difference of {difference:.2g}",
                f"no other label except in ties ({tolerance.tie_margin:.2g}), and a difference of less than "
                f"{tolerance.allowed_difference:.2g}",
                f"Nothing is published. Leave {each.format} out of `formats`, or replace the layer that it "
                "computes differently.",
            )


def _predict_files(
    folder: Path, names: Sequence[str], kinds: dict[str, ModelFile], files: Sequence[Path], spec: ImageSpec
) -> tuple[dict[str, Probabilities], list[int]]:
    """The predictions of each file of the bundle, and the positions of the images that could be read."""
    predict = {name: ENGINES[kinds[name].engines[0]].load(folder / name) for name in names if name in kinds}
    predict[ONNX_FILE] = load_session(folder / ONNX_FILE).probabilities
    found: dict[str, list[Probabilities]] = {name: [] for name in names}
    rows: list[int] = []
    with progress("compare formats", len(files), "images") as advance:
        decoded = enumerate(decode_files(files, spec))
        while batch := list(itertools.islice(decoded, _BATCH_SIZE)):
            tensors = {row: image.pixels for row, image in batch if isinstance(image, DecodedImage)}
            if tensors:
                pixels = np.stack(list(tensors.values()))
                rows += tensors
                for name in names:
                    found[name].append(predict[name](pixels))
            advance(len(batch), "")
    return {name: np.concatenate(pieces) for name, pieces in found.items()}, rows


def _compare(
    folder: Path,
    name: str,
    kind: ModelFile,
    predicted: Probabilities,
    original: Probabilities,
    labels: Labels | None,
    golden: GoldenVectors,
    tolerance: Tolerance,
) -> FormatResult:
    engine, several = ENGINES[kind.engines[0]], says_multi_label(read_json(folder / PREPROCESSING_FILE))
    change = compare_predictions(predicted[np.newaxis], original, labels)
    replayed = _replay(folder / name, kind.engines[0], golden)
    flips, allowed = change.label_flips, tolerance.allowed_difference
    if kind.precision == "fp32":
        rows, top_1 = np.arange(len(original)), original.argmax(axis=1)
        margin = original[rows, top_1] - original[rows, predicted.argmax(axis=1)]
        flips = int((margin > tolerance.tie_margin).sum())
    else:
        allowed = min(1.0, _INT8_MARGIN * max(change.max_abs_difference, replayed, _INT8_STEP))
    return FormatResult(
        format=kind.format,
        file=name,
        precision=kind.precision,
        engine=kind.engines[0],
        version=engine.version() or "",
        bytes=sum((folder / file).stat().st_size for file in (name, *kind.beside)),
        images=len(original),
        label_flips=flips,
        invalid=int((~are_probabilities(predicted, several)).sum()),
        max_abs_difference=change.max_abs_difference,
        golden_difference=replayed,
        accuracy=change.accuracy,
        allowed_difference=allowed,
    )


def _replay(path: Path, engine: EngineName, golden: GoldenVectors) -> float:
    """The largest difference from the golden probabilities, in one batch and image by image."""
    predict = ENGINES[engine].load(path)
    one_by_one = np.concatenate([predict(tensor[np.newaxis]) for tensor in golden.tensors])
    return largest_difference(np.stack([predict(golden.tensors), one_by_one]), golden.probabilities)
