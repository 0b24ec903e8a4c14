"""The table of versions that each onnxruntime supports, checked against the releases on npm."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.bundles.golden import read_golden
from pixelmill.pipeline.config import ExportSpec, ImageSpec
from pixelmill.pipeline.export.runtimes import choose_version
from pixelmill.pipeline.processes import run_in_spawned_process

NEWEST_OPSET = 18
RELEASES = ("1.10.0", "1.11.0", "1.12.1", "1.13.1", "1.14.0")
PROGRAMS = Path(__file__).parents[1] / "javascript"


def export_for_all(bundle: Path, image: ImageSpec, folder: Path) -> None:
    """Write a file for each release, and one in the next opset, which the release should refuse."""
    from pixelmill.pipeline.export.draft import write_onnx
    from pixelmill.pipeline.export.keras_loader import load_network

    network = load_network(bundle / "model.keras")
    for release in RELEASES:
        wanted = ExportSpec(opset=NEWEST_OPSET, runtime_version=release)
        (folder / f"{release}.onnx").write_bytes(write_onnx(network, image, wanted, {}))
        if (read := choose_version(wanted).opset) < NEWEST_OPSET:
            newer = ExportSpec.model_validate({"opset": read + 1})
            (folder / f"{release}-newer.onnx").write_bytes(write_onnx(network, image, newer, {}))


@pytest.fixture(scope="module")
def files(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    run_in_spawned_process(export_for_all, bundle.folder, bundle.image_spec(), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_loads_exactly_the_files_written_for_it(
    release: str, files: Path, bundle: ModelBundle, tmp_path: Path
) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm here; install Node.js with npm 18 or later")
    install = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--loglevel=error"]
    subprocess.run([*install, f"onnxruntime-node@{release}"], cwd=tmp_path, check=True)
    for program in ("predicting.mjs", "onnxruntime_node.mjs"):
        shutil.copyfile(PROGRAMS / program, tmp_path / program)
    golden = read_golden(bundle.folder)

    def predict(model: Path) -> tuple[subprocess.CompletedProcess[str], Any]:
        request = {
            "name": "digits",
            "model": str(model),
            "shape": golden.tensors.shape,
            "pixels": golden.tensors.ravel().tolist(),
        }
        (tmp_path / "requests.json").write_text(json.dumps([request]))
        command = ["node", "onnxruntime_node.mjs", "requests.json", "predictions.json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        predictions = tmp_path / "predictions.json"
        return done, json.loads(predictions.read_text())["predictions"][
            "digits"
        ] if predictions.is_file() else None

    newer = files / f"{release}-newer.onnx"
    if newer.is_file():
        done, predictions = predict(newer)
        assert predictions is None
        assert "opset" in done.stderr.lower() or "load model" in done.stderr.lower()
    done, predictions = predict(files / f"{release}.onnx")
    assert predictions is not None, done.stderr
    assert np.abs(np.array(predictions) - np.concatenate([golden.probabilities] * 2)).max() < 1e-5
