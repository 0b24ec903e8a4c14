"""The metadata that an ONNX file must have for scoring."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from pixelmill.pipeline.artifacts import MANIFEST, read_json, verify_files
from pixelmill.pipeline.bundles import ModelBundle, open_bundle
from pixelmill.pipeline.errors import PixelmillError, RequestError
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import update_manifest, write_images

Change = Callable[[onnx.ModelProto], None]


def drop(*names: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        kept = [entry for entry in model.metadata_props if entry.key not in names]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)

    return change


def rename_a_class(model: onnx.ModelProto) -> None:
    (entry,) = (entry for entry in model.metadata_props if entry.key == "class_names")
    entry.value = entry.value.replace("7", "seven")


def rewritten(bundle: ModelBundle, folder: Path, change: Change) -> ModelBundle:
    """A copy of a bundle whose ONNX file another program has rewritten, with a matching manifest."""
    shutil.copytree(bundle.folder, folder)
    path = folder / bundle.onnx_path.name
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    update_manifest(folder)
    return open_bundle(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("preprocessing"), "metadata has no preprocessing;"),
        (
            drop("class_names", "preprocessing", "preprocessing_sha256"),
            "metadata has no class_names, preprocessing, preprocessing_sha256;",
        ),
        (rename_a_class, r"class_names differs from labels\.json in the same folder;"),
    ],
    ids=["one missing", "all missing", "another class"],
)
def test_missing_or_different_metadata_is_refused(
    bundle: ModelBundle, tmp_path: Path, change: Change, said: str
) -> None:
    write_images(tmp_path / "images", 3)
    received = rewritten(bundle, tmp_path / "received", change)
    with pytest.raises(RequestError, match=said):
        score_folder(ScoringRequest(received, tmp_path / "images", tmp_path / "out"))
    assert not (tmp_path / "out/manifest.json").exists()


def test_data_outside_the_folder_is_never_read(bundle: ModelBundle, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.zeros(1 << 16, np.float32).tobytes())

    def point_outside(model: onnx.ModelProto) -> None:
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        onnx.external_data_helper.set_external_data(weights, "../secret")
        weights.ClearField("raw_data")

    write_images(tmp_path / "images", 3)
    received = rewritten(bundle, tmp_path / "received", point_outside)
    with pytest.raises(PixelmillError, match="cannot be loaded"):
        score_folder(ScoringRequest(received, tmp_path / "images", tmp_path / "out"))


def test_a_refusal_leaves_an_earlier_table_unchanged(bundle: ModelBundle, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    request = ScoringRequest(bundle, tmp_path / "images", tmp_path / "out")
    score_folder(request)
    before = read_json(request.output / MANIFEST)
    received = rewritten(bundle, tmp_path / "received", drop("preprocessing"))
    with pytest.raises(RequestError):
        score_folder(replace(request, bundle=received, fresh=True))
    assert verify_files(request.output) == before
