"""Models that pixelmill did not train: exported and proven as its own are, or refused in one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import read_json, read_manifest
from pipeline.config import ExportSpec
from pipeline.errors import PixelmillError, RequestError
from pipeline.export import open_bundle
from pipeline.export.loading import require_labels
from pipeline.export.metadata import require_metadata
from pipeline.export.verifying import verify_bundle
from pipeline.image_encoding import encode_png
from pipeline.inference import load_session
from pipeline.processes import run_in_spawned_process
from pipeline.proving.requests import ExportRequest, export_on_request
from pipeline.proving.sources import source_of_keras_file
from pipeline.training.prediction import predict_images
from tests.pipeline.proving.foreign import CLASSES, refusals, write_keras_files

# Its files are made once.
pytestmark = pytest.mark.xdist_group("foreign")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Keras files, their labels, and held-out images in folders named after their classes."""
    folder = tmp_path_factory.mktemp("models")
    run_in_spawned_process(write_keras_files, folder)
    (folder / "labels.json").write_text(json.dumps(CLASSES))
    random = np.random.default_rng(0)
    for index in range(30):
        place = folder / "images" / CLASSES[index % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index}.png").write_bytes(encode_png(random.integers(0, 256, (20, 20, 3), np.uint8)))
    (folder / "images/cat/broken.png").write_bytes(b"no image")
    return folder


def request(models: Path, output: Path, **changes: object) -> ExportRequest:
    wanted: dict[str, object] = {
        "output": output,
        "store": models / "store",
        "model": str(models),
        "keras_file": Path("logits.keras"),
        "labels": Path("labels.json"),
        "images": models / "images",
        "pixel_range": "0..1",
        "from_logits": True,
        "resize": "crop",
        **changes,
    }
    return ExportRequest(**wanted)  # type: ignore[arg-type]


def test_a_model_trained_elsewhere_becomes_a_bundle(models: Path, tmp_path: Path) -> None:
    export_on_request(request(models, tmp_path / "bundle", runtime_version="1.10"))
    bundle = open_bundle(tmp_path / "bundle")
    manifest = read_manifest(bundle.folder)
    assert (bundle.name, bundle.version, bundle.labels()) == ("logits", 1, CLASSES)
    assert (manifest["opset"], manifest["ir_version"], manifest["runtime_version"]) == (15, 8, "1.10")
    assert bundle.image_spec().model_dump(exclude={"background"}) == {
        "height": 12,
        "width": 16,
        "channels": 3,
        "resize": "crop",
    }
    parity = read_json(bundle.folder / "parity.json")
    assert (parity["images"], parity["unreadable"], parity["label_flips"]) == (30, 1, 0)
    assert parity["files"][0]["file"].startswith(CLASSES)
    test = read_json(bundle.folder / "metrics.json")["test"]
    assert test["images"] == 30
    assert 0 <= test["accuracy"] <= 1
    assert read_json(bundle.folder / "baseline.json")["images"] == 30
    require_metadata(load_session(bundle.onnx_path), bundle)
    assert verify_bundle(bundle).agrees
    # The Keras file beside it is the model from pixels to probabilities: `explain` asks it.
    pixels = np.random.default_rng(3).integers(0, 256, (2, 12, 16, 3), np.uint8)
    answers = run_in_spawned_process(predict_images, bundle.folder / "model.keras", pixels)
    assert np.abs(answers - load_session(bundle.onnx_path).probabilities(pixels)).max() < 1e-5
    # What it was trained on decides: the same model for another range of pixels answers otherwise.
    assert answers.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_logits_are_no_probabilities(models: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--from-logits"):
        export_on_request(request(models, tmp_path / "bundle", from_logits=False))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_loaded_safely_is_refused_in_one_line(models: Path) -> None:
    (models / "text.keras").write_text("no model")
    names = ("lambda", "custom", "flat", "text")
    files = [*(models / f"{name}.keras" for name in names), models / "old.h5"]
    said = run_in_spawned_process(refusals, files)
    for words, expected in zip(
        said,
        (
            "has a Lambda layer, which holds code",
            "needs code that is not in it: Doubling",
            "outputs [(None, 10, 14, 3)]; expected one input",
            "is no .keras file",
            "is no .keras file",
        ),
        strict=True,
    ):
        assert words.startswith("refused with 2: ")
        assert expected in words
        assert "\n" not in words


@pytest.mark.parametrize(
    ("class_names", "words"),
    [
        (("cat", "dog"), "2 labels for a network with 3 outputs"),
        (("a", "b", "a"), "label 'a' more than once"),
    ],
)
def test_labels_must_fit(class_names: tuple[str, ...], words: str) -> None:
    require_labels(CLASSES, 3)
    with pytest.raises(RequestError, match=words):
        require_labels(class_names, 3)


@pytest.mark.parametrize(
    "content", ["no json", "[]", "[1, 2, 3]", '{"0": "cat", "2": "dog"}', '"cat"', '["", "b"]']
)
def test_labels_must_be_a_list_of_names(models: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(RequestError, match=r"labels\.json"):
        source_of_keras_file(models / "logits.keras", tmp_path / "labels.json", ExportSpec())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keras_file": None, "model": None}, "no model to export"),
        ({"labels": None}, "--keras-file without --labels"),
        ({"keras_file": None, "model": "digits@1"}, "--labels without --keras-file"),
        ({"images": Path("nowhere")}, "images nowhere is no folder"),
        ({"images": None}, "no held-out images to prove logits on"),
        ({"keras_file": Path("nothing.keras")}, "nothing.keras does not exist"),
        ({"runtime_version": "1.4"}, "runtime version 1.4"),
        ({"keras_file": Path("bytes.keras")}, "--pixel-range 0..1 for a network that takes uint8"),
    ],
)
def test_bad_requests_are_refused(
    models: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(PixelmillError, match=words) as caught:
        export_on_request(request(models, tmp_path / "bundle", **changes))
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_what_has_an_images_name_and_is_no_file_is_named(models: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.png").symlink_to(next((models / "images").rglob("*.png")))
    os.mkfifo(images / "pipe.png")
    with pytest.raises(RequestError, match=r"image pipe\.png in .*images: .*pipe"):
        export_on_request(request(models, tmp_path / "bundle", images=images))
    assert not (tmp_path / "bundle").exists()
