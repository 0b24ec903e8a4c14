"""The bundle: its contents, reproducible bytes, and the parity gate."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from pixelmill.pipeline.artifacts import describe_file, read_json, read_manifest, verify_files
from pixelmill.pipeline.bundles import GATE_REPORT_FILE, ModelBundle
from pixelmill.pipeline.bundles.preprocessing import describe_preprocessing, preprocessing_sha256
from pixelmill.pipeline.config import ExportSpec, Recipe
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.export.exporter import export_proven
from pixelmill.pipeline.export.held_out import HeldOut, from_dataset
from pixelmill.pipeline.export.source import ExportSource, source_of_bundle
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.registry.training_data import find_dataset
from tests.conftest import EPOCHS

FILES = """README.md baseline.json golden/enlarged.png golden/golden.json golden/plain.png
golden/probabilities.npy golden/tensors.npy golden/transparent.png golden/turned.jpg labels.json manifest.json
metrics.json model.keras model.onnx parity.json preprocessing.json recipe.yaml report/export.html
MODEL_CARD.md bom.cdx.json
report/gate.html report/index.html report/inside.html test_data_set_0/input_0.pb
test_data_set_0/output_0.pb
training_images.parquet"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("digits", [f"training.epochs={EPOCHS}"])


def test_the_bundle_contains_the_documented_files(bundle: ModelBundle) -> None:
    found = {
        path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()
    }
    assert found == set(FILES.split())
    manifest = verify_files(bundle.folder)
    assert set(manifest["files"]) == found - {"manifest.json"}
    for fact in ("recipe", "packages", "seed", "dataset_fingerprint", "git_commit", "created_at"):
        assert fact in manifest


def test_the_file_has_metadata_and_only_standard_ops(bundle: ModelBundle, recipe: Recipe) -> None:
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
    # Normalization is folded into the convolutions, and pooling is one op.
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


def test_the_test_data_can_be_replayed(bundle: ModelBundle) -> None:
    data = bundle.folder / "test_data_set_0"
    tensors = []
    for name in ("input_0.pb", "output_0.pb"):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((data / name).read_bytes())
        tensors.append(numpy_helper.to_array(tensor))
    session = onnxruntime.InferenceSession(bundle.onnx_path)
    (predictions,) = session.run(None, {"image": tensors[0]})
    assert np.abs(predictions - tensors[1]).max() < 1e-6


@pytest.fixture(scope="module")
def source(trained_store: Path, bundle: ModelBundle) -> ExportSource:
    """The source of the export of `digits@1`."""
    manifest = read_manifest(bundle.folder)
    run = trained_store / "runs" / manifest["run_id"]
    again = source_of_bundle(bundle, ExportSpec.model_validate(manifest["export"]))
    dataset = find_dataset(trained_store, bundle)
    return replace(
        again, model_path=run / "training/model.keras", results=run / "evaluation", dataset=dataset
    )


@pytest.fixture
def held_out(trained_store: Path, bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    dataset = find_dataset(trained_store, bundle)
    assert dataset is not None
    return from_dataset(dataset, bundle.image_spec(), tmp_path_factory.mktemp("held-out"))


def test_another_process_exports_the_same_bytes(
    bundle: ModelBundle, source: ExportSource, held_out: HeldOut, tmp_path: Path
) -> None:
    again = export_proven(source, held_out, tmp_path / "again")
    different = [
        name
        for name, facts in read_manifest(bundle.folder)["files"].items()
        if name != GATE_REPORT_FILE and facts != describe_file(again.folder / name)
    ]
    # The gate adds to the metrics and to the links of the report later; the other two contain the time.
    assert different == ["metrics.json", "model.keras", "report/export.html", "report/index.html"]


def test_a_model_that_differs_from_keras_is_not_published(
    source: ExportSource, held_out: HeldOut, tmp_path: Path
) -> None:
    # The order of additions differs between programs.
    strict = replace(source, export=source.export.model_copy(update={"max_abs_difference": 1e-12}))
    with pytest.raises(
        GateRefused, match=r"another label than Keras for 0 of 359 held-out images.*; the worst is digit "
    ):
        export_proven(strict, held_out, tmp_path / "refused", record=tmp_path / "parity.json")
    assert [path.name for path in tmp_path.iterdir()] == ["parity.json"]
    record = read_json(tmp_path / "parity.json")
    assert len(record["files"]) == 20
    assert 1e-12 < record["max_abs_difference"] == record["files"][0]["difference"] < 1e-5
    assert 1e-9 < record["noise"] < 1e-5
    assert record["allowed_difference"] == 1e-12
