"""A small dataset: random crops of the textures bundled with scikit-image."""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

NAMES = ("brick", "grass", "gravel", "page", "coins", "camera")
_SIDE = 64


def write_textures(folder: Path, count: int = 40, names: tuple[str, ...] = NAMES) -> Path:
    """Write one subfolder per texture, with `count` crops of 64x64 pixels each."""
    rng = np.random.default_rng(0)
    for name in names:
        with Image.open(Path(skimage.__file__).parent / f"data/{name}.png") as file:
            texture = np.asarray(file.convert("RGB"))
        (folder / name).mkdir(parents=True)
        for index in range(count):
            top, left = (rng.integers(0, side - _SIDE + 1) for side in texture.shape[:2])
            crop = texture[top : top + _SIDE, left : left + _SIDE]
            Image.fromarray(crop).save(folder / name / f"{index:04}.png")
    return folder
