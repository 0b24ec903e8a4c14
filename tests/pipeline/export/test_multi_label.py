"""Models for which an image may have several labels, from the Keras file to the prediction table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json, read_manifest, write_json
from pixelmill.pipeline.bundles import ModelBundle, open_bundle
from pixelmill.pipeline.bundles.metadata import require_metadata
from pixelmill.pipeline.bundles.verification import verify_bundle
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.outputs import (
    require_logits,
    require_probabilities,
    require_probability_per_class,
)
from pixelmill.pipeline.export.prediction import FilePredictions
from pixelmill.pipeline.export.requests import ExportRequest, export_on_request
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.prediction import LoadedModel
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.promotion.prediction import predict_files
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import Run
from tests.pipeline.export.foreign import CLASSES, save_logits

# The bundle is exported once.
pytestmark = pytest.mark.xdist_group("multi-label")
COLOURS = {"none": (0, 0, 0), "cat": (255, 0, 0), "cat, dog": (255, 250, 0), "all": (250, 252, 255)}
LABELS = {"none": [], "cat": ["cat"], "cat, dog": ["cat", "dog"], "all": ["bird", "dog", "cat"]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, colour in COLOURS.items():
        pixels = np.tile(np.array(colour, np.uint8), (20, 20, 1))
        (folder / f"{name}.png").write_bytes(encode_png(pixels))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, images: Path) -> ModelBundle:
    folder = tmp_path_factory.mktemp("models")
    run_in_spawned_process(save_logits, folder / "pets.keras")
    (folder / "labels.json").write_text(json.dumps(CLASSES))
    export_on_request(
        ExportRequest(
            output=folder / "bundle",
            store=folder / "store",
            keras_file=folder / "pets.keras",
            labels=folder / "labels.json",
            images=images,
            pixel_range="0..1",
            from_logits=True,
            multi_label=True,
        )
    )
    return open_bundle(folder / "bundle")


def expected(colour: tuple[int, int, int]) -> np.ndarray:
    return 1 / (1 + np.exp(4 - 8 * np.array(colour) / 255))


def test_each_class_has_a_probability_of_its_own(several: ModelBundle) -> None:
    assert several.multi_label
    assert read_manifest(several.folder)["multi_label"] is True
    session = load_session(several.onnx_path)
    assert session.metadata["multi_label"] == "true"
    require_metadata(session, several)
    for colour in COLOURS.values():
        pixels = np.tile(np.array(colour, np.uint8), (1, 12, 16, 1))
        assert session.probabilities(pixels)[0] == pytest.approx(expected(colour), abs=1e-5)
    assert verify_bundle(several).agrees
    parity = read_json(several.folder / "parity.json")
    assert (parity["images"], parity["invalid"], parity["label_flips"]) == (4, 0, 0)
    assert parity["max_abs_difference"] < 1e-5
    assert all(engine["invalid"] == 0 for engine in parity["engines"])
    # A folder names one class, so nothing is said of the accuracy.
    assert read_json(several.folder / "metrics.json")["test"]["accuracy"] is None
    assert "an image may have several labels" in (several.folder / "README.md").read_text()
    assert "gives a probability for each of 3 classes" in (several.folder / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_the_table_lists_all_labels(several: ModelBundle, images: Path, tmp_path: Path, kind: str) -> None:
    request = ScoringRequest.from_options(
        several, images, tmp_path / "out", {"format": kind, "top_k": 3, "max_failure_rate": 1.0}
    )
    table = read_predictions(score_folder(request).folder).set_index("image_path")
    for name, colour in COLOURS.items():
        row = table.loc[f"{name}.png"]
        assert list(row["labels"]) == LABELS[name]
        assert row["label"] == (LABELS[name] or ["cat"])[0]
        values = [expected(colour)[CLASSES.index(label)] for label in LABELS[name]]
        assert list(row["label_probabilities"]) == pytest.approx(values, abs=1e-5)
        assert len(row["labels"]) == 0 or row["probability"] == row["label_probabilities"][0]
    assert table.loc["broken.png", "status"] == "failed"
    assert table["labels"].isna().to_dict()["broken.png"]
    # All probabilities are known, so every row is reused.
    again = ScoringRequest.from_options(
        several,
        images,
        tmp_path / "again",
        {"previous": str(tmp_path / "out"), "max_failure_rate": 1.0},
    )
    scored = score_folder(again)
    assert scored.manifest["reused"] == 4
    reused = read_predictions(scored.folder).set_index("image_path")
    assert {name: list(reused["labels"][f"{name}.png"]) for name in COLOURS} == LABELS


def test_the_other_commands_take_it(several: ModelBundle, images: Path, run: Run, tmp_path: Path) -> None:
    prediction = LoadedModel.from_bundle(several).predict(images / "cat, dog.png")
    assert (prediction.label, prediction.probabilities.sum() > 1.5) == ("cat", True)
    scored = run("score", several.folder, images, "--output", tmp_path / "out", "--max-failure-rate", 1)
    assert scored.code == 0, scored.errors
    explained = run("explain", tmp_path / "out", "all.png", "--model", several.folder, "--json")
    assert explained.code == 0, explained.errors
    with pytest.raises(RequestError, match="for which an image may have several labels"):
        predict_files([several], [])


def test_a_file_that_contradicts_its_bundle_is_refused(several: ModelBundle, tmp_path: Path) -> None:
    described = read_json(several.folder / "preprocessing.json")
    del described["output"]
    copy = ModelBundle(tmp_path, several.name, several.version, several.onnx_sha256)
    for name in ("model.onnx", "labels.json", "metrics.json"):
        (tmp_path / name).write_bytes((several.folder / name).read_bytes())
    write_json(tmp_path / "preprocessing.json", described)
    with pytest.raises(RequestError, match=r"differs from preprocessing\.json in the same folder"):
        require_metadata(load_session(several.onnx_path), copy)


def given(*rows: list[float]) -> FilePredictions:
    return FilePredictions(np.array(rows, np.float32), np.ones(len(rows), bool))


def test_networks_without_a_probability_for_each_class_are_refused() -> None:
    path = Path("m.keras")
    for activation, outputs, from_logits, words in (
        ("sigmoid", 1, False, "a network with one output"),
        ("softmax", 3, False, "final activation is softmax: one class for each image"),
        ("sigmoid", 3, True, "Omit `from_logits`"),
    ):
        with pytest.raises(RequestError, match=re.escape(words)):
            require_probability_per_class(path, activation, outputs, from_logits)
    require_probability_per_class(path, "sigmoid", 3, from_logits=False)
    require_probability_per_class(path, "linear", 3, from_logits=True)
    require_probabilities(path, given([0.2, 0.8], [0.0, 0.1]), "ab", from_logits=False, multi_label=True)
    with pytest.raises(RequestError, match="values from -1 to 3; expected probabilities"):
        require_probabilities(path, given([0.2, 3], [-1, 0.1]), "ab", from_logits=False, multi_label=True)
    with pytest.raises(RequestError, match="are between 0 and 1; expected a network that outputs logits"):
        require_logits(path, "unknown", given([0.2, 0.9], [0.0, 0.1]), multi_label=True)
    require_logits(path, "linear", given([0.2, 0.9], [0.0, 0.1]), multi_label=True)
