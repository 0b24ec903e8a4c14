"""Variants of a model in lower precision: created, compared with `model.onnx`, and published or refused."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.bundles import ONNX_FILE, ONNX_FILES, Precision
from pixelmill.pipeline.config import ExportSpec, VariantSpec
from pixelmill.pipeline.datasets import Images, Labels, PixelArray
from pixelmill.pipeline.export.quantization import make_variant, round_like_float16, sample_evenly
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import InferenceSession, Probabilities, load_session
from pixelmill.pipeline.progress import progress

BATCH_SIZE = 64
_ROUNDS = 15


@dataclass(frozen=True)
class VariantResult:
    """The results of one precision on held-out images.

    For fp16, predictions are also computed with the rounding of float16 hardware, and the flips, the
    difference and the accuracy are those of the worse of the two.

    Attributes:
        precision: The precision.
        file: The file's name in the bundle.
        bytes: The size of the file.
        images: The number of images predicted.
        label_flips: The number of images whose top-1 class differs from that of `model.onnx` or whose
            predictions contain NaN or infinity.
        max_abs_difference: The largest absolute difference from a probability of `model.onnx`, 0 to 1; NaN
            and infinity count as 1.
        accuracy: The top-1 accuracy, 0 to 1; None without labels.
        images_per_second: Images per second of CPU time of one thread, in batches of `BATCH_SIZE`; the
            median of rounds in which the precisions alternate.
        refused: Why the variant is not published; empty if it is.
    """

    precision: Precision
    file: str
    bytes: int
    images: int
    label_flips: int
    max_abs_difference: float
    accuracy: float | None
    images_per_second: float
    refused: str = ""


def export_variants(
    folder: Path, training: PixelArray, held_out: Images, export: ExportSpec
) -> tuple[VariantResult, ...]:
    """Write a recipe's variants next to `model.onnx`, and remove those that exceed its limits.

    Args:
        folder: The folder that contains `model.onnx`.
        training: Images to choose calibration images from; uint8 [images, height, width, channels].
        held_out: The images on which the variants are compared.
        export: The export settings, with the variants and their limits.

    Returns:
        The results of `model.onnx` and of every variant, in the recipe's order; empty without variants.

    Raises:
        WorkError: The model cannot be converted to one of the precisions.
    """
    if not export.variants:
        return ()
    content = (folder / ONNX_FILE).read_bytes()
    calibration = sample_evenly(training, export.int8.calibration_images)
    paths: dict[Precision, Path] = {"fp32": folder / ONNX_FILE}
    for precision in export.variants:
        paths[precision] = folder / ONNX_FILES[precision]
        paths[precision].write_bytes(make_variant(content, precision, calibration))
    results = judge_variants(measure_variants(paths, held_out.pixels, held_out.labels), export)
    for result in results:
        if result.refused:
            (folder / result.file).unlink()
    return results


def measure_variants(
    paths: Mapping[Precision, Path], pixels: PixelArray, labels: Labels | None
) -> tuple[VariantResult, ...]:
    """Compare the files of one model in several precisions on the same images.

    Args:
        paths: The files by precision, including fp32.
        pixels: uint8 [images, height, width, channels], at least one image.
        labels: The true classes, int64 [images]; None if they are not known.
    """
    sessions = {precision: load_session(path) for precision, path in paths.items()}
    predictions = {
        precision: [_predict(session, pixels, precision)] for precision, session in sessions.items()
    }
    if "fp16" in predictions:
        rounded = _load_rounding(paths["fp32"])
        predictions["fp16"].append(_predict(rounded, pixels, "fp16, rounded"))
    speeds = _time(sessions, np.ascontiguousarray(pixels[:BATCH_SIZE]))
    (original,) = predictions["fp32"]
    return tuple(
        _compare(precision, path, np.stack(predictions[precision]), original, labels, speeds[precision])
        for precision, path in paths.items()
    )


def judge_variants(results: Sequence[VariantResult], export: ExportSpec) -> tuple[VariantResult, ...]:
    """The same results, with `refused` set for those that exceed the recipe's limits."""
    limits: dict[Precision, VariantSpec] = {"fp16": export.fp16, "int8": export.int8}
    (original,) = (result for result in results if result.precision == "fp32")
    return tuple(
        replace(result, refused=_refusal(result, original, limits[result.precision]))
        if result is not original
        else result
        for result in results
    )


