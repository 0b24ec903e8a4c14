"""Format numbers: what an older pixelmill wrote is read, and one line says what to do about a newer one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.artifacts import read_json, write_json
from pixelmill.pipeline.artifacts.formats import FORMATS
from pixelmill.pipeline.registry import promote_version
from tests.conftest import Run, update_manifest, write_images
from tests.pipeline.promotion.versions import register


def change_format(path: Path, number: Any) -> None:
    """Change the format in a JSON file; None removes it."""
    content = {name: value for name, value in read_json(path).items() if name != "format"}
    write_json(path, content if number is None else {**content, "format": number})


@pytest.fixture
def store(trained_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_store, tmp_path / "store"))


def test_new_bundles_tables_and_stores_have_the_newest_format(run: Run, tmp_path: Path) -> None:
    bundle = register(tmp_path / "store", [0, 1, 2])
    assert read_json(bundle.folder / "manifest.json")["format"] == FORMATS["model-bundle"]
    assert read_json(tmp_path / "store/models/store.json")["format"] == FORMATS["store"]
    write_images(tmp_path / "images", 3)
    score = ("score", "pets@1", tmp_path / "images", "--output", tmp_path / "out")
    assert run(*score, "--store", tmp_path / "store").code == 0
    assert read_json(tmp_path / "out/manifest.json")["format"] == FORMATS["prediction-table"]


def test_artifacts_without_a_format_are_read(run: Run, store: Path, tmp_path: Path) -> None:
    bundle = store / "models/digits/1"
    parity = read_json(bundle / "parity.json")
    write_json(
        bundle / "parity.json",
        {key: parity[key] for key in parity if key not in ("variants", "engines", "formats")},
    )
    update_manifest(bundle)
    change_format(bundle / "manifest.json", None)
    (store / "models/store.json").unlink(missing_ok=True)
    result = run("export", "digits@1", "--output", tmp_path / "out", "--store", store)
    assert result.code == 0, result.errors
    assert "labels differ from Keras" in result.output
    promote_version(store, "digits", 1, "canary")
    write_images(tmp_path / "images", 3)
    score = ("score", "digits@canary", tmp_path / "images", "--store", store)
    assert run(*score, "--output", tmp_path / "table").code == 0
    change_format(tmp_path / "table/manifest.json", None)
    again = run(*score, "--output", tmp_path / "second", "--previous", tmp_path / "table", "--json")
    assert json.loads(again.output)["reused"] == 3


@pytest.mark.parametrize("newer", [99, "2"])
def test_one_line_says_what_to_do_about_a_newer_bundle_table_or_store(
    run: Run, store: Path, tmp_path: Path, newer: Any
) -> None:
    if newer == 99:
        write_images(tmp_path / "images", 3)
        score = ("score", "digits@1", tmp_path / "images", "--store", store)
        assert run(*score, "--output", tmp_path / "table").code == 0
        change_format(tmp_path / "table/manifest.json", newer)
        refused(run("explain", tmp_path / "table", "00000.png", "--store", store), "prediction-table")
    change_format(store / "models/digits/1/manifest.json", newer)
    refused(run("models", "show", "digits@1", "--store", store), "model-bundle")
    write_json(store / "models/store.json", {"format": newer})
    refused(run("models", "--store", store), "store")


def refused(result: Any, kind: str) -> None:
    assert result.code == 2, result.errors
    (line,) = result.errors.strip().splitlines()
    assert f"of a {kind}; expected format" in line
    assert "Install the version of pixelmill that wrote it" in line
