"""The variants of a model in fewer bits: made, measured beside the file they come from, kept or refused."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.bundles import ONNX_FILE, ONNX_FILES, Precision
from pixelmill.pipeline.config import ExportSpec, VariantSpec
from pixelmill.pipeline.datasets import Images, Labels
from pixelmill.pipeline.export.quantization import make_variant, round_like_float16, sample_evenly
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import InferenceSession, Probabilities, load_session
from pixelmill.pipeline.progress import progress

BATCH_SIZE = 64
_ROUNDS = 15


@dataclass(frozen=True)
class VariantResult:
    """How a model in one precision fares on held-out images.

    Attributes:
        precision: What it computes in.
        file: Its name in the bundle.
        bytes: The size of that file.
        images: How many images it was asked about; for fp16 also as float16 hardware rounds, and what
            follows counts the worse of both answers.
        label_flips: For how many its first choice is not that of `model.onnx`, or no number at all.
        max_abs_difference: The largest difference from a probability of `model.onnx`, 0 to 1; what is not
            a number counts as 1.
        accuracy: Share of the images it names right, 0 to 1; None without labels.
        images_per_second: Per second of one thread's processor time, in batches of `BATCH_SIZE`; the
            median of rounds in which all precisions took turns.
        refused: Why it is not published; empty if it is.
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
    folder: Path, training: Pixels, held_out: Images, export: ExportSpec
) -> tuple[VariantResult, ...]:
    """Write the variants that a recipe asks for beside `model.onnx`, and take away those over its limits.

    Args:
        folder: Holds `model.onnx`.
        training: uint8 [images, height, width, channels], whence the calibration images are taken.
        held_out: The images that decide.
        export: The variants asked for and their limits.

    Returns:
        The results of `model.onnx` and of every variant, in the recipe's order; none if none was asked for.

    Raises:
        WorkError: The model cannot be expressed in one of the precisions.
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
    paths: Mapping[Precision, Path], pixels: Pixels, labels: Labels | None
) -> tuple[VariantResult, ...]:
    """Ask files of one model in several precisions about the same images.

    Args:
        paths: The files; that of fp32 must be among them.
        pixels: uint8 [images, height, width, channels], at least one.
        labels: int64 [images], the true classes, if they are known.
    """
    sessions = {precision: load_session(path) for precision, path in paths.items()}
    answers = {precision: [_ask(session, pixels, precision)] for precision, session in sessions.items()}
    if "fp16" in answers:
        rounded = _load_rounding(paths["fp32"])
        answers["fp16"].append(_ask(rounded, pixels, "fp16, rounded"))
    speeds = _time(sessions, np.ascontiguousarray(pixels[:BATCH_SIZE]))
    (original,) = answers["fp32"]
    return tuple(
        _compare(precision, path, np.stack(answers[precision]), original, labels, speeds[precision])
        for precision, path in paths.items()
    )


def judge_variants(results: Sequence[VariantResult], export: ExportSpec) -> tuple[VariantResult, ...]:
    """The same results, with the reason in those that go beyond the recipe's limits."""
    limits: dict[Precision, VariantSpec] = {"fp16": export.fp16, "int8": export.int8}
    (original,) = (result for result in results if result.precision == "fp32")
    return tuple(
        replace(result, refused=_refusal(result, original, limits[result.precision]))
        if result is not original
        else result
        for result in results
    )


def _refusal(result: VariantResult, original: VariantResult, limits: VariantSpec) -> str:
    reasons = []
    flipped = result.label_flips / result.images
    if flipped > limits.max_flip_fraction:
        reasons.append(
            f"{result.label_flips:,} of {result.images:,} labels differ from {original.file} "
            f"({flipped:.2%}; at most {limits.max_flip_fraction:.2%})"
        )
    if result.accuracy is not None and original.accuracy is not None:
        # Whole images again: a difference of two shares is not exact.
        lost = round((original.accuracy - result.accuracy) * result.images)
        if lost / result.images > limits.max_accuracy_drop:
            reasons.append(
                f"accuracy falls by {lost / result.images:.2%} (at most {limits.max_accuracy_drop:.2%})"
            )
    return ", and ".join(reasons)


def _compare(
    precision: Precision,
    path: Path,
    answers: Probabilities,
    original: Probabilities,
    labels: Labels | None,
    speed: float,
) -> VariantResult:
    """Hold one or more sets of answers, float32 [sets, images, classes], against those of `model.onnx`."""
    choices = answers.argmax(axis=2)
    broken = ~np.isfinite(answers).all(axis=2)
    flipped = (choices != original.argmax(axis=1)) | broken
    differences = np.nan_to_num(np.abs(answers - original), nan=1.0, posinf=1.0)
    right = None if labels is None else (choices == labels) & ~broken
    return VariantResult(
        precision=precision,
        file=path.name,
        bytes=path.stat().st_size,
        images=len(original),
        label_flips=int(flipped.any(axis=0).sum()),
        max_abs_difference=float(differences.max()),
        accuracy=None if right is None else float(right.mean(axis=1).min()),
        images_per_second=speed,
    )


def _load_rounding(path: Path) -> InferenceSession:
    with scratch_folder("rounding") as folder:
        rounding = folder / path.name
        rounding.write_bytes(round_like_float16(path.read_bytes()))
        return load_session(rounding)


def _ask(session: InferenceSession, pixels: Pixels, title: str) -> Probabilities:
    answers = []
    with progress(f"measure {title}", len(pixels), "images") as advance:
        for start in range(0, len(pixels), BATCH_SIZE):
            batch = np.ascontiguousarray(pixels[start : start + BATCH_SIZE])
            answers.append(session.probabilities(batch))
            advance(len(batch), "")
    return np.concatenate(answers)


def _time(sessions: Mapping[Precision, InferenceSession], batch: Pixels) -> dict[Precision, float]:
    """Images a second of each session; in turns, so that a busy neighbour slows all of them alike."""
    seconds: dict[Precision, list[float]] = {precision: [] for precision in sessions}
    for _ in range(_ROUNDS):
        for precision, session in sessions.items():
            start = time.thread_time()
            session.probabilities(batch)
            seconds[precision].append(time.thread_time() - start)
    return {precision: len(batch) / float(np.median(taken)) for precision, taken in seconds.items()}
