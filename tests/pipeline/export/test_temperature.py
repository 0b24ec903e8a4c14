"""A temperature in the exported files: parity is proven with it, and it is there once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from pixelmill.pipeline.artifacts import read_json, write_json
from pixelmill.pipeline.bundles import METRICS_FILE, ONNX_FILES, ModelBundle
from pixelmill.pipeline.bundles.golden import read_golden
from pixelmill.pipeline.bundles.metadata import DECISION_THRESHOLDS, TEMPERATURE
from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.evaluation.temperature import scale
from pixelmill.pipeline.export.exporter import export_proven
from pixelmill.pipeline.export.held_out import from_dataset
from pixelmill.pipeline.export.source import source_of_bundle, with_changes
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.registry.training_data import find_dataset

FACTOR = 2.5
THRESHOLDS = [0.5, 0.25, None, 0.125, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75]


def test_the_files_divide_the_logits_once_however_often_they_are_exported(
    trained_store: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    metrics = {
        **read_json(bundle.folder / METRICS_FILE),
        "calibration": {"temperature": FACTOR, "is_used": True},
        "thresholds": [
            {"class": name, "threshold": threshold, "precision": None, "precision_interval": None}
            for name, threshold in zip(bundle.labels(), THRESHOLDS, strict=True)
        ],
    }
    write_json(results / METRICS_FILE, metrics)
    (results / "baseline.json").write_bytes((bundle.folder / "baseline.json").read_bytes())
    export = with_changes(ExportSpec(), variants=("fp16", "int8"))
    dataset = find_dataset(trained_store, bundle)
    assert dataset is not None
    (tmp_path / "files").mkdir()
    held_out = from_dataset(dataset, bundle.image_spec(), tmp_path / "files")
    source = replace(source_of_bundle(bundle, export), results=results, temperature=FACTOR)
    scaled = export_proven(source, held_out, tmp_path / "scaled")

    assert read_json(scaled.folder / "parity.json")["label_flips"] == 0
    variants = {
        row["precision"]: row["refused"] for row in read_json(scaled.folder / "parity.json")["variants"]
    }
    assert variants == {"fp32": "", "fp16": "", "int8": ""}
    pixels = np.ascontiguousarray(dataset.split("test").pixels[:64])
    before, after = (load_session(each.onnx_path).probabilities(pixels) for each in (bundle, scaled))
    np.testing.assert_allclose(after, scale(before, FACTOR), atol=1e-5)
    assert np.abs(after - before).max() > 0.01
    for file, tolerance in ((ONNX_FILES["fp16"], 0.005), (ONNX_FILES["int8"], 0.1)):
        reduced = load_session(scaled.folder / file).probabilities(pixels)
        np.testing.assert_allclose(reduced, after, atol=tolerance)
    golden = read_golden(scaled.folder)
    replayed = load_session(scaled.onnx_path).probabilities(golden.tensors)
    np.testing.assert_allclose(replayed, golden.probabilities, atol=1e-5)
    assert np.abs(golden.probabilities - read_golden(bundle.folder).probabilities).max() > 0.01

    metadata = {entry.key: entry.value for entry in onnx.load(scaled.onnx_path).metadata_props}
    assert float(metadata[TEMPERATURE]) == FACTOR
    assert metadata[DECISION_THRESHOLDS] == "[0.5, 0.25, null, 0.125, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75]"
    assert scaled.decision_thresholds() == tuple(THRESHOLDS)

    again = export_proven(source_of_bundle(scaled, export), held_out, tmp_path / "again")
    assert again.onnx_path.read_bytes() == scaled.onnx_path.read_bytes()
    assert pytest.approx(FACTOR) == read_json(again.folder / METRICS_FILE)["calibration"]["temperature"]
