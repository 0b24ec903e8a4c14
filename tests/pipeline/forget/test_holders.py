"""Where a store holds an image, and that an excluded one is in no later split."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pixelmill.pipeline.artifacts import read_manifest, sha256_of
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.exclusions import (
    EXCLUSIONS_FILE,
    Exclusions,
    exclude_images,
    read_exclusions,
    readmit_images,
)
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.forget.holders import find_holders, find_tables
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import Run, write_images


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("cat", "dog")):
        write_images(folder / name, 40, seed=number)
    return folder


@pytest.fixture(scope="module")
def table(bundle: ModelBundle, dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tables") / "2026" / "checked"
    score_folder(ScoringRequest(bundle, dataset_folder, output))
    return output


def test_an_excluded_image_is_in_no_split_and_the_manifest_says_so(
    dataset_folder: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("folder", (f"dataset.path={dataset_folder}", "name=pets"))
    before = prepare_dataset(download_dataset(recipe.dataset, tmp_path), recipe, tmp_path)
    assert read_manifest(before.folder)["exclusions"] == {}
    forgotten = sha256_of(dataset_folder / "cat/00007.png")
    held = find_holders(tmp_path, [forgotten], []).holdings
    assert [(one.kind, one.detail) for one in held] == [("split", "cat/00007.png")]

    assert exclude_images(tmp_path, [forgotten, "0" * 64], "ann") == 2
    listed = read_exclusions(tmp_path)
    raw = download_dataset(recipe.dataset, tmp_path, listed)
    assert raw.excluded == 1
    after = prepare_dataset(raw, recipe, tmp_path)
    assert sum(after.counts.values()) == sum(before.counts.values()) - 1
    assert forgotten not in after.rows(columns=["sha256"])["sha256"].to_pylist()
    assert after.exclusions == {"listed": 2, "list_sha256": listed.sha256, "left_out": 1, "present": 0}
    assert read_manifest(after.folder)["exclusions"] == after.exclusions


def test_a_split_that_holds_an_excluded_image_all_the_same_is_refused(
    dataset_folder: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("folder", (f"dataset.path={dataset_folder}", "name=pets"))
    raw = download_dataset(recipe.dataset, tmp_path)
    sha256 = sha256_of(dataset_folder / "cat/00007.png")
    with pytest.raises(WorkError, match=f"1 excluded images, such as {sha256}"):
        prepare_dataset(replace(raw, exclusions=Exclusions(frozenset([sha256]))), recipe, tmp_path)


def test_versions_and_tables_that_hold_an_image_are_named(
    trained_store: Path, table: Path, dataset_folder: Path
) -> None:
    rows = pq.read_table(trained_store / "models/digits/1/training_images.parquet").slice(5, 1).to_pylist()
    seen = rows[0]["sha256"]
    scored = sha256_of(dataset_folder / "dog/00003.png")
    found = find_holders(trained_store, [seen, scored], [table.parent.parent])
    assert {(one.sha256, one.kind, one.name) for one in found.holdings if one.kind != "split"} == {
        (seen, "version", "digits@1"),
        (scored, "table", str(table)),
    }
    assert {one.sha256 for one in found.holdings if one.kind == "split"} == {seen}
    assert found.not_searched == ()
    assert found.tables == 1


def test_a_csv_table_is_searched_and_a_damaged_one_is_named(
    bundle: ModelBundle, dataset_folder: Path, tmp_path: Path
) -> None:
    score_folder(ScoringRequest(bundle, dataset_folder, tmp_path / "tables/csv", format="csv"))
    score_folder(ScoringRequest(bundle, dataset_folder, tmp_path / "tables/broken"))
    next((tmp_path / "tables/broken/predictions").iterdir()).write_bytes(b"damaged")
    sha256 = sha256_of(dataset_folder / "dog/00003.png")
    found = find_holders(tmp_path / "store", [sha256], [tmp_path / "tables"])
    assert [(one.name, one.detail) for one in found.holdings] == [
        (str(tmp_path / "tables/csv"), "dog/00003.png")
    ]
    assert len(found.not_searched) == 1
    assert found.not_searched[0].startswith(str(tmp_path / "tables/broken"))
    assert len(list(find_tables(tmp_path / "tables"))) == 2


def test_the_list_is_kept_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert exclude_images(tmp_path, ["a" * 64], "ann") == 1
    first = (tmp_path / EXCLUSIONS_FILE).read_bytes()
    assert exclude_images(tmp_path, ["a" * 64], "bob") == 0
    assert (tmp_path / EXCLUSIONS_FILE).read_bytes() == first
    assert readmit_images(tmp_path, ["a" * 64, "b" * 64]) == 1
    assert read_exclusions(tmp_path).contents == frozenset()
    (tmp_path / EXCLUSIONS_FILE).write_text('{"images": [1]}')
    with pytest.raises(RequestError, match="excluded images would be trained on"):
        read_exclusions(tmp_path)


def test_the_command_names_holders_and_excludes(
    run: Run, trained_store: Path, table: Path, dataset_folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(trained_store, store)
    image = dataset_folder / "dog/00003.png"
    told = run("forget", image, "--tables", table, "--store", store, "--json")
    assert told.code == 0, told.errors
    assert [(one["kind"], one["detail"]) for one in told.json["holdings"]] == [("table", "dog/00003.png")]
    assert told.json["excluded"] == 1
    assert list(json.loads((store / EXCLUSIONS_FILE).read_text())["images"]) == [sha256_of(image)]
    again = run("forget", sha256_of(image).upper(), "--store", store)
    assert again.code == 0
    assert "0 put on the exclusion list" in again.output
    assert "1 were on it" in again.output
    undone = run("forget", image, "--store", store, "--undo", "--json")
    assert undone.json["readmitted"] == 1
    for wrong in ("abc", tmp_path):
        refused = run("forget", wrong, "--store", store)
        assert refused.code == 2
        assert "64 hexadecimal digits" in refused.last_error


@pytest.mark.slow
def test_the_next_retraining_leaves_the_image_out_and_its_manifest_says_so(
    run: Run, trained_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(trained_store, store)
    sha256 = pq.read_table(store / "models/digits/1/training_images.parquet")["sha256"][5].as_py()
    assert run("forget", sha256, "--store", store).code == 0
    retrained = run("retrain", "digits", "--store", store, "--set", "training.epochs=6", "--json")
    assert retrained.code in (0, 3), retrained.errors
    bundle = store / "models/digits/2"
    exclusions = json.loads((bundle / "manifest.json").read_text())["exclusions"]
    assert exclusions == {**exclusions, "listed": 1, "left_out": 1, "present": 0}
    assert sha256 not in pq.read_table(bundle / "training_images.parquet")["sha256"].to_pylist()