def _refusal(result: VariantResult, original: VariantResult, limits: VariantSpec) -> str:
    return exceeded_limits(
        result.label_flips, result.images, result.accuracy, original.accuracy, original.file, limits
    )


def exceeded_limits(
    flips: int,
    images: int,
    accuracy: float | None,
    original_accuracy: float | None,
    original_file: str,
    limits: VariantSpec,
) -> str:
    """Which limits a file in lower precision exceeds; empty if it exceeds none.

    Args:
        flips: The number of images whose top-1 class differs from that of the original.
        images: The number of images.
        accuracy: The accuracy of the file, 0 to 1; None without labels.
        original_accuracy: The accuracy of the original.
        original_file: The name of the original.
        limits: The limits.
    """
    reasons = []
    flipped = flips / images
    if flipped > limits.max_flip_fraction:
        reasons.append(
            f"{flips:,} of {images:,} labels differ from {original_file} "
            f"({flipped:.2%}; at most {limits.max_flip_fraction:.2%})"
        )
    if accuracy is not None and original_accuracy is not None:
        # Count whole images, because the difference of two fractions is not exact.
        lost = round((original_accuracy - accuracy) * images)
        if lost / images > limits.max_accuracy_drop:
            reasons.append(f"accuracy falls by {lost / images:.2%} (at most {limits.max_accuracy_drop:.2%})")
    return ", and ".join(reasons)


@dataclass(frozen=True)
class Change:
    """How predictions differ from those of `model.onnx`; the fields are those of `VariantResult`."""

    label_flips: int
    max_abs_difference: float
    accuracy: float | None


def compare_predictions(predictions: Probabilities, original: Probabilities, labels: Labels | None) -> Change:
    """Compare one or more sets of predictions, float32 [sets, images, classes], with `model.onnx`."""
    top_1 = predictions.argmax(axis=2)
    is_invalid = ~np.isfinite(predictions).all(axis=2)
    flipped = (top_1 != original.argmax(axis=1)) | is_invalid
    differences = np.nan_to_num(np.abs(predictions - original), nan=1.0, posinf=1.0)
    is_correct = None if labels is None else (top_1 == labels) & ~is_invalid
    return Change(
        label_flips=int(flipped.any(axis=0).sum()),
        max_abs_difference=float(differences.max()),
        accuracy=None if is_correct is None else float(is_correct.mean(axis=1).min()),
    )


def _compare(
    precision: Precision,
    path: Path,
    predictions: Probabilities,
    original: Probabilities,
    labels: Labels | None,
    speed: float,
) -> VariantResult:
    change = compare_predictions(predictions, original, labels)
    return VariantResult(
        precision=precision,
        file=path.name,
        bytes=path.stat().st_size,
        images=len(original),
        label_flips=change.label_flips,
        max_abs_difference=change.max_abs_difference,
        accuracy=change.accuracy,
        images_per_second=speed,
    )


def _load_rounding(path: Path) -> InferenceSession:
    with scratch_folder("rounding") as folder:
        rounding = folder / path.name
        rounding.write_bytes(round_like_float16(path.read_bytes()))
        return load_session(rounding)


def _predict(session: InferenceSession, pixels: PixelArray, title: str) -> Probabilities:
    predictions = []
    with progress(f"measure {title}", len(pixels), "images") as advance:
        for start in range(0, len(pixels), BATCH_SIZE):
            batch = np.ascontiguousarray(pixels[start : start + BATCH_SIZE])
            predictions.append(session.probabilities(batch))
            advance(len(batch), "")
    return np.concatenate(predictions)


def _time(sessions: Mapping[Precision, InferenceSession], batch: Pixels) -> dict[Precision, float]:
    """Images per second of each session, measured alternately so that other load affects all alike."""
    seconds: dict[Precision, list[float]] = {precision: [] for precision in sessions}
    for _ in range(_ROUNDS):
        for precision, session in sessions.items():
            start = time.thread_time()
            session.probabilities(batch)
            seconds[precision].append(time.thread_time() - start)
    return {precision: len(batch) / float(np.median(taken)) for precision, taken in seconds.items()}
