"""Datasets from tables: the rows of CSV and Parquet files, and what is refused about them."""

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.config import TableSource
from pixelmill.pipeline.datasets.catalogue import ListedImage
from pixelmill.pipeline.datasets.table_files import find_tables, read_header, read_rows
from pixelmill.pipeline.datasets.tables import check_table, count_table_classes, list_table
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.images import ImageFailure
from tests.conftest import write_images
from tests.s3 import S3Server, s3_server

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder with six images, 00000.png to 00005.png, in `photos`."""
    write_images(tmp_path / "pets" / "photos", 6)
    return tmp_path / "pets"


def rows_of(count: int = 6, **columns: str) -> Rows:
    labels = ("cat", "dog")
    return [
        {"path": f"photos/{number:05}.png", "label": labels[number % 2], **columns} for number in range(count)
    ]


def write_csv(path: Path, rows: Rows, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def source(path: Path | str, **fields: object) -> TableSource:
    return TableSource.model_validate({"source": "table", "path": str(path), **fields})


def listed(table: TableSource) -> list[ListedImage]:
    listing = list_table(table, Path("unused"))
    images = list(listing.images)
    for image in images:
        content = listing.reader.read(image.place)
        assert isinstance(content, bytes)
        assert content.startswith(b"\x89PNG")
    return images


def refusal(table: TableSource) -> str:
    with pytest.raises(RequestError) as caught:
        check_table(table)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_csv_file_names_images_with_splits_groups_and_slices(pets: Path) -> None:
    rows = rows_of(split="", group="", camera="front")
    rows[0] |= {"split": "test", "group": "burst 7", "camera": "rear"}
    rows[1] |= {"split": "Val", "path": f"./{rows[1]['path']}"}
    table = source(write_csv(pets / "labels.csv", rows))
    images = listed(table)
    assert [image.name for image in images] == [f"photos/{number:05}.png" for number in range(6)]
    assert [image.class_name for image in images] == ["cat", "dog"] * 3
    assert [image.part for image in images] == ["test", "validation", None, None, None, None]
    assert [image.group for image in images] == ["burst 7", None, None, None, None, None]
    assert [dict(image.slices) for image in images] == [{"camera": "rear"}] + [{"camera": "front"}] * 5
    assert images[0].origin == f"{pets}/photos/00000.png"
    assert len({image.stamp for image in images}) == 6
    assert count_table_classes(table) == 2
    assert list_table(table, pets).class_names == ("cat", "dog")


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8")])
def test_what_spreadsheets_write_is_read(delimiter: str, encoding: str, pets: Path) -> None:
    rows = [{**row, "label": f"{row['label']}, 'ö'"} for row in rows_of()]
    images = listed(source(write_csv(pets / "labels.csv", rows, delimiter, encoding)))
    assert {image.class_name for image in images} == {"cat, 'ö'", "dog, 'ö'"}


def test_a_parquet_file_is_read_as_a_csv_file_is(pets: Path) -> None:
    rows = rows_of(split="", group="a")
    table = pa.Table.from_pylist(rows).append_column("age", pa.array(range(6)))
    table = table.set_column(1, "label", table["label"].dictionary_encode())
    table = table.append_column("boxes", pa.array([[1, 2]] * 6))
    pq.write_table(table, pets / "labels.parquet", row_group_size=4)
    images = listed(source(pets / "labels.parquet"))
    assert [(image.name, image.class_name, image.group) for image in images] == [
        (row["path"], row["label"], "a") for row in rows
    ]
    assert [dict(image.slices) for image in images] == [{"age": str(age)} for age in range(6)]


def test_labels_that_are_numbers_stay_as_they_are_written(pets: Path) -> None:
    rows = [
        {**row, "label": label} for row, label in zip(rows_of(), ["007", "7", "1e3", "NA"] * 2, strict=False)
    ]
    write_csv(pets / "labels.csv", rows)
    assert list_table(source(pets / "labels.csv"), pets).class_names == ("1e3", "007", "7", "NA")


def test_a_table_may_be_several_files_and_its_columns_and_root_named(pets: Path, tmp_path: Path) -> None:
    rows = [{"file": row["path"], "species": row["label"], "patient": "p1"} for row in rows_of()]
    tables = tmp_path / "tables"
    tables.mkdir()
    write_csv(tables / "a.csv", rows[:4])
    write_csv(tables / "b.csv", rows[4:])
    (tables / "notes.md").write_text("no table")
    fields = {"root": str(pets), "path_column": "file", "label_column": "species", "group_column": "patient"}
    for path in (tables, f"{tables}/*.csv"):
        images = listed(source(path, **fields))
        assert [image.name for image in images] == [row["file"] for row in rows]
        assert {image.group for image in images} == {"p1"}


def test_absolute_paths_are_taken_as_they_are(pets: Path, tmp_path: Path) -> None:
    rows = [{**row, "path": f"{pets}/{row['path']}"} for row in rows_of()]
    table = write_csv(tmp_path / "labels.csv", rows)
    assert [image.origin for image in listed(source(table))] == [row["path"] for row in rows]
    assert listed(source(table, root=str(pets)))[0].name == "photos/00000.png"


def test_a_table_at_an_address_names_files_there_and_here(
    pets: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    rows = rows_of()
    rows[0]["path"] = "s3://pictures/pets/photos/00000.png"
    rows[1]["path"] = str(pets / "photos/00001.png")
    write_csv(pets / "labels.csv", rows)
    with s3.bucket("pictures"):
        s3.upload(pets, "pictures", "pets")
        table = source("s3://pictures/pets/labels.csv")
        images = listed(table)
        assert [image.origin for image in images[:3]] == [
            "s3://pictures/pets/photos/00000.png",
            str(pets / "photos/00001.png"),
            "s3://pictures/pets/photos/00002.png",
        ]
        assert images[2].name == "photos/00002.png"
        assert all(image.stamp for image in images)
        # One request lists the folder of all the files.
        assert (
            sum(
                "photos" in path and method == "GET" and "list-type" in path
                for method, path, _ in s3.requests
            )
            <= 2
        )
        assert [str(file) for file in find_tables("s3://pictures/pets/*.csv")] == [table.path]
        with pytest.raises(RequestError, match=r"dataset\.path s3://pictures/none\.csv names no table"):
            check_table(source("s3://pictures/none.csv"))


def test_a_missing_file_is_an_unreadable_image(pets: Path) -> None:
    (pets / "photos/00003.png").unlink()
    listing = list_table(source(write_csv(pets / "labels.csv", rows_of())), pets)
    images = {image.name: image for image in listing.images}
    assert images["photos/00003.png"].stamp == ""
    with pytest.raises(ImageFailure, match="unreadable: No such file"):
        listing.reader.read(images["photos/00003.png"].place)


def test_if_no_file_exists_the_root_is_wrong(pets: Path, tmp_path: Path) -> None:
    message = refusal(source(write_csv(tmp_path / "labels.csv", rows_of())))
    assert f"do not exist (the first: {tmp_path}/photos/00000.png)" in message
    assert "Set dataset.root to the folder of the images." in message


def test_rows_that_contradict_each_other_are_named(pets: Path) -> None:
    rows = [*rows_of(), {"path": "photos/../photos/00001.png", "label": "cat"}]
    message = refusal(source(write_csv(pets / "labels.csv", rows)))
    assert (
        "photos/00001.png has the label 'dog' in labels.csv, line 3, and 'cat' in labels.csv, line 8"
        in message
    )
    rows = [{**row, "split": "train"} for row in rows_of()]
    message = refusal(source(write_csv(pets / "splits.csv", [*rows, {**rows[0], "split": "test"}])))
    assert "has the split 'train' in splits.csv, line 2, and 'test' in splits.csv, line 8" in message


def test_rows_that_repeat_each_other_are_counted(pets: Path) -> None:
    listing = list_table(source(write_csv(pets / "labels.csv", rows_of() + rows_of(2))), pets)
    assert len(list(listing.images)) == 6
    assert listing.warnings == [f"{pets}/labels.csv: 2 rows repeat an earlier row"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na.png,cat\n", "has no column 'path'; expected one of its columns: file, label."),
        ("paths,label\na.png,cat\n", "Did you mean paths? Set it with `dataset.path_column=COLUMN`."),
        ("path,labels\na.png,cat\n", "Did you mean labels? Set it with `dataset.label_column=COLUMN`."),
        ("", "has no column 'path'; expected one of its columns: none."),
        ("path,label,path\na,b,c\n", "has two columns 'path'"),
        ("path,label\na.png\n", "line 2 of table"),
        ("path,label\na.png,cat\n,dog\n", "labels.csv, line 3 has no path"),
        ("path,label\na.png,cat\nb.png, \n", "labels.csv, line 3 has no label"),
        ("path,label,split\na.png,cat,trial\n", "labels.csv, line 2 has the split 'trial'; expected train,"),
        ("path,label\na.png,cat\nb.png,cat\n", "has 1 classes (cat)"),
        ("path,label\n", "has 0 classes (none)"),
        ('path,label\na.png,"cat\n', "cannot be read (unexpected end of data)"),
        (b"path,label\na.png,caf\xe9\n", "cannot be read ('utf-8' codec can't decode byte 0xe9"),
        (b"path,label\n" + b"x" * 200_000 + b",cat\n", "cannot be read (field larger than field limit"),
    ],
)
def test_a_table_that_is_wrong_is_one_line(content: str | bytes, message: str, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in refusal(source(table))


def test_a_column_that_is_asked_for_is_needed(pets: Path) -> None:
    write_csv(pets / "labels.csv", rows_of(grup="a"))
    message = refusal(source(pets / "labels.csv", group_column="group_id"))
    assert "has no column 'group_id'" in message
    assert refusal(source(pets / "labels.csv", group_column="groop")).count("Did you mean grup?") == 1


def test_a_parquet_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 and more")
    assert "labels.parquet cannot be read (" in refusal(source(tmp_path / "labels.parquet"))
    assert "names no table" in refusal(source(tmp_path / "none.csv"))
    (tmp_path / "empty").mkdir()
    assert "names no table" in refusal(source(tmp_path / "empty"))


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8)


@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=8), delimiter=st.sampled_from(",;\t"))
def test_any_text_comes_back_as_it_was_written(
    rows: list[tuple[str, str]], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    write_csv(path, [{"path": name, "label": label} for name, label in rows], delimiter)
    assert read_header(path) == ["path", "label"]
    assert [row.values for row in read_rows(path)] == [{"path": name, "label": label} for name, label in rows]


@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_table_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("any.csv", "any.parquet"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        with contextlib.suppress(RequestError):
            for row in read_rows(path):
                assert all(isinstance(value, str) for value in row.values.values())
