"""Exporting a trained model: a bundle is drafted, checked for parity on files, and only then published."""

import shutil
from dataclasses import asdict
from logging import getLogger
from pathlib import Path

import numpy as np

from pixelmill.pipeline.artifacts import publishing, scratch_folder, sha256_of, write_json
from pixelmill.pipeline.bundles import (
    BASELINE_FILE,
    GATE_REPORT_FILE,
    INSIDE_FILE,
    METRICS_FILE,
    ONNX_FILE,
    RECIPE_FILE,
    REPORT_FILE,
    TRAINING_IMAGES_FILE,
    ModelBundle,
)
from pixelmill.pipeline.bundles.engines import ENGINES
from pixelmill.pipeline.bundles.golden import read_golden
from pixelmill.pipeline.bundles.model_files import require_engines
from pixelmill.pipeline.drift.baseline import describe_baseline
from pixelmill.pipeline.evaluation.baseline import measure_files
from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from pixelmill.pipeline.export.descriptions import write_descriptions
from pixelmill.pipeline.export.draft import draft_bundle
from pixelmill.pipeline.export.embeddings import export_embeddings
from pixelmill.pipeline.export.engine_agreement import EngineAgreement, compare_engines, require_engines_agree
from pixelmill.pipeline.export.formats.addition import add_formats
from pixelmill.pipeline.export.formats.agreement import FormatResult
from pixelmill.pipeline.export.held_out import HeldOut
from pixelmill.pipeline.export.outputs import require_probabilities
from pixelmill.pipeline.export.parity import Tolerance, choose_tolerance, measure_parity, require_parity
from pixelmill.pipeline.export.prediction import FilePredictions, load_predictions
from pixelmill.pipeline.export.proof import Proof, finite, write_proof
from pixelmill.pipeline.export.runtimes import choose_version
from pixelmill.pipeline.export.source import ExportSource
from pixelmill.pipeline.export.training_images import write_training_images
from pixelmill.pipeline.export.variants import VariantResult, export_variants
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import dump_recipe

_log = getLogger(__name__)
_RESULTS = (
    METRICS_FILE,
    BASELINE_FILE,
    REPORT_FILE,
    INSIDE_FILE,
    GATE_REPORT_FILE,
    TRAINING_IMAGES_FILE,
)


