"""What a machine needs: scoring runs from the base installation, which has no TensorFlow and no Prefect."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pixelmill.pipeline.predictions import read_predictions
from tests.conftest import write_images

ROOT = Path(__file__).resolve().parent.parent
# Two builds at once in one source folder remove each other's files.
pytestmark = pytest.mark.xdist_group("installation")
LEFT_OUT = ("prefect", "tensorflow", "keras", "onnx", "tf2onnx", "sklearn", "matplotlib", "dask")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pixelmill and nothing but its base dependencies."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install: list[str | Path] = [
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    constraints: list[str | Path] = ["--constraint", ROOT / "constraints.txt"]
    done = subprocess.run([*install, *constraints, ROOT], capture_output=True, text=True, check=False)
    if done.returncode and re.search("connection|resolve|No matching distribution", done.stderr):
        pytest.skip(f"the package index cannot be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_scoring_runs_without_tensorflow_and_prefect(base: Path, trained_store: Path, tmp_path: Path) -> None:
    look = f"from importlib.util import find_spec; print([n for n in {LEFT_OUT} if find_spec(n)])"
    # Isolated, because this folder's own packages would be found from its root.
    found = subprocess.run([base / "python", "-I", "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    write_images(tmp_path / "images", 20)
    command: list[str | Path] = [
        base / "pixelmill",
        "score",
        "digits@champion",
        "images",
        "--output",
        "out",
        "--json",
    ]
    environment = {**os.environ, "PIXELMILL_STORE": str(trained_store)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scored"] == 20
    assert len(read_predictions(tmp_path / "out")) == 20
    shown = subprocess.run(
        [base / "pixelmill", "models"], env=environment, capture_output=True, text=True, check=True
    )
    assert "digits@1" in shown.stdout


def test_verifying_asks_what_is_there_and_says_how_to_get_the_rest(base: Path, trained_store: Path) -> None:
    command: list[str | Path] = [base / "pixelmill", "verify", "digits@1", "--store", trained_store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime " in done.stdout
    assert done.stdout.strip().endswith("not installed: onnx ReferenceEvaluator, OpenVINO, OpenCV, tract")
    done = subprocess.run([*command, "--engine", "tract"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "--engine tract, which is not installed" in line
    assert line.endswith("pip install tract.")


def test_retraining_says_which_extras_it_needs(base: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [base / "pixelmill", "retrain", "digits"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "pip install 'pixelmill[flows,train]'" in line


def test_constraints_are_exact_and_name_no_index() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_]+", pin) for pin in pins)
    assert len(pins) > 100
