"""Parquet files with images, as Hugging Face's datasets has them."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.config import ParquetSource
from pixelmill.pipeline.datasets.parquet_datasets import check_parquet, count_parquet_classes, list_parquet
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.images import ImageFailure
from tests.conftest import write_images
from tests.s3 import S3Server, s3_server

NAMES = ("dog", "cat")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def images(tmp_path: Path) -> list[bytes]:
    return [path.read_bytes() for path in write_images(tmp_path / "images", 8)]


def write_parquet(
    path: Path, images: list[bytes | None], labels: list[Any], names: tuple[str, ...] | None = NAMES
) -> Path:
    """A file as `datasets.Dataset.to_parquet` writes it, with two rows in a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": content, "path": None} for content in images],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": pa.array(labels),
        }
    )
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=2)
    return path


def source(path: Path | str, **fields: object) -> ParquetSource:
    return ParquetSource.model_validate({"source": "parquet", "path": str(path), **fields})


def refusal(parquet: ParquetSource) -> str:
    with pytest.raises(RequestError) as caught:
        check_parquet(parquet)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_splits_classes_and_bytes_are_read(tmp_path: Path, images: list[bytes]) -> None:
    pets = tmp_path / "pets"
    write_parquet(pets / "data/train-00000-of-00002.parquet", [*images[:3]], [0, 1, 1])
    write_parquet(pets / "data/train-00001-of-00002.parquet", [*images[3:5]], [0, 0])
    write_parquet(pets / "data/validation-00000-of-00001.parquet", [images[5]], [1])
    write_parquet(pets / "data/test-00000-of-00001.parquet", [*images[6:]], [1, 0])
    listing = list_parquet(source(pets), tmp_path)
    assert listing.class_names == NAMES
    assert count_parquet_classes(source(pets)) == 2
    found = sorted(listing.images, key=lambda image: (str(image.part), image.name))
    reader = pickle.loads(pickle.dumps(listing.reader))
    assert [(image.part, image.class_name, reader.read(image.place)) for image in found] == [
        ("test", "cat", images[6]),
        ("test", "dog", images[7]),
        *(("train", NAMES[label], images[i]) for i, label in enumerate((0, 1, 1, 0, 0))),
        ("validation", "cat", images[5]),
    ]
    assert found[4].name == "data/train-00000-of-00002.parquet/2"
    assert found[4].origin == f"{pets}/data/train-00000-of-00002.parquet!2"
    assert len({image.origin for image in found}) == 8


def test_one_file_with_labels_as_text_is_enough(tmp_path: Path, images: list[bytes]) -> None:
    file = write_parquet(tmp_path / "pets.parquet", [*images[:2]], ["fox", "eel"], None)
    listing = list_parquet(source(file), tmp_path)
    assert listing.class_names == ("eel", "fox")
    assert [(image.name, image.part) for image in listing.images] == [
        ("pets.parquet/0", None),
        ("pets.parquet/1", None),
    ]


def test_splits_may_be_folders_and_columns_have_other_names(tmp_path: Path, images: list[bytes]) -> None:
    for split in ("train", "test"):
        table = pq.read_table(write_parquet(tmp_path / "x.parquet", [*images[:2]], [0, 1]))
        (tmp_path / "pets" / split).mkdir(parents=True)
        columns = {"img": table["image"].combine_chunks().field("bytes"), "fine_label": ["b", "a"]}
        pq.write_table(pa.table(columns), tmp_path / "pets" / split / "0000.parquet")
    listing = list_parquet(source(tmp_path / "pets", image_column="img", label_column="fine_label"), tmp_path)
    found = list(listing.images)
    assert [(image.part, image.class_name) for image in found] == [
        ("test", "b"),
        ("test", "a"),
        ("train", "b"),
        ("train", "a"),
    ]
    assert listing.reader.read(found[1].place) == images[1]


def test_files_at_an_address_are_read_in_place(
    tmp_path: Path, images: list[bytes], s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "pets/data/train-0.parquet", [*images[:4]], [0, 1, 0, 1])
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with s3.bucket("sets"):
        s3.upload(tmp_path / "pets", "sets", "pets")
        listing = list_parquet(source("s3://sets/pets"), tmp_path)
        found = list(listing.images)
        assert [listing.reader.read(image.place) for image in found] == images[:4]
        assert found[3].origin == "s3://sets/pets/data/train-0.parquet!3"
        assert all(image.stamp for image in found)


def test_what_is_wrong_with_the_files_is_one_line(tmp_path: Path, images: list[bytes]) -> None:
    file = write_parquet(tmp_path / "pets/train.parquet", [*images[:2]], [0, 1])
    assert "has no column 'images'" in refusal(source(file, image_column="images"))
    assert "Did you mean label? Set it with `dataset.label_column=" in refusal(
        source(file, label_column="labels")
    )
    assert "has no Parquet files" in refusal(source(tmp_path / "images"))
    assert "has no Parquet files" in refusal(source(tmp_path / "none"))
    write_parquet(tmp_path / "pets/test.parquet", [images[2]], [0], ("a", "b"))
    assert "names other classes than the files before it" in refusal(source(tmp_path / "pets"))
    (tmp_path / "pets/test.parquet").write_bytes(file.read_bytes()[:-9])
    assert "test.parquet cannot be read (" in refusal(source(tmp_path / "pets"))
    one = write_parquet(tmp_path / "one.parquet", [images[0]], ["a"], None)
    assert "one.parquet has 1 classes; expected at least two" in refusal(source(one))


def test_a_label_without_a_class_is_named_with_its_row(tmp_path: Path, images: list[bytes]) -> None:
    file = write_parquet(tmp_path / "test.parquet", [*images[:3]], [0, 1, -1])
    with pytest.raises(
        RequestError, match=r"test.parquet, row 2 has the label -1; expected a number from 0 to 1"
    ):
        list(list_parquet(source(file), tmp_path).images)


def test_a_row_without_an_image_fails_alone(tmp_path: Path, images: list[bytes]) -> None:
    file = write_parquet(tmp_path / "pets.parquet", [images[0], None, images[2]], [0, 1, 1])
    listing = list_parquet(source(file), tmp_path)
    first, second, third = listing.images
    assert listing.reader.read(first.place) == images[0]
    with pytest.raises(ImageFailure, match="empty: the row has no bytes"):
        listing.reader.read(second.place)
    assert listing.reader.read(third.place) == images[2]
    file.unlink()
    with pytest.raises(ImageFailure, match="unreadable: "):
        list_parquet(
            source(write_parquet(tmp_path / "b.parquet", [*images[:2]], [0, 1])), tmp_path
        ).reader.read(f"{file}!1!5")