def export_proven(
    source: ExportSource, held_out: HeldOut, folder: Path, record: Path | None = None
) -> ModelBundle:
    """Write a model's bundle into a folder, completely or not at all.

    Args:
        source: The model.
        held_out: The images on which parity is checked.
        folder: The bundle's folder; must not contain a finished artifact.
        record: A file for the result of the parity check, written even if the bundle is refused.

    Raises:
        RequestError: The model cannot be loaded or expressed in ONNX, or does not output probabilities, or a
            package for one of the formats is missing.
        WorkError: One of the formats cannot express the model.
        GateRefused: The model predicts NaN or infinity, or the predictions of the ONNX file, in onnxruntime
            or, for a model trained elsewhere, another engine, or of another format differ. Nothing is left.
    """
    require_engines(source.export.formats)
    version = choose_version(source.export)
    facts: dict[str, object] = {
        "kind": "model-bundle",
        "name": source.name,
        "version": source.version,
        "opset": version.opset,
        "ir_version": version.ir_version,
        "runtime_version": source.export.runtime_version,
        "licence": source.export.licence,
        "export": source.export.model_dump(mode="json"),
        **({"multi_label": True} if source.multi_label else {}),
        **source.facts,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder("proof", folder.parent) as work, publishing(folder, facts) as staging:
        predictions = work / "keras"
        predictions.mkdir()
        drafted = run_in_spawned_process(
            draft_bundle, source, staging, held_out.golden, held_out.files(), predictions
        )
        facts["parameters"] = drafted.parameters
        keras = load_predictions(predictions)
        _require_probabilities(source, held_out, keras, staging)
        _write_results(source, held_out, keras, staging)
        if source.dataset is not None:
            write_training_images(source.dataset, staging / TRAINING_IMAGES_FILE)
        if source.recipe is not None:
            (staging / RECIPE_FILE).write_text(dump_recipe(source.recipe), encoding="utf-8")
        draft = ModelBundle(staging, source.name, source.version, sha256_of(staging / ONNX_FILE))
        tolerance = choose_tolerance(drafted.noise, source.export)
        parity = measure_parity(draft, held_out, keras, tolerance, source.export.batch_sizes, work / "table")
        if record is not None:
            write_json(record, finite(asdict(parity)))
        require_parity(parity)
        engines = _compare_engines(source, draft, parity.tie_margin)
        if source.export.embeddings:
            facts["embedding_size"] = export_embeddings(draft, held_out, parity)
        others = _export_other_files(source, held_out, staging, tolerance)
        write_proof(staging, facts, Proof(parity, engines, *others))
        write_descriptions(staging, facts)
    return ModelBundle(folder, source.name, source.version, sha256_of(folder / ONNX_FILE))


def _require_probabilities(
    source: ExportSource, held_out: HeldOut, keras: FilePredictions, folder: Path
) -> None:
    """Check Keras's predictions for the held-out files, and those for the golden images."""
    require_probabilities(source.model_path, keras, held_out.origins, source.from_logits, source.multi_label)
    golden = read_golden(folder)
    all_read = FilePredictions(golden.probabilities, np.ones(len(golden.files), bool))
    names = [f"golden/{file.name}" for file in golden.files]
    require_probabilities(source.model_path, all_read, names, source.from_logits, source.multi_label)


def _compare_engines(
    source: ExportSource, draft: ModelBundle, tie_margin: float
) -> tuple[EngineAgreement, ...]:
    """Compare the installed engines with Keras, for a model that was trained elsewhere."""
    if source.recipe is not None:
        return ()  # The tests cover every layer of a recipe on every engine.
    engines = compare_engines(draft.onnx_path, read_golden(draft.folder), tie_margin, source.multi_label)
    for engine in engines:
        if engine.trouble:
            _log.warning("%s cannot run %s: %s", ENGINES[engine.engine].title, source.name, engine.trouble)
    require_engines_agree(engines)
    return engines


def _write_results(source: ExportSource, held_out: HeldOut, keras: FilePredictions, folder: Path) -> None:
    """Copy the results of an evaluation, or compute them from the predictions for the held-out images."""
    if source.results is not None:
        for name in _RESULTS:
            if (source.results / name).is_file():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source.results / name, folder / name)
        return
    predicted = keras.probabilities[keras.is_read]
    # A folder names one class of an image, which is not all of its labels.
    known = None if source.multi_label else held_out.labels
    labels = None if known is None else known[keras.is_read]
    test: dict[str, object] = {"images": len(predicted), "accuracy": None, "loss": None}
    if labels is not None and len(predicted):
        of_label = predicted[np.arange(len(labels)), labels].astype(np.float64)
        right = predicted.argmax(axis=1) == labels
        test["accuracy"] = float(right.mean())
        test["accuracy_interval"] = interval_of_proportion(int(right.sum()), len(right))
        test["loss"] = float(-np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean())
    baseline = describe_baseline(predicted, labels, measure_files(held_out.files(), source.image))
    write_json(folder / BASELINE_FILE, baseline)
    write_json(folder / METRICS_FILE, {"test": test})


def _export_variants(source: ExportSource, held_out: HeldOut, folder: Path) -> tuple[VariantResult, ...]:
    if not source.export.variants:
        return ()
    if held_out.arrays is None:
        _log.warning("no variants of %s: there are no training images for calibration", source.name)
        return ()
    results = export_variants(folder, held_out.arrays.training, held_out.arrays.held_out, source.export)
    for result in results:
        if result.refused:
            _log.warning("%s of %s is not published: %s", result.file, source.name, result.refused)
    return results


def _export_other_files(
    source: ExportSource, held_out: HeldOut, folder: Path, tolerance: Tolerance
) -> tuple[tuple[VariantResult, ...], tuple[FormatResult, ...]]:
    """Write the variants in lower precision and the other formats, and return how they compare."""
    export = source.export
    variants = _export_variants(source, held_out, folder)
    return variants, add_formats(folder, export.formats, held_out, source.image, export, tolerance)
