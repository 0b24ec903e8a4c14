"""Writing a split out as image files, for trying a model on a folder."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts import MANIFEST, publishing
from pipeline.datasets import Images
from pipeline.images import encode_png
from pipeline.progress import progress


def write_image_folder(images: Images, class_names: Sequence[str], folder: Path) -> Path:
    """Write every image as `CLASS/NUMBER.png`, numbers padded so that names sort; once.

    Args:
        images: The split.
        class_names: The subfolders' names.
        folder: The folder to make; left alone if it is finished already.
    """
    if (folder / MANIFEST).is_file():
        return folder
    digits = len(str(len(images.labels)))
    with publishing(folder, {"kind": "image-folder"}) as staging:
        for name in class_names:
            (staging / name).mkdir()
        with progress("write images", len(images.labels), "images") as advance:
            for index, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
                path = staging / class_names[label] / f"{index:0{digits}d}.png"
                path.write_bytes(encode_png(pixels))
                advance(1, "")
    return folder
