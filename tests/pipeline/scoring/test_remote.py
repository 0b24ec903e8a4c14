"""Scoring from and to an S3 store gives the same table as a local folder, despite any faults of the store."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.extras import install_command
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.registry import find_bundle
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.commit import commit_table
from pixelmill.pipeline.scoring.plan import plan_scoring
from pixelmill.pipeline.scoring.run import score_shards
from pixelmill.pipeline.storage import parse_location
from tests.clusters import running_cluster
from tests.conftest import PIXELMILL, CommandResult, Run, write_images
from tests.s3 import S3Server, s3_server

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("scoring-remote")

IMAGES, TABLE = "s3://bucket/some images", "s3://bucket/a table"
ODD_NAMES = ["b c.png", "d%41.png", "e+f.png", "#g.png", "hé ü.png", "i[1]*.png", "j?k.png", "l=&m.png"]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def bucket(s3: S3Server) -> Iterator[None]:
    with s3.bucket("bucket"):
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders, with unusual names, duplicates, an empty file and one that is not an image."""
    folder = tmp_path_factory.mktemp("images")
    paths = write_images(folder / "a/b", 70, seed=1) + write_images(folder / "a.b", 9, seed=2)
    for name, path in zip(ODD_NAMES, paths, strict=False):
        (folder / "odd # 100%").mkdir(exist_ok=True)
        (folder / "odd # 100%" / name).write_bytes(path.read_bytes())
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def local_table(
    bundle: ModelBundle, images: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The table of the same images on this machine, with two classes per row."""
    output = tmp_path_factory.mktemp("local") / "table"
    result = score(run, {}, bundle.folder, images, output, "--top-k", 2)
    assert result.code == 0, result.errors
    return output


def score(run: Run, environment: dict[str, str], *arguments: object) -> CommandResult:
    model, images, output, *options = arguments
    return run("score", model, images, "--output", output, "--max-failure-rate", 1, *options, env=environment)


def data(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=["run_id", "scored_at"])


def remote_rows(s3: S3Server, folder: Path) -> pd.DataFrame:
    return read_predictions(s3.download("bucket", "a table", folder))


def is_one_line(result: CommandResult) -> bool:
    lines = result.errors.strip().splitlines()
    return lines[-1].startswith("pixelmill: ") and "Traceback" not in result.errors


@pytest.mark.parametrize("table_format", ["parquet", "csv"])
def test_a_remote_folder_gives_the_same_table_as_a_local_one(
    table_format: str,
    s3: S3Server,
    run: Run,
    bundle: ModelBundle,
    images: Path,
    local_table: Path,
    tmp_path: Path,
) -> None:
    s3.upload(images, "bucket", "some images")
    # Empty objects, with which consoles represent folders.
    for key in ("some images/", "some images/a/", "some images/empty folder.png/"):
        s3.client.put_object(Bucket="bucket", Key=key)
    result = score(run, s3.environment, bundle.folder, IMAGES, TABLE, "--top-k", 2, "--format", table_format)
    assert result.code == 0, result.errors
    rows = remote_rows(s3, tmp_path)
    local = read_predictions(local_table)
    if table_format == "csv":
        rows, local = rows[SHARED], local[SHARED]
        pd.testing.assert_frame_equal(rows, local, check_dtype=False)
    else:
        pd.testing.assert_frame_equal(data(rows), data(local))
    # The run leaves only its table.
    left = {key.removeprefix("a table/") for key in s3.keys("bucket", "a table")}
    table = "predictions.csv" if table_format == "csv" else "predictions/part-00000.parquet"
    assert left == {"manifest.json", "report.html", table}


SHARED = ["image_path", "image_sha256", "status", "error", "label", "class_index", "probability", "width"]


def test_images_and_output_may_be_in_different_places(
    s3: S3Server, run: Run, bundle: ModelBundle, images: Path, local_table: Path, tmp_path: Path
) -> None:
    s3.upload(images, "bucket", "some images")
    result = score(run, s3.environment, bundle.folder, images, TABLE, "--top-k", 2)
    assert result.code == 0, result.errors
    result = score(run, s3.environment, bundle.folder, IMAGES, tmp_path / "here", "--top-k", 2)
    assert result.code == 0, result.errors
    local = data(read_predictions(local_table))
    pd.testing.assert_frame_equal(data(remote_rows(s3, tmp_path / "there")), local)
    pd.testing.assert_frame_equal(data(read_predictions(tmp_path / "here")), local)


def test_one_request_in_ten_may_fail(
    s3: S3Server, run: Run, bundle: ModelBundle, images: Path, local_table: Path, tmp_path: Path
) -> None:
    s3.upload(images, "bucket", "some images")
    s3.failing = 0.1
    result = score(run, s3.environment, bundle.folder, IMAGES, TABLE, "--top-k", 2)
    assert result.code == 0, result.errors
    s3.failing = 0.0
    assert s3.failed > 5
    pd.testing.assert_frame_equal(data(remote_rows(s3, tmp_path)), data(read_predictions(local_table)))
    assert not s3.keys("bucket", "a table/.pixelmill")


def test_a_killed_run_resumes_and_a_finished_one_does_nothing(
    s3: S3Server, run: Run, bundle: ModelBundle, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 3000)
    command = ["score", bundle.folder, tmp_path / "images", "--output", TABLE, "--workers", 1]
    one_part = threading.Event()

    def watch(method: str, path: str) -> None:
        if method == "PUT" and "part-00001" in path:
            one_part.set()

    s3.before = watch
    process = subprocess.Popen(
        [PIXELMILL, *map(str, command)],
        env={**os.environ, **s3.environment},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert one_part.wait(120)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert any("run.json" in key for key in s3.keys("bucket", "a table/.pixelmill"))
    s3.behave()
    result = run(*command, "--json", env=s3.environment)
    assert result.code == 0, result.errors
    assert result.json["listed"] == result.json["scored"] == 3000
    assert 0 < result.json["computed"] < 3000
    assert not s3.keys("bucket", "a table/.pixelmill")
    again = run(*command, "--json", env=s3.environment).json
    assert again["computed"] == 0
    assert again["run"] == result.json["run"]
    rows = remote_rows(s3, tmp_path / "table")
    assert rows["image_path"].tolist() == sorted(path.name for path in (tmp_path / "images").iterdir())


def test_an_earlier_remote_table_is_reused(s3: S3Server, run: Run, bundle: ModelBundle, images: Path) -> None:
    s3.upload(images, "bucket", "some images")
    score(run, s3.environment, bundle.folder, IMAGES, TABLE)
    new = encode_png(np.full((8, 8, 1), 77, np.uint8))
    s3.client.put_object(Bucket="bucket", Key="some images/z.png", Body=new)
    for option in ([], ["--trust-mtime"]):
        result = score(
            run,
            s3.environment,
            bundle.folder,
            IMAGES,
            f"s3://bucket/next{len(option)}",
            "--previous",
            TABLE,
            "--json",
            *option,
        )
        assert result.code == 0, result.errors
        # All except the new one and the two that failed.
        assert result.json["computed"] == 3
        assert result.json["reused"] == result.json["listed"] - 3


def test_a_removed_object_is_a_failed_row(
    s3: S3Server, run: Run, bundle: ModelBundle, images: Path, tmp_path: Path
) -> None:
    s3.upload(images, "bucket", "some images")

    def remove(method: str, path: str) -> None:
        # After the listing is written, before anything is read.
        if method == "PUT" and "/shards/" in path:
            s3.client.delete_object(Bucket="bucket", Key="some images/a/b/00003.png")
            s3.client.put_object(Bucket="bucket", Key="some images/a/b/00004.png", Body=b"longer" * 99)

    s3.before = remove
    result = score(run, s3.environment, bundle.folder, IMAGES, TABLE)
    assert result.code == 0, result.errors
    rows = remote_rows(s3, tmp_path).set_index("image_path")
    assert rows.loc["a/b/00003.png", "error"] == "unreadable: The specified key does not exist."
    assert str(rows.loc["a/b/00004.png", "error"]).startswith("changed: ")
    assert (rows["status"] == "failed").sum() == 4


def test_a_store_that_goes_down_ends_the_run_which_can_resume(
    s3: S3Server, run: Run, bundle: ModelBundle, images: Path
) -> None:
    s3.upload(images, "bucket", "some images")

    def go_down(method: str, path: str) -> None:
        if method == "GET" and path.startswith("/bucket/some images/"):
            s3.failing = 1.0

    s3.before = go_down
    hasty = {**s3.environment, "AWS_MAX_ATTEMPTS": "1"}
    result = score(run, hasty, bundle.folder, IMAGES, TABLE)
    assert result.code == 1
    assert is_one_line(result), result.errors
    s3.behave()
    result = score(run, s3.environment, bundle.folder, IMAGES, TABLE, "--json")
    assert result.code == 0, result.errors
    assert result.json["failures"] == {"empty": 1, "not_an_image": 1}


@pytest.mark.parametrize(
    ("images", "output", "changes", "said"),
    [
        ("s3://no-such-bucket/images", "s3://bucket/out", {}, "s3://no-such-bucket/images cannot be reached"),
        ("s3://bucket/images", "s3://no-such-bucket/out", {}, "s3://no-such-bucket/out cannot be reached"),
        ("s3://bucket/nothing", "s3://bucket/out", {}, "s3://bucket/nothing is not a folder"),
        ("s3://bucket/images", "s3://bucket/out", {"AWS_ACCESS_KEY_ID": "other"}, "AWS_ACCESS_KEY_ID"),
        ("s3://bucket/images", "s3://bucket/out", {"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID"),
        (
            "s3://bucket/images",
            "s3://bucket/out",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
            "AWS_ENDPOINT_URL",
        ),
        ("nowhere://bucket/images", "s3://bucket/out", {}, "address nowhere://bucket/images"),
    ],
)
def test_an_unreachable_address_is_one_line(
    s3: S3Server,
    run: Run,
    bundle: ModelBundle,
    images: str,
    output: str,
    changes: dict[str, str],
    said: str,
) -> None:
    s3.client.put_object(Bucket="bucket", Key="images/1.png", Body=b"")
    result = score(run, {**s3.environment, **changes}, bundle.folder, images, output)
    assert result.code == 2
    assert len(result.errors.strip().splitlines()) == 1
    assert said in result.last_error


def test_a_missing_s3fs_is_reported_with_the_install_command(
    s3: S3Server, run: Run, bundle: ModelBundle, tmp_path: Path
) -> None:
    # The import fails as if the package were not installed.
    (tmp_path / "s3fs.py").write_text("raise ImportError('No module named s3fs')")
    result = score(
        run, {**s3.environment, "PYTHONPATH": str(tmp_path)}, bundle.folder, "s3://bucket/images", TABLE
    )
    assert result.code == 2
    assert len(result.errors.strip().splitlines()) == 1
    assert result.last_error.endswith(f"for s3://: {install_command('s3')}")


def test_a_folder_without_a_name_is_a_row(
    s3: S3Server, run: Run, bundle: ModelBundle, tmp_path: Path
) -> None:
    s3.client.put_object(Bucket="bucket", Key="some images/a//1.png", Body=b"")
    s3.client.put_object(Bucket="bucket", Key="some images/2.png", Body=b"")
    result = score(run, s3.environment, bundle.folder, IMAGES, TABLE)
    assert result.code == 0, result.errors
    rows = remote_rows(s3, tmp_path).set_index("image_path")["error"]
    assert rows["a//"] == "unreadable: a folder without a name cannot be listed"
    assert sorted(rows.index) == ["2.png", "a//"]


def test_a_cluster_whose_machines_share_only_the_store(
    s3: S3Server,
    bundle: ModelBundle,
    images: Path,
    local_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The workers have no access to the files or the cache of the driver; everything is in S3."""
    s3.upload(images, "bucket", "some images")
    s3.upload(bundle.folder, "bucket", "store/models/digits/1")
    for name, value in {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "driver")}.items():
        monkeypatch.setenv(name, value)
    with running_cluster(environment={"XDG_CACHE_HOME": str(tmp_path / "worker")}) as cluster:
        request = ScoringRequest(
            bundle=find_bundle(parse_location("s3://bucket/store"), "digits@1"),
            images=parse_location(IMAGES),
            output=parse_location(TABLE),
            top_k=2,
            executor="dask",
            dask_address=cluster.address,
        )
        plan = plan_scoring(request)
        # This folder does not exist on the machine of a worker.
        (tmp_path / "driver").rename(tmp_path / "elsewhere")
        outcome = score_shards(plan)
        (tmp_path / "elsewhere").rename(tmp_path / "driver")
        commit_table(plan, outcome)
    assert len(list((tmp_path / "worker/pixelmill/bundles").iterdir())) == 1
    rows = read_predictions(s3.download("bucket", "a table", tmp_path / "table"))
    pd.testing.assert_frame_equal(data(rows), data(read_predictions(local_table)))
