"""`import pixelmill`: the functions of the public API, and what the import itself loads.

`pixelmill.retrain` is tested in tests/flows/test_temporary_server.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pixelmill
from pixelmill.pipeline.images import FailureCode, ImageFailure
from pixelmill.pipeline.inference import InferenceSession, Probabilities
from pixelmill.pipeline.prediction import LoadedModel
from tests.conftest import write_images

HEAVY = ("prefect", "tensorflow", "keras", "onnxruntime", "onnx", "pandas", "pyarrow", "typer", "numpy")


@pytest.fixture(scope="module")
def model(trained_store: Path) -> LoadedModel:
    return pixelmill.load_model("digits@champion", trained_store)


def test_the_import_loads_nothing_heavy() -> None:
    program = f"import sys, pixelmill; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_documented() -> None:
    assert set(pixelmill.__all__) == {
        *("load_model", "read_predictions", "retrain", "score_folder"),
        *("GateRefused", "PixelmillError", "RequestError", "WorkError"),
    }
    assert all(getattr(pixelmill, name).__doc__ for name in pixelmill.__all__)
    page = (Path(__file__).parents[1] / "docs/python-api.md").read_text()
    assert all(f"{name}" in page for name in pixelmill.__all__)


def test_a_prediction_equals_the_row_of_a_scoring_run(
    model: LoadedModel, trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 40)
    table = pixelmill.score_folder(
        "digits@champion", tmp_path / "images", tmp_path / "out", trained_store, top_k=2, workers=1
    )
    assert (table.manifest["scored"], table.manifest["failed"]) == (40, 0)
    rows = pixelmill.read_predictions(tmp_path / "out")
    assert len(rows) == 40
    for row in rows.to_dict("records"):
        path = tmp_path / "images" / row["image_path"]
        prediction = model.predict(path)
        assert (prediction.label, prediction.class_index) == (row["label"], row["class_index"])
        assert prediction.probability == np.float32(row["probability"])
        likeliest = np.sort(prediction.probabilities)[::-1][:2]
        assert likeliest.tolist() == np.float32(row["top_probabilities"]).tolist()
        assert prediction.probabilities.shape == (10,)
        assert prediction.probabilities.dtype == np.float32
        assert model.predict(path.read_bytes()).probability == prediction.probability
    assert (model.name, model.version, model.class_names) == ("digits", 1, tuple("0123456789"))


def test_an_invalid_image_is_an_error_with_a_failure_code(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"notes")
    with pytest.raises(pixelmill.RequestError, match=r"notes\.png\) that cannot be decoded") as caught:
        model.predict(tmp_path / "notes.png")
    assert isinstance(caught.value.__cause__, ImageFailure)
    assert caught.value.__cause__.code is FailureCode.NOT_AN_IMAGE
    with pytest.raises(pixelmill.RequestError, match=r"\(0 bytes\) that cannot be decoded \(empty"):
        model.predict(b"")


def test_an_unreadable_file_is_an_error(model: LoadedModel, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(pixelmill.RequestError, match="No such file"):
        model.predict(tmp_path / "missing.png")
    for name in ("", "pipe.png"):
        with pytest.raises(pixelmill.RequestError, match="not a regular file"):
            model.predict(str(tmp_path / name))


@pytest.mark.parametrize("invalid", [np.nan, np.inf, -0.5, 0.5])
def test_an_invalid_prediction_is_an_error(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invalid: float
) -> None:
    def infer(self: InferenceSession, images: Probabilities) -> Probabilities:
        return np.full((len(images), 10), invalid, np.float32)

    monkeypatch.setattr(InferenceSession, "probabilities", infer)
    (image,) = write_images(tmp_path, 1)
    with pytest.raises(pixelmill.WorkError, match=r"invalid_prediction: .* predicted by digits@1") as caught:
        model.predict(image)
    assert isinstance(caught.value.__cause__, ImageFailure)


def test_an_invalid_request_is_an_error(trained_store: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    places = ("digits@champion", tmp_path / "images", tmp_path / "out", trained_store)
    with pytest.raises(pixelmill.RequestError, match="digits@1"):
        pixelmill.load_model("digits@7", trained_store)
    with pytest.raises(pixelmill.RequestError, match="topk"):
        pixelmill.score_folder(*places, topk=3)
    with pytest.raises(pixelmill.RequestError, match="precision fp8"):
        pixelmill.score_folder(*places, precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(pixelmill.RequestError, match="1 to 10 classes"):
        pixelmill.score_folder(*places, top_k=11)
    with pytest.raises(pixelmill.RequestError):
        pixelmill.read_predictions(tmp_path / "images")
    with pytest.raises(pixelmill.RequestError, match="epochs"):
        pixelmill.retrain("digits", ["training.epochs=-1"], tmp_path / "store")


def test_too_many_failed_rows_are_refused_after_writing_the_table(
    trained_store: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 1)
    (tmp_path / "images/notes.png").write_bytes(b"notes")
    places = ("digits@champion", tmp_path / "images", tmp_path / "out", trained_store)
    with pytest.raises(pixelmill.GateRefused, match="1 of 2 images failed"):
        pixelmill.score_folder(*places)
    assert list(pixelmill.read_predictions(tmp_path / "out")["status"]) == ["scored", "failed"]
    table = pixelmill.score_folder(
        *places[:2], tmp_path / "again", trained_store, max_failure_rate=0.5, previous=str(tmp_path / "out")
    )
    assert table.manifest["reused"] == 1
