"""The demonstration, from the command to its summary."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pixelmill.pipeline.predictions import read_predictions
from tests.conftest import Run


def test_the_demo_runs_on_digits_if_mnist_is_unavailable(run: Run, tmp_path: Path) -> None:
    settings = ("dataset.mirrors=[]", "dataset.package_index=false", "training.epochs=6")
    overrides = [word for setting in settings for word in ("--set", setting)]
    result = run("demo", *overrides, cwd=tmp_path)
    assert result.code == 0, result.errors
    assert result.errors.count("no source for train-images-idx3-ubyte") == 1
    assert "MNIST is unavailable" in result.errors
    assert "Continuing with digits" in result.errors
    assert "6 epochs in " in result.errors
    match = re.search(r"Test accuracy ([01]\.\d{4}), loss (0\.\d{4}), on 359 images", result.output)
    assert match
    assert float(match[1]) >= 0.97
    assert "Scored 359 of 359 files" in result.output
    # The subfolders are the true labels, so the agreement must equal the test accuracy.
    agreement = float(match[1])
    assert f"{agreement:.2%} agree" in result.output
    for line in ("report", "bundle", "prediction table"):
        place = re.search(rf"  {line}\s+(\S+)", result.output)
        assert place
        assert (tmp_path / place[1]).exists()
    images = sorted((tmp_path / "artifacts/demo").glob("*-images/*/*.png"))
    assert len(images) == 359
    assert {path.parent.name for path in images} == set("0123456789")
    # The suggested commands work.
    commands = [shlex.split(line) for line in result.output.partition("Next:")[2].strip().splitlines()]
    assert len(commands) == 3
    for command in commands[:2]:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert len(read_predictions(tmp_path / "scored")) == 359


@pytest.mark.slow
def test_the_demo_reaches_the_documented_accuracy_on_mnist(run: Run, tmp_path: Path) -> None:
    result = run("demo", "--json", cwd=tmp_path)
    assert result.code == 0, result.errors
    shown = result.json
    assert shown["model"]["name"] == "mnist"
    assert shown["model"]["metrics"]["test"]["accuracy"] >= 0.99
    assert shown["model"]["metrics"]["test"]["loss"] < 0.0344
    assert shown["model"]["parity"]["label_flips"] == 0
    assert shown["scoring"]["listed"] == shown["scoring"]["scored"] == 10_000
