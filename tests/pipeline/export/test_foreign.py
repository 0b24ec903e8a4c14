"""Models that were trained elsewhere: exported and proven, or refused in one line."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json, read_manifest
from pixelmill.pipeline.bundles import open_bundle
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.metadata import require_metadata
from pixelmill.pipeline.bundles.model_files import ONNX_ENGINES
from pixelmill.pipeline.bundles.verification import verify_bundle
from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.errors import GateRefused, PixelmillError, RequestError
from pixelmill.pipeline.export.keras_loader import require_labels
from pixelmill.pipeline.export.outputs import (
    require_logits,
    require_one_class_per_image,
    require_probabilities,
)
from pixelmill.pipeline.export.prediction import FilePredictions
from pixelmill.pipeline.export.requests import ExportRequest, export_on_request
from pixelmill.pipeline.export.source import source_of_keras_file
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.processes import run_in_spawned_process, sharing_process
from pixelmill.pipeline.training.prediction import predict_images
from tests.pipeline.export.foreign import CLASSES, describe, raw_outputs, refusals, write_keras_files

# The files are created once.
pytestmark = pytest.mark.xdist_group("foreign")


@pytest.fixture(scope="module", autouse=True)
def one_keras_process() -> Iterator[None]:
    with sharing_process():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Keras files, labels, and held-out images in folders named after the classes."""
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
    assert bundle.image_spec().model_dump(exclude={"background", "storage"}) == {
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
    low, high = test["accuracy_interval"]
    assert 0 <= low <= test["accuracy"] <= high <= 1
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert "its training data and its training are not known here" in card
    assert (bundle.folder / "bom.cdx.json").is_file()
    assert read_json(bundle.folder / "baseline.json")["images"] == 30
    require_metadata(load_session(bundle.onnx_path), bundle)
    assert verify_bundle(bundle).agrees
    # The Keras file in the bundle maps pixels to probabilities, for `explain`.
    pixels = np.random.default_rng(3).integers(0, 256, (2, 12, 16, 3), np.uint8)
    predictions = run_in_spawned_process(predict_images, bundle.folder / "model.keras", pixels)
    assert np.abs(predictions - load_session(bundle.onnx_path).probabilities(pixels)).max() < 1e-5
    # With another pixel range, the same model predicts differently.
    assert predictions.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_logits_are_refused_as_probabilities(models: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="from_logits"):
        export_on_request(request(models, tmp_path / "bundle", from_logits=False))
    assert list(tmp_path.iterdir()) == []


def write_damaged_files(models: Path) -> None:
    content = (models / "softmax.keras").read_bytes()
    (models / "text.keras").write_text("no model")
    (models / "empty.keras").write_bytes(b"")
    (models / "cut.keras").write_bytes(content[: len(content) // 2])
    altered = bytearray(content)
    altered[content.index(b"config.json") + 200] ^= 0xFF
    (models / "altered.keras").write_bytes(altered)
    with zipfile.ZipFile(models / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "an archive")
    with zipfile.ZipFile(models / "no_json.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{")
    with (
        zipfile.ZipFile(models / "softmax.keras") as whole,
        zipfile.ZipFile(models / "no_weights.keras", "w") as archive,
    ):
        for name in ("metadata.json", "config.json"):
            archive.writestr(name, whole.read(name))


def test_every_unsupported_file_is_refused_in_one_line(models: Path) -> None:
    write_damaged_files(models)
    expected = {
        "lambda.keras": "has a Lambda layer, which contains code",
        "custom.keras": "needs custom code that the file does not contain: Doubling",
        "flat.keras": "outputs [(None, 10, 14, 3)]; expected one input",
        "two.keras": "one of its outputs, such as model.output['probs'], model.output['logits']",
        "any_size.keras": "Choose the size it was trained on with `image_size`",
        "channels_first.keras": "begins with keras.layers.Permute((3, 1, 2)), which takes channels last",
        "four_channels.keras": "which adds a constant fourth one inside",
        "unbuilt.keras": "saved without an input shape",
        "text.keras": "is not a .keras file",
        "empty.keras": "is not a .keras file",
        "cut.keras": "is a damaged .keras file",
        "altered.keras": "is a damaged .keras file",
        "other.keras": "is an archive without config.json",
        "no_json.keras": "cannot be loaded",
        "no_weights.keras": "cannot be loaded",
        "old.h5": "is an HDF5 file (.h5), not a .keras file",
        "saved_model": "is a TensorFlow SavedModel, not a .keras file",
        "images": "is a folder or a device",
        "nothing.keras": "does not exist",
    }
    said = run_in_spawned_process(refusals, [models / name for name in expected])
    for (name, part), words in zip(expected.items(), said, strict=True):
        assert words.startswith("refused with 2: "), name
        assert part in words, name
        assert "\n" not in words
        assert len(words) < 600


def test_the_inputs_and_outputs_of_a_network_are_described(models: Path) -> None:
    expected = {
        "dict": (3, "softmax"),
        "list": (3, "softmax"),
        "softmax": (3, "softmax"),
        "passed": (3, "softmax"),
        "inner": (3, "softmax"),
        "op": (3, "softmax"),
        "hidden": (3, "unknown"),
        "logits": (3, "linear"),
        "multi": (3, "sigmoid"),
        "many": (3, "sigmoid"),
        "binary": (1, "sigmoid"),
        "binary_logit": (1, "linear"),
    }
    found = run_in_spawned_process(describe, [models / f"{name}.keras" for name in expected])
    assert dict(zip(expected, found, strict=True)) == expected


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(
    ("activation", "outputs", "words"),
    [
        ("sigmoid", 3, r"final activation is sigmoid .*add `multi_label`.*`from_logits` does not help"),
        ("hard_sigmoid", 3, "final activation is hard_sigmoid"),
        ("softmax", 1, r"with one output \(activation softmax\); expected a sigmoid, or a logit"),
        ("unknown", 1, r"with one output \(activation unknown\)"),
    ],
)
def test_outputs_that_are_not_a_distribution_are_refused(
    activation: str, outputs: int, words: str, from_logits: bool
) -> None:
    with pytest.raises(RequestError, match=words):
        require_one_class_per_image(Path("m.keras"), activation, outputs, from_logits)


def test_one_output_is_a_probability_or_a_logit() -> None:
    path = Path("m.keras")
    require_one_class_per_image(path, "sigmoid", 1, from_logits=False)
    require_one_class_per_image(path, "linear", 1, from_logits=True)
    with pytest.raises(RequestError, match=r"`from_logits` for .* Omit `from_logits`"):
        require_one_class_per_image(path, "sigmoid", 1, from_logits=True)
    with pytest.raises(RequestError, match=r"activation linear.* If the output is a logit"):
        require_one_class_per_image(path, "linear", 1, from_logits=False)


def test_a_second_softmax_is_refused() -> None:
    with pytest.raises(RequestError, match=r"`from_logits` for m\.keras, whose final activation is softmax"):
        require_one_class_per_image(Path("m.keras"), "softmax", 3, from_logits=True)
    for activation in ("linear", "unknown", "logsoftmax"):
        require_one_class_per_image(Path("m.keras"), activation, 3, from_logits=True)
    require_one_class_per_image(Path("m.keras"), "softmax", 3, from_logits=False)


def given(*rows: list[float]) -> FilePredictions:
    """Outputs for some files, the last of which cannot be read."""
    outputs = np.array([*rows, [np.nan] * len(rows[0])], np.float32)
    return FilePredictions(outputs, np.arange(len(outputs)) < len(rows))


def test_probabilities_are_refused_as_logits() -> None:
    path = Path("m.keras")
    for activation in ("unknown", "linear"):
        with pytest.raises(RequestError, match=r"between 0 and 1 and add up to 1.* Omit `from_logits`"):
            require_logits(path, activation, given([0.2, 0.8], [1.0, 0.0]))
    with pytest.raises(RequestError, match=r"add up to 1\.5 for one image, as sigmoid outputs"):
        require_logits(path, "unknown", given([0.2, 0.8], [0.7, 0.8]))
    # Small logits of a layer that is known to output logits.
    require_logits(path, "linear", given([0.2, 0.8], [0.7, 0.8]))
    require_logits(path, "unknown", given([0.2, 0.8], [1.7, 0.8]))
    require_logits(path, "unknown", given([np.nan, 0.8]))


def test_predictions_must_be_probabilities() -> None:
    path, names = Path("m.keras"), ("a.png", "b.png", "c.png")
    require_probabilities(path, given([0.2, 0.8], [1.0, 0.0]), names, from_logits=False)
    with pytest.raises(
        RequestError, match=r"add up to 1\.5 for one image, as sigmoid outputs .*does not help"
    ):
        require_probabilities(path, given([0.2, 0.8], [0.7, 0.8]), names, from_logits=False)
    with pytest.raises(RequestError, match=r"from -3 to 5, .* If the outputs are logits, add `from_logits`"):
        require_probabilities(path, given([0.2, 0.8], [-3.0, 5.0]), names, from_logits=False)
    for broken in (np.nan, np.inf, -np.inf):
        with pytest.raises(GateRefused, match=r"infinity for 1 of 2 .* the first of which is b\.png"):
            require_probabilities(path, given([0.2, 0.8], [broken, 0.5]), names, from_logits=False)


def test_a_dict_of_one_output_is_exported_and_run_on_every_engine(models: Path, tmp_path: Path) -> None:
    wanted = request(models, tmp_path / "bundle", keras_file=Path("dict.keras"), from_logits=False)
    export_on_request(wanted)
    proof = read_json(tmp_path / "bundle/parity.json")
    assert (proof["images"], proof["unreadable"], proof["invalid"]) == (30, 1, 0)
    assert proof["max_abs_difference"] < proof["allowed_difference"] == 1e-5
    installed = [name for name in ONNX_ENGINES if ENGINES[name].version() is not None]
    assert [engine["engine"] for engine in proof["engines"]] == installed
    for engine in proof["engines"]:
        assert (engine["images"], engine["label_flips"], engine["invalid"]) == (4, 0, 0)
        assert engine["max_abs_difference"] < 1e-5
        line = f"{ENGINES[EngineName(engine['engine'])].title} {engine['version']}: the same labels"
        assert line in (tmp_path / "bundle/README.md").read_text()


@pytest.mark.parametrize(
    ("name", "from_logits"), [pytest.param("binary", False, marks=pytest.mark.slow), ("binary_logit", True)]
)
def test_a_binary_network_gets_a_class_for_each_answer(
    models: Path, tmp_path: Path, name: str, from_logits: bool
) -> None:
    (tmp_path / "labels.json").write_text('["other", "cat"]')
    wanted = request(
        models,
        tmp_path / "bundle",
        keras_file=Path(f"{name}.keras"),
        labels=tmp_path / "labels.json",
        pixel_range=None,
        from_logits=from_logits,
    )
    export_on_request(wanted)
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.labels() == ("other", "cat")
    assert verify_bundle(bundle).agrees
    pixels = np.random.default_rng(3).integers(0, 256, (5, 12, 16, 3), np.uint8)
    predicted = load_session(bundle.onnx_path).probabilities(pixels)
    (raw,) = run_in_spawned_process(raw_outputs, models / f"{name}.keras", pixels).T
    positive = 1 / (1 + np.exp(-raw)) if from_logits else raw
    assert predicted[:, 1] == pytest.approx(positive, abs=1e-5)
    assert predicted.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_network_for_any_size_gets_a_fixed_one(models: Path, tmp_path: Path) -> None:
    changes: dict[str, object] = {"keras_file": Path("any_size.keras"), "from_logits": False}
    wanted = request(models, tmp_path / "bundle", image_size=(10, 14), pixel_range=None, **changes)
    export_on_request(wanted)
    bundle = open_bundle(tmp_path / "bundle")
    image = bundle.image_spec()
    assert (image.height, image.width, image.channels) == (10, 14, 3)
    assert verify_bundle(bundle).agrees
    wrong = request(
        models, tmp_path / "wrong", keras_file=Path("softmax.keras"), from_logits=False, image_size=(10, 14)
    )
    with pytest.raises(RequestError, match=r"`image_size` 10x14 for a network that takes images of 12x16"):
        export_on_request(wrong)


def test_a_model_that_predicts_nan_is_refused_and_names_an_image(models: Path, tmp_path: Path) -> None:
    wanted = request(models, tmp_path / "bundle", keras_file=Path("nan.keras"), from_logits=False)
    with pytest.raises(
        GateRefused, match=r"NaN or infinity for 30 of 30 .* the first of which is bird/"
    ) as caught:
        export_on_request(wanted)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("class_names", "words"),
    [
        (("cat", "dog"), "2 labels for a network with 3 outputs"),
        (("a", "b", "a"), "duplicate label 'a'"),
    ],
)
def test_labels_must_match_the_outputs(class_names: tuple[str, ...], words: str) -> None:
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
        ({"labels": None}, "`keras_file` without `labels`"),
        ({"keras_file": None, "model": "digits@1"}, "`labels` without `keras_file`"),
        ({"images": Path("nowhere")}, "images nowhere is not a folder"),
        ({"images": None}, "no held-out images for the parity check of logits"),
        ({"keras_file": Path("nothing.keras")}, "nothing.keras does not exist"),
        ({"runtime_version": "1.4"}, "runtime version 1.4"),
        ({"max_abs_difference": 0.0}, "`max_abs_difference` 0"),
        ({"max_abs_difference": float("nan")}, "`max_abs_difference` nan"),
        ({"tie_margin": 1.0}, "`tie_margin` 1"),
        ({"keras_file": Path("multi.keras")}, "final activation is sigmoid"),
        ({"keras_file": Path("hidden.keras")}, "add up to 1; expected a network that outputs logits"),
        ({"keras_file": Path("bytes.keras")}, "`pixel_range` 0..1 for a network with uint8 input"),
    ],
)
def test_bad_requests_are_refused(
    models: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(PixelmillError, match=words) as caught:
        export_on_request(request(models, tmp_path / "bundle", **changes))
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_an_image_name_that_is_not_a_file_is_reported(models: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.png").symlink_to(next((models / "images").rglob("*.png")))
    os.mkfifo(images / "pipe.png")
    with pytest.raises(RequestError, match=r"image pipe\.png in .*images: .*pipe"):
        export_on_request(request(models, tmp_path / "bundle", images=images))
    assert not (tmp_path / "bundle").exists()
