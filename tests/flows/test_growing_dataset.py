"""A dataset grows by near-identical frames: the version trained on them is worse, and is not promoted."""

import colorsys
import json
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import GATE_REPORT_FILE, METRICS_FILE
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.registry import aliases_of
from tests.conftest import Run
from tests.flows.conftest import PrefectServer

pytestmark = pytest.mark.xdist_group("prefect-server")
CLASSES, PICTURES, FRAMES = 10, 300, 150
# A network that sees only the mean colour, so that frames of one object move its boundaries.
RECIPE = {
    "name": "hues",
    "image": {"height": 16, "width": 16, "channels": 3},
    "model": {
        "layers": [
            {"layer": "batch_normalization"},
            {"layer": "global_average_pooling"},
            {"layer": "dense", "units": "classes"},
            {"layer": "softmax"},
        ]
    },
    "training": {"epochs": 25, "batch_size": 64, "learning_rate": {"peak": 0.2}},
}


def picture(hue: float, rng: np.random.Generator) -> np.ndarray:
    """An object of one hue with a texture of its own, uint8 [16, 16, 3]."""
    color = np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.6, 1), rng.uniform(0.5, 0.9)))
    texture = np.kron(rng.uniform(0.7, 1.1, (4, 4)), np.ones((4, 4)))
    pixels: np.ndarray = np.clip(255 * color * texture[:, :, None], 0, 255).astype(np.uint8)
    return pixels


def write(folder: Path, label: int, name: str, pixels: np.ndarray) -> None:
    path = folder / f"hue {label}" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_champion_is_kept_and_the_report_says_why(
    server: PrefectServer, run: Run, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images, store = tmp_path / "images", tmp_path / "store"
    recipe = {**RECIPE, "dataset": {"source": "folder", "path": str(images)}}
    (tmp_path / "hues.yaml").write_text(json.dumps(recipe))
    for label in range(CLASSES):
        for number in range(PICTURES):
            write(images, label, f"{number:03d}", picture(label / CLASSES + rng.normal(0, 0.03), rng))
    command = ("retrain", tmp_path / "hues.yaml", "--store", store, "--json")
    first = run(*command, env=server.environment)
    assert first.code == 0, first.errors
    # One object of each class, half way to the next one, in front of a camera that does not move.
    for label in range(CLASSES):
        still = picture((label + 0.5) / CLASSES, rng).astype(np.int16)
        for number in range(FRAMES):
            noise = rng.integers(-1, 2, still.shape)
            write(images, label, f"frame {number:03d}", np.clip(still + noise, 0, 255).astype(np.uint8))
    second = run(*command, env=server.environment)
    assert second.code == 3, second.errors
    assert aliases_of(store, "hues") == {"champion": 1}
    accuracy = next(row for row in second.json["gate"] if row["bar"] == "accuracy" and row["champion"])
    print(f"accuracy {accuracy['champion']:.4f} and {accuracy['value']:.4f} on {accuracy['images']} images")
    print(f"the drop is {accuracy['interval'][0]:.4f} to {accuracy['interval'][1]:.4f}")
    assert accuracy["verdict"] == "refused"
    assert second.json["compared_on"]["left_out_as_trained_on"] == 0
    assert second.json["compared_on"]["images"] >= CLASSES * PICTURES // 10
    bundle = store / "models/hues/2"
    assert read_json(bundle / METRICS_FILE)["champion"] == "hues@1"
    page = (bundle / GATE_REPORT_FILE).read_text()
    assert "hues@2 is refused by the gate" in page
    assert "hues@2 has an accuracy of" in page
    assert "pixelmill models promote hues@2" in page
