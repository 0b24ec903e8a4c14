"""Prepared datasets of given arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pixelmill.pipeline.artifacts import publishing
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.datasets import ROWS_FILE, PreparedDataset
from pixelmill.pipeline.datasets.contents import as_contents, as_hexadecimal, hash_content
from pixelmill.pipeline.datasets.tensor_writer import add_tensors
from pixelmill.pipeline.datasets.tensors import TensorStore
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.images import Pixels


class PngReader:
    """Reads images by their place in a list of PNG files."""

    def __init__(self, contents: Sequence[bytes]) -> None:
        self.contents = contents

    def read(self, place: str) -> bytes:
        return self.contents[int(place)]


def prepare_test_images(
    store: Path, pixels: Pixels, labels: Sequence[int], names: Sequence[str], class_names: tuple[str, ...]
) -> PreparedDataset:
    """A dataset whose test split is these images, uint8 [images, height, width, channels]."""
    files = [encode_png(image) for image in pixels]
    contents = as_contents([hash_content(file).hexdigest() for file in files])
    spec = ImageSpec.model_validate(dict(zip(("height", "width", "channels"), pixels.shape[1:], strict=True)))
    tensors, reader = TensorStore(store, spec), PngReader(files)
    distinct, first = np.unique(contents, return_index=True)
    add_tensors(tensors, distinct, lambda chosen: [str(first[at]) for at in chosen], reader, lambda *_: None)
    located = tensors.locate(contents)
    table = pa.table(
        {
            "split": ["test"] * len(labels),
            "label": pa.array(labels, pa.int32()),
            "sha256": as_hexadecimal(contents),
            "name": list(names),
            "origin": list(names),
            "segment": located.segments,
            "row": located.rows,
        }
    )
    folder = store / "datasets" / "made-up"
    facts = {"tensor_spec": spec.model_dump(), "tensors": tensors.folder.name}
    with publishing(folder, facts) as staging:
        pq.write_table(table, staging / ROWS_FILE)
    counts = {"train": 1, "validation": 1, "test": len(labels)}
    return PreparedDataset(folder, "folder", "f" * 64, class_names, counts)
