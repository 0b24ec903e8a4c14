"""`pixelmill explain` as users and scripts run it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import CommandResult, Run, write_images

Explain = Run


@pytest.fixture
def scored(bundle: ModelBundle, tmp_path: Path) -> Path:
    """A folder with `images` and their table in `out`."""
    write_images(tmp_path / "images", 12)
    (tmp_path / "images/text.png").write_text("no image")
    (tmp_path / "images" / os.fsdecode(b"\xff.png")).write_bytes((tmp_path / "images/00001.png").read_bytes())
    score_folder(ScoringRequest(bundle, tmp_path / "images", tmp_path / "out", workers=1))
    return tmp_path


@pytest.fixture
def explain(run: Run, scored: Path, trained_store: Path) -> Explain:
    def call(*arguments: object) -> CommandResult:
        return run("explain", "out", *arguments, "--store", trained_store, cwd=scored)

    return call


def test_an_unchanged_image_with_keras(explain: Explain) -> None:
    result = explain("images/00003.png")
    assert result.code == 0, result.errors
    assert result.errors == ""
    lines = result.output.splitlines()
    assert lines[0] == "00003.png in out"
    assert lines[-1] == "Every stage matches the row."
    assert max(map(len, lines)) <= 100
    stages = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert stages == ["model", "listing", "bytes", "format", "orientation", "tensor", "onnx", "keras"]


def test_a_difference_is_reported_with_exit_code_3(explain: Explain, scored: Path) -> None:
    (scored / "images/00003.png").write_bytes((scored / "images/00004.png").read_bytes())
    result = explain("00003.png", "--no-keras")
    assert result.code == 3
    assert "the row has image_sha256" in result.output
    assert result.output.splitlines()[-1].startswith("The first difference is in `bytes`: image_sha256 ")
    shown = explain("00003.png", "--no-keras", "--json")
    assert shown.code == 3
    assert (shown.json["image_path"], shown.json["first_difference"]) == ("00003.png", "bytes")
    stages = {stage["name"]: stage for stage in shown.json["stages"]}
    assert stages["bytes"]["verdict"] == stages["onnx"]["verdict"] == "differs"
    assert stages["bytes"]["found"]["image_sha256"] != stages["bytes"]["row"]["image_sha256"]
    assert stages["onnx"]["found"]["tolerance"] == 1e-6


def test_a_failed_row_that_fails_again_is_not_a_difference(explain: Explain, scored: Path) -> None:
    result = explain("text.png")
    assert result.code == 0, result.errors
    assert result.output.splitlines()[-1] == (
        "Every stage matches the row, and fails in `format` with not_an_image."
    )
    saved = explain("text.png", "--save-tensor", "seen.png", "--json")
    assert saved.code == 0
    assert saved.json["first_difference"] is None
    assert not (scored / "seen.png").exists()


def test_the_input_of_the_network_is_saved(explain: Explain, scored: Path, bundle: ModelBundle) -> None:
    result = explain("00003.png", "--no-keras", "--save-tensor", "seen.png")
    assert result.code == 0, result.errors
    assert result.output.splitlines()[-1] == "Tensor: seen.png"
    content = (scored / "seen.png").read_bytes()
    assert Image.open(io.BytesIO(content)).size == (8, 8)
    seen, source = (
        decode(data, bundle.image_spec()).pixels
        for data in (content, (scored / "images/00003.png").read_bytes())
    )
    assert (seen == source).all()
    again = explain("00003.png", "--no-keras", "--save-tensor", "images/00003.png")
    assert again.code == 2
    assert "images/00003.png exists" in again.errors


def test_a_name_that_is_not_valid_text(explain: Explain) -> None:
    for image in (os.fsdecode(b"images/\xff.png"), "%FF.png"):
        result = explain(image, "--no-keras")
        assert result.code == 0, result.errors
        assert result.output.startswith("%FF.png in out\n")
    missing = explain(os.fsdecode(b"images/\xfe.png"), "--no-keras")
    assert missing.code == 2
    assert "%FF.png" in missing.errors


def test_an_invalid_request_is_one_line(
    explain: Explain, run: Run, scored: Path, trained_store: Path
) -> None:
    missing = explain("00013.png")
    nowhere = run("explain", "nothing", "00003.png", "--store", trained_store, cwd=scored)
    elsewhere = run("explain", "out", "00003.png", cwd=scored)
    for result, words in (
        (missing, "The nearest are 0001"),
        (nowhere, "nothing has no manifest.json"),
        (elsewhere, "--store"),
    ):
        assert result.code == 2
        assert result.output == ""
        assert len(result.errors.splitlines()) == 1
        assert result.errors.startswith("pixelmill: ")
        assert words in result.errors


def test_tensorflow_is_imported_only_to_predict_with_keras(scored: Path, trained_store: Path) -> None:
    program = (
        "import sys\nfrom pixelmill.flows.command_line import app\n"
        "try: app()\n"
        "finally: print([name for name in ('tensorflow', 'keras', 'prefect') if name in sys.modules])"
    )
    arguments = ["explain", "out", "00003.png", "--store", str(trained_store), "--no-keras"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=scored, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
