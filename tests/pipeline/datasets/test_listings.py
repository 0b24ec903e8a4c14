"""Every kind of dataset can be listed, checked and counted."""

from pathlib import Path
from typing import get_args

import pytest

from pixelmill.pipeline.config import DatasetSource, DigitsSource, FolderSource, TableSource
from pixelmill.pipeline.datasets.listings import LISTINGS, check_source, count_source_classes, list_dataset
from pixelmill.pipeline.errors import RequestError
from tests.conftest import write_images


def test_every_kind_of_dataset_can_be_listed() -> None:
    assert set(LISTINGS) == set(get_args(get_args(DatasetSource)[0]))


def test_the_function_of_the_kind_is_called(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / "pets" / name, 3)
    folder = FolderSource(source="folder", path=str(tmp_path / "pets"))
    check_source(folder)
    assert count_source_classes(folder) == 2
    assert len(list(list_dataset(folder, tmp_path).images)) == 6
    assert count_source_classes(DigitsSource(source="digits")) == 10
    with pytest.raises(RequestError, match="names no table"):
        check_source(TableSource(source="table", path=str(tmp_path / "none.csv")))
