"""A model that is replaced during a run: every row comes from the model in the manifest."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pixelmill.pipeline.bundles import ModelBundle, open_bundle
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.explain.explanation import explain_image
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.run import score_folder, score_shards
from pixelmill.pipeline.scoring.shards import growing_limits
from tests.conftest import write_images

SHARD_IMAGES = next(growing_limits())[0]

# Run by each worker when it starts: the first one to finish its second shard replaces the model and dies.
SWAPPING_WORKER = """
import os, signal
from pathlib import Path

unlink, other, ended = Path.unlink, Path(__file__).with_name("other.onnx"), []

def swap(path, *arguments, **options):
    unlink(path, *arguments, **options)
    if path.parent.name == "begun":
        ended.append(path)
        if len(ended) == 2 and other.exists():
            other.replace({model!r})
            os.kill(os.getpid(), signal.SIGKILL)

Path.unlink = swap
"""


def with_other_classes(model: Path, changed: Path) -> None:
    """Write a model that predicts the classes in another order, with the same metadata."""
    content = onnx.load(model)
    (output,) = content.graph.output
    for node in content.graph.node:
        node.output[:] = ["rolled" if name == output.name else name for name in node.output]
    order = np.roll(np.arange(10), 3)
    content.graph.initializer.append(numpy_helper.from_array(order, "order"))
    content.graph.node.append(helper.make_node("Gather", ["rolled", "order"], [output.name], axis=1))
    onnx.save(content, changed)


@pytest.fixture
def copied(bundle: ModelBundle, tmp_path: Path) -> ModelBundle:
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle")


def test_a_model_replaced_before_the_workers_load_it_ends_the_run(
    copied: ModelBundle, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 20)
    request = ScoringRequest(copied, tmp_path / "images", tmp_path / "out", workers=2)
    with lock_output(request.output):
        plan = plan_scoring(request)
        with_other_classes(copied.onnx_path, copied.onnx_path)
        with pytest.raises(WorkError, match=r"model\.onnx with the SHA-256 .* The model has been modified"):
            score_shards(plan)
    assert not list(request.parts.iterdir())


def test_a_restarted_worker_does_not_use_another_model(
    copied: ModelBundle, bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 3 * SHARD_IMAGES)
    whole = read_predictions(
        score_folder(ScoringRequest(bundle, tmp_path / "images", tmp_path / "whole")).folder
    )
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SWAPPING_WORKER.format(model=str(copied.onnx_path)))
    with_other_classes(copied.onnx_path, site / "other.onnx")
    kept = tmp_path / "kept.onnx"
    shutil.copyfile(copied.onnx_path, kept)
    request = ScoringRequest(copied, tmp_path / "images", tmp_path / "out", workers=1)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(site))
        with pytest.raises(WorkError, match="The model has been modified"):
            score_folder(request)
    assert not (site / "other.onnx").exists()
    assert not (request.output / "manifest.json").exists()
    kept.replace(copied.onnx_path)
    rows = read_predictions(score_folder(request).folder)
    assert rows["label"].tolist() == whole["label"].tolist()


def test_changed_class_names_end_the_run(copied: ModelBundle, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    request = ScoringRequest(copied, tmp_path / "images", tmp_path / "out", workers=1)
    with lock_output(request.output):
        plan = plan_scoring(request)
        labels = copied.folder / "labels.json"
        labels.write_text(labels.read_text().replace("7", "seven"))
        with pytest.raises(RequestError, match=r"class_names differs from labels\.json"):
            score_shards(plan)


def test_explain_does_not_use_another_model(
    copied: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 2)
    table = score_folder(ScoringRequest(copied, tmp_path / "images", tmp_path / "out", workers=1))
    opened = open_bundle(copied.folder)
    monkeypatch.setattr("pixelmill.pipeline.explain.explanation.find_bundle", lambda *_: opened)
    with_other_classes(copied.onnx_path, copied.onnx_path)
    with pytest.raises(WorkError, match="The model has been modified"):
        explain_image(table.folder, "00000.png", tmp_path, keras=False)


@pytest.mark.parametrize("place", ["weights", "elsewhere/weights", "/{folder}/weights"])
def test_external_weights_are_not_loaded(
    copied: ModelBundle, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither from the folder of the model nor from the working folder."""
    model = onnx.load(copied.onnx_path)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "elsewhere").mkdir()
    for folder in (copied.folder, tmp_path, tmp_path / "elsewhere"):
        (folder / "weights").write_bytes(weights.raw_data)
    onnx.external_data_helper.set_external_data(weights, place.format(folder=tmp_path))
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    copied.onnx_path.write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="cannot be loaded"):
        load_session(copied.onnx_path)
