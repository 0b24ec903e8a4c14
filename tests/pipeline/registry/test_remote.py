"""The registry in an S3 store, with several processes and failing requests."""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from pixelmill.pipeline.artifacts import MANIFEST, read_manifest
from pixelmill.pipeline.bundles import ONNX_FILE, ModelBundle, open_bundle
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.registry import (
    AliasMoved,
    aliases_of,
    find_bundle,
    list_models,
    promote_version,
    register_bundle,
    release_version,
    reserve_version,
    rollback_alias,
    show_model,
)
from pixelmill.pipeline.storage import Location, cache_folder, parse_location
from tests.conftest import Run, write_images
from tests.pipeline.registry.bundles import register, versions_in, write_bundle
from tests.s3 import S3Server, s3_server

SPAWN = multiprocessing.get_context("spawn")
STORE = "s3://bucket/some store"
FOLDER = "some store/models/digits"
RESERVATIONS, ROUNDS = 15, 6


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def store(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    """An empty store, and an empty cache for it."""
    for name, value in {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    with s3.bucket("bucket"):
        yield parse_location(STORE)


@pytest.fixture
def registered(store: Location, tmp_path: Path) -> list[ModelBundle]:
    return [
        register(store, accuracy=0.5 + version / 10, folder=tmp_path / f"bundle {version}")
        for version in (1, 2, 3)
    ]


def at_once(function: Callable[..., None], *arguments: tuple[object, ...]) -> None:
    """Run a function in several spawned processes at the same time, one for each element of `arguments`."""
    barrier = SPAWN.Barrier(len(arguments))
    processes = [SPAWN.Process(target=function, args=(barrier, *own)) for own in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_a_bundle_is_published_with_its_manifest_last(
    s3: S3Server, registered: list[ModelBundle], store: Location
) -> None:
    manifest = read_manifest(registered[0].folder)
    expected = {f"{FOLDER}/1/{name}" for name in (*manifest["files"], MANIFEST, ".reserved")}
    assert set(s3.keys("bucket", f"{FOLDER}/1")) == expected
    written = [path for method, path, _ in s3.requests if method == "PUT" and "/digits/1/" in path]
    assert written[-1].startswith(f"/bucket/{FOLDER}/1/{MANIFEST}")
    assert [model.version for model in list_models(store)] == [1, 2, 3]
    assert show_model(store, "digits@2").metrics["test"]["accuracy"] == 0.7


def test_a_folder_without_a_manifest_only_occupies_its_number(
    registered: list[ModelBundle], store: Location
) -> None:
    assert reserve_version(store, "digits") == 4
    assert [model.version for model in list_models(store)] == [1, 2, 3]
    assert reserve_version(store, "digits") == 5
    release_version(store, "digits", 5)
    release_version(store, "digits", 3)
    assert reserve_version(store, "digits") == 5
    assert [model.version for model in list_models(store)] == [1, 2, 3]


def test_a_version_is_never_published_twice(
    s3: S3Server, registered: list[ModelBundle], store: Location, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path / "other", "digits", 2, 0.1)
    with pytest.raises(RequestError, match="already contains a bundle"):
        register_bundle(store, other)
    assert show_model(store, "digits@2").metrics["test"]["accuracy"] == 0.7
    # None of its files have changed.
    assert find_bundle(store, "digits@2").version == 2


def test_a_bundle_is_fetched_once_and_verified(
    s3: S3Server, registered: list[ModelBundle], store: Location
) -> None:
    promote_version(store, "digits", 2, "champion")
    bundle = find_bundle(store, "digits@champion")
    assert bundle.folder.is_relative_to(cache_folder())
    assert bundle.onnx_path.read_bytes() == b"network digits 2"
    assert bundle == replace(open_bundle(bundle.folder), address=f"{STORE}/models/digits/2")
    s3.requests.clear()
    for reference in ("digits@2", f"{STORE}/models/digits/2"):
        assert find_bundle(store, reference) == bundle
    assert not [path for method, path, _ in s3.requests if method == "GET" and ONNX_FILE in path]
    assert [path.name for path in bundle.folder.parent.iterdir()] == [bundle.folder.name]


def test_a_damaged_copy_in_the_cache_is_fetched_again(registered: list[ModelBundle], store: Location) -> None:
    for damage in (
        lambda folder: (folder / ONNX_FILE).write_bytes(b"something else"),
        lambda folder: (folder / ONNX_FILE).unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        shutil.rmtree,
    ):
        bundle = find_bundle(store, "digits@1")
        damage(bundle.folder)
        assert find_bundle(store, "digits@1").onnx_path.read_bytes() == b"network digits 1"


@pytest.mark.parametrize("content", [b"something else", None])
def test_a_damaged_bundle_of_the_store_is_refused_and_not_kept(
    content: bytes | None, s3: S3Server, registered: list[ModelBundle], store: Location
) -> None:
    key = f"{FOLDER}/1/{ONNX_FILE}"
    if content is None:
        s3.client.delete_object(Bucket="bucket", Key=key)
    else:
        s3.client.put_object(Bucket="bucket", Key=key, Body=content)
    for _ in range(2):
        with pytest.raises(WorkError, match=f"{STORE}/models/digits/1/{ONNX_FILE} "):
            find_bundle(store, "digits@1")
    assert not list((cache_folder() / "bundles").iterdir())


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", ""])
def test_a_manifest_that_points_out_of_its_folder_is_refused(
    name: str, s3: S3Server, registered: list[ModelBundle], store: Location
) -> None:
    manifest = read_manifest(store / "models/digits/1")
    manifest["files"][name] = {"sha256": "0" * 64, "size": 1}
    for key in (f"{FOLDER}/1/{MANIFEST}", "some store/models/digits/out.txt"):
        s3.client.put_object(Bucket="bucket", Key=key, Body=json.dumps(manifest).encode())
    with pytest.raises(RequestError, match="files below its folder"):
        find_bundle(store, "digits@1")
    assert not (cache_folder() / "bundles").exists()


def find(barrier: Barrier, result: Path) -> None:
    store = parse_location(STORE)
    barrier.wait()
    result.write_text(str(find_bundle(store, "digits@1").folder))


def test_two_processes_can_fetch_at_once(registered: list[ModelBundle], tmp_path: Path) -> None:
    at_once(find, (tmp_path / "first",), (tmp_path / "second",))
    folder = Path((tmp_path / "first").read_text())
    assert folder == Path((tmp_path / "second").read_text())
    assert open_bundle(folder).version == 1
    assert list(folder.parent.iterdir()) == [folder]


def test_promotion_and_rollback(registered: list[ModelBundle], store: Location) -> None:
    for version in (1, 2, 2, 3):
        promote_version(store, "digits", version, "champion")
    assert aliases_of(store, "digits") == {"champion": 3}
    assert rollback_alias(store, "digits", "champion") == 2
    with pytest.raises(AliasMoved):
        promote_version(store, "digits", 1, "champion", replacing=3)
    assert rollback_alias(store, "digits", "champion") == 1
    with pytest.raises(RequestError, match="no earlier version"):
        rollback_alias(store, "digits", "champion")
    assert show_model(store, "digits@champion").aliases == ("champion",)
    with pytest.raises(RequestError, match="digits@champion, digits@1, digits@2"):
        find_bundle(store, "digits@9")


def test_a_removed_aliases_file_is_created_again(
    s3: S3Server, registered: list[ModelBundle], store: Location
) -> None:
    promote_version(store, "digits", 1, "champion")
    key = f"{FOLDER}/aliases.json"

    def remove(method: str, path: str) -> None:
        if method == "PUT" and path == f"/bucket/{key}":
            s3.before = lambda method, path: None
            s3.client.delete_object(Bucket="bucket", Key=key)

    s3.before = remove
    promote_version(store, "digits", 2, "latest")
    assert aliases_of(store, "digits") == {"latest": 2}


def test_a_missing_bucket_is_reported_immediately(store: Location) -> None:
    with pytest.raises(FileNotFoundError):
        reserve_version(parse_location("s3://no-such-bucket/store"), "digits")


def reserve_many(barrier: Barrier, result: Path) -> None:
    store = parse_location(STORE)
    barrier.wait()
    result.write_text(json.dumps([reserve_version(store, "digits") for _ in range(RESERVATIONS)]))


@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_two_processes_never_reserve_the_same_version(
    failing: float, s3: S3Server, store: Location, tmp_path: Path
) -> None:
    s3.failing = failing
    answers = [tmp_path / "first.json", tmp_path / "second.json"]
    at_once(reserve_many, *[(result,) for result in answers])
    versions = [version for result in answers for version in json.loads(result.read_text())]
    # Without gaps, because a write whose response was lost is recognized.
    assert sorted(versions) == list(range(1, 2 * RESERVATIONS + 1))


def promote_many(barrier: Barrier, own: str, version: int) -> None:
    store = parse_location(STORE)
    barrier.wait()
    for number in range(ROUNDS):
        promote_version(store, "digits", number % 3 + 1, own)
        promote_version(store, "digits", version, "champion")


@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_two_processes_can_move_aliases(
    failing: float, s3: S3Server, registered: list[ModelBundle], store: Location
) -> None:
    s3.failing = failing
    at_once(promote_many, ("first", 1), ("second", 2))
    s3.behave()
    content = json.loads((store / "models/digits/aliases.json").read_bytes())
    moves = [number % 3 + 1 for number in range(ROUNDS)]
    for alias in ("first", "second"):
        assert [*content["history"][alias], content["aliases"][alias]] == moves
    champions = [*content["history"].get("champion", []), content["aliases"]["champion"]]
    assert all(before != after for before, after in pairwise(champions))


def test_every_first_request_may_fail(s3: S3Server, store: Location, tmp_path: Path) -> None:
    s3.first_fails = True
    register(store, folder=tmp_path / "bundle")
    promote_version(store, "digits", 1, "champion")
    assert find_bundle(store, "digits@champion").onnx_path.read_bytes() == b"network digits 1"
    assert [model.aliases for model in versions_in(store)] == [("champion",)]
    assert {method for method, _, failed in s3.requests if failed} == {"DELETE", "GET", "HEAD", "PUT"}


def test_the_commands_work_on_a_remote_store(
    s3: S3Server, store: Location, bundle: ModelBundle, run: Run, tmp_path: Path
) -> None:
    def call(*arguments: object) -> str:
        result = run(*arguments, env={**s3.environment, "PIXELMILL_STORE": STORE})
        assert result.code == 0, result.errors
        return result.output

    assert reserve_version(store, "digits") == 1
    register_bundle(store, bundle)
    assert "digits@1" in call("models", "list")
    call("models", "promote", "digits@1")
    register(store, folder=tmp_path / "bundle")
    call("models", "promote", "digits@2")
    assert json.loads(call("models", "rollback", "digits", "--json"))["version"] == 1
    shown = json.loads(call("models", "show", "digits@champion", "--json"))
    assert shown["folder"] == f"{STORE}/models/digits/1"
    assert f"{STORE}/models/digits/1" in call("models", "show", "digits@1", "--store", STORE)
    write_images(tmp_path / "images", 5)
    counts = json.loads(
        call("score", "digits@champion", tmp_path / "images", "--output", tmp_path / "out", "--json")
    )
    assert counts["scored"] == 5
    assert counts["request"]["model_sha256"] == bundle.onnx_sha256


@pytest.mark.parametrize(
    ("address", "changes", "said"),
    [
        ("s3://no-such-bucket/store", {}, "s3://no-such-bucket/store cannot be reached"),
        ("s3://bucket/store", {"AWS_ACCESS_KEY_ID": "other"}, "AWS_ACCESS_KEY_ID"),
        ("nonsense://bucket/store", {}, "address nonsense://bucket/store"),
        ("s3://bucket/file", {}, "store s3://bucket/file is a file"),
    ],
)
def test_an_invalid_store_is_one_line(
    address: str, changes: dict[str, str], said: str, s3: S3Server, store: Location, run: Run
) -> None:
    s3.client.put_object(Bucket="bucket", Key="file", Body=b"")
    for command in (("models", "list"), ("score", "digits@1", ".", "--output", "out"), ("retrain", "digits")):
        result = run(*command, "--store", address, env={**s3.environment, **changes})
        assert result.code == 2
        assert len(result.errors.strip().splitlines()) == 1
        assert said in result.last_error
