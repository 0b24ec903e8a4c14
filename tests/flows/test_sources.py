"""A retraining from each kind of source by the command: a table, an archive, Parquet files and S3."""

import csv
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from pixelmill.pipeline.image_encoding import encode_png
from tests.conftest import Run
from tests.s3 import s3_server

NAMES = ("zero", "one", "two")
EACH, TEST = 60, 12
SMALL = ("image.height=8", "image.width=8", "image.channels=1", "training.epochs=1")


class Digit(NamedTuple):
    """An image, and the split in which a source puts it."""

    name: str
    number: int
    content: bytes

    @property
    def split(self) -> str:
        return "test" if self.number < TEST else "train"


@pytest.fixture(scope="module")
def images() -> list[Digit]:
    digits = load_digits()
    levels = (digits.images * 15.9).astype(np.uint8)[..., np.newaxis]
    return [
        Digit(name, number, encode_png(levels[place]))
        for label, name in enumerate(NAMES)
        for number, place in enumerate(np.flatnonzero(digits.target == label)[:EACH])
    ]


Written = tuple[list[str], Mapping[str, str]]
"""Settings of the recipe, and environment variables."""


def as_table(images: list[Digit], folder: Path) -> Iterator[Written]:
    """With splits (the first training images have none), groups of four, and a further column."""
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split", "group", "camera"])
        for name, number, content in images:
            path = f"{name}-{number:03}.png"
            (folder / path).write_bytes(content)
            split = "test" if number < TEST else "" if number < 2 * TEST else "train"
            rows.writerow([path, name, split, f"{name}-{number // 4}", ("left", "right")[number % 2]])
    yield ["dataset.source=table", f"dataset.path={folder / 'labels.csv'}"], {}


def as_archive(images: list[Digit], folder: Path) -> Iterator[Written]:
    with zipfile.ZipFile(folder / "digits.zip", "w") as archive:
        for image in images:
            archive.writestr(f"digits/{image.split}/{image.name}/{image.number:03}.png", image.content)
    yield ["dataset.source=archive", f"dataset.path={folder / 'digits.zip'}"], {}


def as_parquet(images: list[Digit], folder: Path) -> Iterator[Written]:
    """In Hugging Face's layout, with its description of the columns."""
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    (folder / "data").mkdir()
    for split in ("train", "test"):
        some = [image for image in images if image.split == split]
        files = [{"bytes": image.content, "path": f"{image.number}.png"} for image in some]
        labels = [NAMES.index(image.name) for image in some]
        table = pa.table({"image": files, "label": labels})
        described = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
        pq.write_table(described, folder / f"data/{split}-00000-of-00001.parquet")
    yield ["dataset.source=parquet", f"dataset.path={folder}"], {}


def in_s3(images: list[Digit], folder: Path) -> Iterator[Written]:
    with s3_server() as server, server.bucket("photos"):
        for image in images:
            key = f"digits/{image.split}/{image.name}/{image.number:03}.png"
            server.client.put_object(Bucket="photos", Key=key, Body=image.content)
        yield ["dataset.path=s3://photos/digits"], server.environment


@pytest.mark.parametrize(
    "write",
    [as_table, *(pytest.param(write, marks=pytest.mark.slow) for write in (as_archive, as_parquet, in_s3))],
)
def test_every_kind_of_source_becomes_a_version_with_its_own_splits(
    write: Callable[[list[Digit], Path], Iterator[Written]], images: list[Digit], run: Run, tmp_path: Path
) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    data.mkdir()
    for settings, environment in write(images, data):
        options = [option for setting in (*settings, *SMALL, "name=tiny") for option in ("--set", setting)]
        answer = run("retrain", "folder", *options, "--store", store, "--json", env=dict(environment))
    # One epoch may not be enough to be promoted, which is not what is tested.
    assert answer.code in (0, 3), answer.errors
    bundle = store / "models/tiny/1"
    # The description of the columns says the order of the classes; else it is the natural one.
    order = NAMES if write is as_parquet else tuple(sorted(NAMES))
    assert tuple(json.loads((bundle / "labels.json").read_text())) == order
    check_record(bundle, has_groups=write is as_table)


def check_record(bundle: Path, *, has_groups: bool) -> None:
    """The record of the images of a version has the splits, classes and groups of the source."""
    rows = pq.read_table(bundle / "training_images.parquet").to_pylist()
    assert len(rows) == len(NAMES) * EACH
    assert {row["label"] for row in rows} == set(NAMES)
    splits = [row["split"] for row in rows]
    assert splits.count("test") == len(NAMES) * TEST
    assert splits.count("validation") > 0
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["group"], set()).add(row["split"])
    assert (None in sides) != has_groups
    assert not has_groups or all(len(found) == 1 for found in sides.values())
