"""Hard photographs with known classes: pictures of CIFAR-10, enlarged and pasted onto other scenes.

A picture of 32x32 pixels covers at least three quarters of a photograph's shorter side, anywhere in it, on a
part of one of the scenes that scikit-image bundles; photographs are of four aspect ratios. The class can only
be told from the pasted picture, and a centre crop cuts into many of them.
"""

import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SCENES = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket", "retina", "ihc")
SHAPES = ((240, 180), (320, 180), (180, 240), (200, 200))
"""Width and height in pixels."""
TEST_IMAGES = 100
_OBJECT = (0.75, 1.0)
_MEMBER = re.compile(r"(?:.*/)?train/(\w+)/[\w-]+\.(?:jpg|png)")


def write_hard_pictures(cifar: Path, folder: Path, sizes: Mapping[int, int] | int, seed: int = 0) -> None:
    """Write `train/CLASS/*.jpg` and `test/CLASS/*.jpg`.

    Args:
        cifar: A `.tar.gz` of CIFAR-10 as image files, `train/CLASS/NAME.jpg`.
        folder: Where the pictures are written.
        sizes: The number of training pictures of every class, or of each by its place in the alphabet.
        seed: Of places, sizes and scenes.
    """
    rng = np.random.default_rng(seed)
    scenes = [_scene(name) for name in SCENES]
    for place, (name, pictures) in enumerate(sorted(_read_cifar(cifar).items())):
        wanted = sizes if isinstance(sizes, int) else sizes[place]
        # The test pictures come first, so that they are the same whatever the sizes of the classes.
        for number, picture in enumerate(pictures[: TEST_IMAGES + wanted]):
            target = folder / ("test" if number < TEST_IMAGES else "train") / name / f"{number:04d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            compose(picture, scenes[rng.integers(len(scenes))], rng).save(target, quality=90)


def imbalanced_sizes(largest: int, classes: int = 10, ratio: int = 10) -> dict[int, int]:
    """Sizes that fall from `largest` to a tenth of it, each by the same factor: Cui et al., 2019."""
    factor = ratio ** (-1 / (classes - 1))
    return {place: round(largest * factor**place) for place in range(classes)}


def compose(picture: Image.Image, scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Paste an enlarged picture onto a random part of a scene."""
    width, height = SHAPES[rng.integers(len(SHAPES))]
    canvas = _random_part(scene, width, height, rng)
    side = round(min(width, height) * rng.uniform(*_OBJECT))
    place = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    canvas.paste(picture.resize((side, side), Image.Resampling.BICUBIC), place)
    return canvas


def _random_part(scene: Image.Image, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    scale = max(width / scene.width, height / scene.height) * rng.uniform(1, 2)
    size = max(width, round(scene.width * scale)), max(height, round(scene.height * scale))
    left, top = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
    part = scene.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def _scene(name: str) -> Image.Image:
    import skimage

    (path,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
    with Image.open(path) as file:
        return file.convert("RGB")


def _read_cifar(archive: Path) -> dict[str, list[Image.Image]]:
    found: dict[str, list[tuple[str, Image.Image]]] = defaultdict(list)
    with tarfile.open(archive) as stream:
        for member in stream:
            if (match := _MEMBER.fullmatch(member.name)) and (content := stream.extractfile(member)):
                picture = Image.open(io.BytesIO(content.read())).convert("RGB")
                found[match[1]].append((member.name, picture))
    return {
        name: [picture for _, picture in sorted(entries, key=lambda each: each[0])]
        for name, entries in found.items()
    }
