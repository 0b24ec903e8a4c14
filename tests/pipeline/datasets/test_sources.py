"""Every way in which a dataset may come leads to a catalogue, with corrections laid over it."""

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.artifacts import read_manifest
from pixelmill.pipeline.config import ArchiveSource, DatasetSource, FolderSource, ParquetSource, TableSource
from pixelmill.pipeline.config.sources import OwnImages
from pixelmill.pipeline.datasets import RawDataset
from pixelmill.pipeline.datasets.download import _SOURCES, check_source, count_classes, download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.recipes import load_recipe
from tests.conftest import write_images
from tests.pipeline.datasets.test_parquet_datasets import write_parquet


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "pets" / name, 5, seed)
    return tmp_path / "pets"


def contents(raw: RawDataset) -> Counter[tuple[str, str]]:
    """The SHA-256 and class of each image."""
    rows = pq.read_table(raw.catalogue.path, columns=["sha256", "class_name"]).to_pylist()
    return Counter((row["sha256"], row["class_name"]) for row in rows)


def test_every_kind_of_dataset_can_be_listed() -> None:
    assert set(_SOURCES) == set(get_args(get_args(DatasetSource)[0]))


def test_the_same_images_come_in_every_way(pets: Path, tmp_path: Path) -> None:
    images = sorted(pets.rglob("*.png"))
    labels = [image.parent.name for image in images]
    rows = [f"{image.relative_to(pets)},{label}" for image, label in zip(images, labels, strict=True)]
    (pets / "labels.csv").write_text("\n".join(["path,label", *rows]))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for image in images:
            archive.write(image, image.relative_to(tmp_path))
    write_parquet(
        tmp_path / "hub/data/train-0.parquet",
        [image.read_bytes() for image in images],
        [("dog", "cat").index(label) for label in labels],
    )
    sources: list[OwnImages] = [
        FolderSource(source="folder", path=str(pets)),
        TableSource(source="table", path=str(pets / "labels.csv")),
        ArchiveSource(source="archive", path=str(tmp_path / "pets.zip")),
        ParquetSource(source="parquet", path=str(tmp_path / "hub")),
    ]
    found = []
    for source in sources:
        check_source(source)  # type: ignore[arg-type]
        assert count_classes(source) in (2, None)  # type: ignore[arg-type]
        found.append(contents(download_dataset(source, tmp_path / "store")))  # type: ignore[arg-type]
    assert len(found[0]) == 10
    assert all(other == found[0] for other in found)


def test_corrections_change_what_is_prepared_and_are_counted(pets: Path, tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text("path,label,who\ncat/00000.png,dog,ada\ndog/00001.png,exclude,ada\nnone.png,cat,ada\n")
    sizes = ("image.height=8", "image.width=8", "image.channels=1")
    recipe = load_recipe("folder", [f"dataset.path={pets}", f"dataset.corrections={file}", *sizes])
    raw = download_dataset(recipe.dataset, tmp_path)
    assert Counter(name for _, name in contents(raw)) == {"cat": 4, "dog": 5}
    assert "1 corrections are for no image of the dataset: corrections.csv, line 4" in raw.warnings
    dataset = prepare_dataset(raw, recipe, tmp_path)
    assert sum(dataset.counts.values()) == 9
    wanted = {"relabelled": 1, "excluded": 1, "unchanged": 0, "unmatched": 1}
    assert json.loads(json.dumps(read_manifest(dataset.folder)["corrections"])) == wanted
    assert len(sorted(pets.rglob("*.png"))) == 10


def test_corrections_that_name_no_class_stop_the_run(pets: Path, tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text("path,label\ncat/00000.png,dogs\n")
    source = FolderSource(source="folder", path=str(pets), corrections=str(file))
    with pytest.raises(RequestError, match=r"has the label 'dogs'.* Did you mean dog\?"):
        download_dataset(source, tmp_path)
    with pytest.raises(RequestError, match=r"dataset\.corrections .*none\.csv does not exist"):
        check_source(source.model_copy(update={"corrections": str(tmp_path / "none.csv")}))
