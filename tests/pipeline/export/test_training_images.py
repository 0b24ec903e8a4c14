"""A bundle lists the images of its model: each content with its class, split and group."""

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from pixelmill.pipeline.bundles import TRAINING_IMAGES_FILE
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.export.training_images import write_training_images
from pixelmill.pipeline.recipes import load_recipe
from tests.conftest import write_images


def test_every_content_is_listed_once_with_its_class_and_split(tmp_path: Path) -> None:
    pets = tmp_path / "pets"
    for seed, name in enumerate(("cat", "dog")):
        write_images(pets / name, 20, seed)
    copied = next((pets / "cat").iterdir())
    shutil.copyfile(copied, copied.with_name("copy.png"))
    recipe = load_recipe(
        "folder", [f"dataset.path={pets}", "image.height=8", "image.width=8", "image.channels=1"]
    )
    dataset = prepare_dataset(download_dataset(recipe.dataset, tmp_path), recipe, tmp_path)
    path = tmp_path / TRAINING_IMAGES_FILE
    write_training_images(dataset, path)
    table = pq.read_table(path)
    assert {field.name: str(field.type) for field in table.schema} == dict.fromkeys(
        ("sha256", "label", "split", "group"), "string"
    )
    rows = table.to_pylist()
    files = {hashlib.sha256(file.read_bytes()).hexdigest(): file.parent.name for file in pets.rglob("*.png")}
    assert [row["sha256"] for row in rows] == sorted(files)
    assert {row["sha256"]: row["label"] for row in rows} == files
    for split in ("train", "validation", "test"):
        listed = {row["sha256"] for row in rows if row["split"] == split}
        assert listed == set(dataset.rows(split, ["sha256"])["sha256"].to_pylist())
    written = path.read_bytes()
    write_training_images(dataset, path)
    assert path.read_bytes() == written
