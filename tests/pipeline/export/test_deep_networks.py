"""The parity rule on networks as deep as pretrained ones: rounding passes, a different network does not."""

import json
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.export.parity import Comparison, Parity, choose_tolerance, require_parity
from pixelmill.pipeline.export.requests import ExportRequest, export_on_request
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.processes import run_in_spawned_process
from tests.pipeline.export.networks import CLASSES, Measured, measure, save_application

# MobileNetV2 and EfficientNetB0 pad after the image in separate layers, ResNet50 on both sides.
KINDS = {"another epsilon", "no rescaling", "swapped axes", "swapped colours"}
PADDED_AFTER = {"MobileNetV2", "EfficientNetB0"}


def compare(measured: Measured, predictions: Probabilities) -> Parity:
    comparison = Comparison(measured.keras, choose_tolerance(measured.noise, ExportSpec()))
    comparison.add(slice(0, len(predictions)), predictions)
    names = [str(number) for number in range(CLASSES)]
    return comparison.conclude([f"{row}.png" for row in range(len(predictions))], names, (1, 64))


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        pytest.param("EfficientNetB0", marks=pytest.mark.slow),
        pytest.param("ResNet50", marks=pytest.mark.slow),
    ],
)
def test_rounding_passes_but_a_different_network_does_not(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    files = [tmp_path / f"{index}.png" for index in range(24)]
    for file in files:
        # A few random pixels, enlarged, so that the images are smooth like photographs.
        side = int(random.integers(2, 24))
        file.write_bytes(encode_png(random.integers(0, 256, (side, side, 3), np.uint8)))
    measured = run_in_spawned_process(measure, name, files, tmp_path)
    parity = compare(measured, measured.onnx)
    require_parity(parity)
    assert parity.label_flips == 0
    assert 0 < parity.noise < 1e-4
    assert parity.allowed_difference < 1e-3
    assert set(measured.mutants) == KINDS | ({"other padding"} if name in PADDED_AFTER else set())
    for kind, predictions in measured.mutants.items():
        mutated = compare(measured, predictions)
        assert mutated.max_abs_difference > 10 * parity.allowed_difference, kind
        with pytest.raises(GateRefused, match=r"export\.(max_abs_difference|tie_margin)"):
            require_parity(mutated)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ConvNeXtTiny", "EfficientNetB0"])
def test_a_network_of_keras_applications_becomes_a_bundle(name: str, tmp_path: Path) -> None:
    # Exact GELU, layer normalization and grouped convolutions; built-in normalization of pixels.
    images = tmp_path / "images"
    random = np.random.default_rng(0)
    images.mkdir()
    for index in range(8):
        pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
        (images / f"{index}.png").write_bytes(encode_png(pixels))
    run_in_spawned_process(save_application, name, tmp_path / "model.keras")
    (tmp_path / "labels.json").write_text(json.dumps([str(number) for number in range(CLASSES)]))
    export_on_request(
        ExportRequest(
            output=tmp_path / "bundle",
            store=tmp_path / "store",
            keras_file=tmp_path / "model.keras",
            labels=tmp_path / "labels.json",
            images=images,
        )
    )
    parity = read_json(tmp_path / "bundle/parity.json")
    assert (parity["images"], parity["label_flips"]) == (8, 0)
    assert parity["engines"]
    assert all(engine["label_flips"] == 0 for engine in parity["engines"])
