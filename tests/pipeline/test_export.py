"""The bundle: what is in it, the same bytes from any process, and the gate before it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from pipeline.artifacts import read_json, read_manifest, sha256_of, verify_files
from pipeline.config import Recipe
from pipeline.datasets import PreparedDataset
from pipeline.errors import GateRefused
from pipeline.evaluation import PROBABILITIES_FILE, Evaluation
from pipeline.export import ModelBundle
from pipeline.export.bundling import export_bundle
from pipeline.export.parity import compare_with_keras
from pipeline.preprocessing import describe_preprocessing, preprocessing_sha256
from pipeline.processes import run_in_spawned_process
from pipeline.recipes import load_recipe
from pipeline.training import TrainedModel
from tests.conftest import EPOCHS

FILES = """README.md baseline.json golden/enlarged.png golden/golden.json golden/plain.png
golden/probabilities.npy golden/tensors.npy golden/transparent.png golden/turned.jpg labels.json manifest.json
metrics.json model.keras model.onnx parity.json preprocessing.json recipe.yaml report/index.html
test_data_set_0/input_0.pb test_data_set_0/output_0.pb"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("digits", [f"training.epochs={EPOCHS}"])


@pytest.fixture(scope="module")
def stages(trained_store: Path, bundle: ModelBundle) -> tuple[TrainedModel, Evaluation, PreparedDataset, str]:
    """What the stages before the export handed on in the run that made `digits@1`."""
    run = trained_store / "runs" / read_manifest(bundle.folder)["run_id"]
    metrics = read_json(bundle.folder / "metrics.json")
    model = TrainedModel(
        run / "training", metrics["parameters"], EPOCHS, 1.0, "cpu", *metrics["validation"].values()
    )
    test = metrics["test"]
    evaluation = Evaluation(
        run / "evaluation", run / PROBABILITIES_FILE, test["images"], test["loss"], test["accuracy"]
    )
    (folder,) = (trained_store / "datasets").glob("digits-*")
    return model, evaluation, PreparedDataset.from_manifest(folder, verify_files(folder)), run.name


def test_the_bundle_holds_what_the_design_lists(bundle: ModelBundle) -> None:
    found = {
        path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()
    }
    assert found == set(FILES.split())
    manifest = verify_files(bundle.folder)
    assert set(manifest["files"]) == found - {"manifest.json"}
    for fact in ("recipe", "packages", "seed", "dataset_fingerprint", "git_commit", "created_at"):
        assert fact in manifest


def test_the_file_describes_itself_in_standard_ops(bundle: ModelBundle, recipe: Recipe) -> None:
    model = onnx.load(bundle.onnx_path)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    (image,), (probabilities,) = model.graph.input, model.graph.output
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (image, probabilities)
    ]
    assert (image.name, probabilities.name) == ("image", "probabilities")
    assert shapes == [["batch", 8, 8, 1], ["batch", 10]]
    # The normalisation is folded into the convolutions, and pooling is one op.
    ops = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in ops
    assert "GlobalAveragePool" in ops
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (
        json.loads(metadata["class_names"]) == read_json(bundle.folder / "labels.json") == list("0123456789")
    )
    described = json.loads(metadata["preprocessing"])
    assert (
        described == read_json(bundle.folder / "preprocessing.json") == describe_preprocessing(recipe.image)
    )
    assert metadata["preprocessing_sha256"] == preprocessing_sha256(described)
    assert (metadata["name"], metadata["version"], metadata["licence"]) == ("digits", "1", "CC-BY-4.0")
    assert metadata["run"] == read_manifest(bundle.folder)["run_id"]


def test_the_test_data_replays(bundle: ModelBundle) -> None:
    data = bundle.folder / "test_data_set_0"
    tensors = []
    for name in ("input_0.pb", "output_0.pb"):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((data / name).read_bytes())
        tensors.append(numpy_helper.to_array(tensor))
    session = onnxruntime.InferenceSession(bundle.onnx_path)
    (answers,) = session.run(None, {"image": tensors[0]})
    assert np.abs(answers - tensors[1]).max() < 1e-6


def test_another_process_exports_the_same_bytes(
    bundle: ModelBundle,
    recipe: Recipe,
    stages: tuple[TrainedModel, Evaluation, PreparedDataset, str],
    tmp_path: Path,
) -> None:
    model, evaluation, dataset, run_id = stages
    again = run_in_spawned_process(
        export_bundle, model, evaluation, dataset, recipe, run_id, 1, tmp_path / "again"
    )
    assert sha256_of(again.onnx_path) == sha256_of(bundle.onnx_path)


def test_a_model_that_does_not_equal_keras_is_not_published(
    recipe: Recipe,
    stages: tuple[TrainedModel, Evaluation, PreparedDataset, str],
    tmp_path: Path,
) -> None:
    model, evaluation, dataset, run_id = stages
    # Answers in which one image has another label, as a layer that acts differently would give.
    answers = np.load(evaluation.probabilities)
    answers[7] = np.roll(answers[7], 1)
    np.save(tmp_path / "answers.npy", answers)
    changed = replace(evaluation, probabilities=tmp_path / "answers.npy")
    with pytest.raises(GateRefused, match="1 of 359 test images another label"):
        run_in_spawned_process(
            export_bundle, model, changed, dataset, recipe, run_id, 1, tmp_path / "refused"
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.npy"]


def test_parity_counts_flips_and_measures_differences(
    bundle: ModelBundle, stages: tuple[TrainedModel, Evaluation, PreparedDataset, str]
) -> None:
    _, evaluation, dataset, _ = stages
    pixels, answers = dataset.split("test").pixels, np.load(evaluation.probabilities)
    parity = compare_with_keras(bundle.onnx_path, pixels, answers, (1, 64))
    assert (parity.images, parity.label_flips) == (359, 0)
    assert parity.max_abs_difference < 1e-5
    shifted = answers.copy()
    shifted[3, 0] += 0.25
    parity = compare_with_keras(bundle.onnx_path, pixels, shifted, (64,))
    assert parity.max_abs_difference == pytest.approx(0.25, abs=1e-4)
    assert parity.label_flips == 0
    shifted[3] = np.nan
    assert compare_with_keras(bundle.onnx_path, pixels, shifted, (64,)).max_abs_difference == np.inf
