"""Adding formats to the folder of a bundle: conversion, comparison, and removal of what is refused."""

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

from pixelmill.pipeline.bundles.model_files import MODEL_FILES, require_engines
from pixelmill.pipeline.config import ExportFormat, ExportSpec, ImageSpec
from pixelmill.pipeline.export.formats.agreement import FormatResult, measure_formats, require_formats_agree
from pixelmill.pipeline.export.formats.conversion import write_formats
from pixelmill.pipeline.export.held_out import HeldOut
from pixelmill.pipeline.export.parity import Tolerance
from pixelmill.pipeline.export.quantization import sample_evenly
from pixelmill.pipeline.processes import run_in_spawned_process

_log = getLogger(__name__)


def add_formats(
    folder: Path,
    formats: Sequence[ExportFormat],
    held_out: HeldOut,
    image: ImageSpec,
    export: ExportSpec,
    tolerance: Tolerance,
) -> tuple[FormatResult, ...]:
    """Write the files of some formats into a bundle's folder, and remove int8 files beyond their limits.

    Args:
        folder: The bundle's folder, with proven files and without a manifest.
        formats: The formats; nothing is done for `onnx`.
        held_out: The images on which the files are compared with `model.onnx`.
        image: The model's input.
        export: The export settings, with the limits of int8 files.
        tolerance: How much float32 files may differ.

    Returns:
        The result of each file, those that are refused included.

    Raises:
        RequestError: A package is missing.
        WorkError: A format cannot express the model.
        GateRefused: The predictions of a float32 file differ.
    """
    wanted = [name for name in formats if name != "onnx"]
    if not wanted:
        return ()
    require_engines(wanted)
    calibration = None
    if held_out.arrays is not None:
        calibration = sample_evenly(held_out.arrays.training, export.int8.calibration_images)
    elif any(kind.precision == "int8" and kind.format in wanted for kind in MODEL_FILES):
        _log.warning("no int8 files: there are no training images for calibration")
    run_in_spawned_process(write_formats, folder, wanted, calibration)
    results = run_in_spawned_process(
        measure_formats, folder, wanted, held_out.files(), held_out.labels, image, tolerance, export.int8
    )
    require_formats_agree(results, tolerance)
    remove_refused(folder, results)
    return results


def remove_refused(folder: Path, results: Sequence[FormatResult]) -> None:
    """Remove the files that exceed their limits from a bundle's folder, and log why."""
    for result in results:
        if result.refused:
            _log.warning("%s is not published: %s", result.file, result.refused)
            (folder / result.file).unlink()
