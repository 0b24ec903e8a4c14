"""Images with planted faults, as an audit gets them: measured, and in a table."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import skimage
from PIL import Image

from pixelmill.pipeline.audit import AuditInput, Predictions
from pixelmill.pipeline.datasets.measures import Measures, measure
from pixelmill.pipeline.images import Pixels

SIDE = 32
CLASSES = ("brick", "grass", "gravel")
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("path", "sha256", "label", "split", "group", "error"), pa.string()),
    **dict.fromkeys(("width", "height", "component", "tensor"), pa.int64()),
    **{name: pa.uint64() if kind is int else pa.float32() for name, kind in Measures.__annotations__.items()},
}


@dataclass
class Planted:
    """Rows of an audit, added one by one."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    tensors: list[Pixels] = field(default_factory=list)
    classes: tuple[str, ...] = CLASSES

    def add(self, path: str, pixels: Pixels | None, **changes: Any) -> None:
        """Add an image whose class is the first part of its path; without pixels, an unreadable file."""
        row: dict[str, Any] = dict.fromkeys(_TYPES)
        row |= {"path": path, "label": path.partition("/")[0], "split": "train"}
        if pixels is None:
            row |= {"split": None, "error": "corrupt: the file ends early"}
        else:
            row |= measure(pixels)._asdict()
            row |= {"sha256": hashlib.sha256(pixels.tobytes()).hexdigest(), "width": SIDE, "height": SIDE}
            row |= {"tensor": len(self.tensors), "component": len(self.rows)}
            self.tensors.append(pixels)
        self.rows.append(row | changes)

    def given(self, predictions: Predictions | None = None) -> AuditInput:
        """What is audited."""
        columns = {name: [row[name] for row in self.rows] for name in _TYPES}
        table = pa.table({name: pa.array(values, _TYPES[name]) for name, values in columns.items()})
        return AuditInput("textures", table, np.stack(self.tensors), self.classes, predictions)


def crops(name: str, count: int) -> list[Pixels]:
    """Different crops of a texture bundled with scikit-image: uint8 [32, 32, 3]."""
    rng = np.random.default_rng(len(name))
    with Image.open(Path(skimage.__file__).parent / f"data/{name}.png") as file:
        texture = np.asarray(file.convert("RGB"))
    places = [rng.integers(0, side - SIDE, count) for side in texture.shape[:2]]
    return [texture[top : top + SIDE, left : left + SIDE].copy() for top, left in zip(*places, strict=True)]


def sound(count: int = 40) -> Planted:
    """Three classes of textures with nothing wrong."""
    planted = Planted()
    for name in CLASSES:
        for index, pixels in enumerate(crops(name, count)):
            split = ("test", "validation")[index] if index < 2 else "train"
            planted.add(f"{name}/{index:04}.png", pixels, split=split)
    return planted


def every_fault() -> AuditInput:
    """Textures with at least one fault of every kind."""
    planted, extra = sound(), crops("brick", 60)[40:]
    blurred = [np.asarray(cv2.GaussianBlur(pixels, (0, 0), 4), np.uint8) for pixels in extra[:3]]
    for index, pixels in enumerate(blurred):
        planted.add(f"brick/blurred {index}.png", pixels)
    for index in range(4):
        planted.add(f"brick/copy of {index}.png", planted.tensors[index + 8])
        planted.add(
            f"brick/next frame {index}.png", planted.tensors[index + 20] // 2 + 60, component=index + 20
        )
        planted.add(f"brick/dark {index}.png", extra[index] // 8)
        planted.add(f"brick/bright {index}.png", 255 - extra[index + 4] // 8)
        planted.add(f"brick/empty {index}.png", np.full((SIDE, SIDE, 3), 40 * index + 60, np.uint8))
        planted.add(f"brick/large {index}.png", extra[index + 8], width=640, height=480)
        planted.add(f"brick/banner {index}.png", extra[index + 12], width=70, height=20)
        planted.add(f"test/brick/{index}.png", planted.tensors[index + 30], split="test", label="brick")
        planted.add(f"grass/broken {index}.jpg", None)
    planted.rows[4]["split"] = None
    planted.add("grass/also a brick.png", planted.tensors[4], split=None)
    planted.classes = (*CLASSES, "coin")
    for index, pixels in enumerate(crops("coins", 3)):
        planted.add(f"coin/{index}.png", pixels)
    rows = [row for row in planted.rows if row["split"] in ("test", "validation")]
    truth = np.array([CLASSES.index(row["label"]) for row in rows])
    labels = truth.copy()
    labels[:2] = 1
    for row in rows[:2]:
        row["label"] = "grass"
    probabilities = np.full((len(rows), 4), 0.02, np.float32)
    probabilities[np.arange(len(rows)), truth] = 0.94
    return planted.given(Predictions(tuple(row["sha256"] for row in rows), labels, probabilities))
