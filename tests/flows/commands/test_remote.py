"""The flows with a store in S3: working files are local, and published files are remote."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run, write_images
from tests.s3 import S3Server, s3_server

STORE = "s3://bucket/store"


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server() as server, server.bucket("bucket"):
        yield server


def test_retraining_publishes_to_a_remote_store_while_one_request_in_ten_fails(
    s3: S3Server, run: Run, tmp_path: Path
) -> None:
    s3.failing = 0.1
    environment = {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    options = ("--store", STORE, "--set", "training.epochs=1", "--set", "promotion.min_accuracy=0")
    result = run("retrain", "digits", *options, "--json", cwd=tmp_path, env=environment)
    assert result.code == 0, result.errors
    assert result.json["aliases"] == ["champion"]
    assert result.json["folder"] == f"{STORE}/models/digits/1"
    # All other files are on this machine, in a folder for this store.
    (work,) = (path for path in (tmp_path / "cache/pixelmill").iterdir() if path.name != "bundles")
    assert work.name.startswith("s3-bucket-store-")
    assert {path.name for path in work.iterdir()} >= {"datasets", "runs"}
    assert {key.split("/")[1] for key in s3.keys("bucket", "store")} == {"models"}
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    s3.failing = 0.0
    bundle = s3.download("bucket", "store/models/digits/1", tmp_path / "bundle")
    published = json.loads((bundle / "manifest.json").read_text())["files"]
    assert {"model.onnx", "model.keras", "README.md"} <= set(published)
    write_images(tmp_path / "images", 3)
    score = ("score", "digits@champion", tmp_path / "images", "--store", STORE)
    result = run(*score, "--output", "s3://bucket/table", "--json", cwd=tmp_path, env=environment)
    assert result.code == 0, result.errors
    assert result.json["scored"] == 3


@pytest.mark.slow
def test_the_number_of_a_refused_version_is_released(s3: S3Server, run: Run, tmp_path: Path) -> None:
    environment = {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    options = ("--set", "training.epochs=1", "--set", "export.max_abs_difference=1e-30")
    result = run("retrain", "digits", "--store", STORE, *options, cwd=tmp_path, env=environment)
    assert result.code == 3
    assert s3.keys("bucket", "store") == []
