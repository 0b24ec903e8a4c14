"""Writing a split as a folder of image files, for trying out a model."""

import shutil
from pathlib import Path

from pixelmill.pipeline.artifacts import MANIFEST, publishing, read_manifest
from pixelmill.pipeline.datasets import PreparedDataset, SplitName
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.progress import progress


def write_image_folder(dataset: PreparedDataset, split: SplitName, folder: Path) -> Path:
    """Write every image of a split as `CLASS/NUMBER.png`, with zero-padded numbers.

    A folder that already contains this split is left alone; one that contains another split is replaced.
    """
    facts = {"kind": "image-folder", "dataset": dataset.folder.name, "split": split}
    if (folder / MANIFEST).is_file():
        found = read_manifest(folder)
        if {key: found.get(key) for key in facts} == facts:
            return folder
        if found.get("kind") == "image-folder":
            shutil.rmtree(folder)
    images = dataset.split(split)
    digits = len(str(len(images.labels)))
    with publishing(folder, facts) as staging:
        for name in dataset.class_names:
            (staging / name).mkdir()
        with progress("write images", len(images.labels), "images") as advance:
            for index, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
                path = staging / dataset.class_names[label] / f"{index:0{digits}d}.png"
                path.write_bytes(encode_png(pixels))
                advance(1, "")
    return folder
