"""The registry with one and several processes."""

import json
import multiprocessing
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from pixelmill.pipeline.artifacts import publishing
from pixelmill.pipeline.bundles import (
    BASELINE_FILE,
    LABELS_FILE,
    ONNX_FILE,
    PREPROCESSING_FILE,
)
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.registry import (
    aliases_of,
    find_bundle,
    list_models,
    promote_version,
    release_version,
    reserve_version,
    rollback_alias,
    show_model,
)
from tests.pipeline.registry.bundles import register, versions_in, write_bundle

SPAWN = multiprocessing.get_context("spawn")
RESERVATIONS = 100
ROUNDS = 30
NEEDED_TO_SCORE = (ONNX_FILE, LABELS_FILE, PREPROCESSING_FILE, BASELINE_FILE)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with `digits@1`, `digits@2`, `digits@3` and no alias."""
    for _ in range(3):
        register(tmp_path)
    return tmp_path


def aliases_file(store: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((store / "models/digits/aliases.json").read_text())
    return content


def test_a_registered_bundle_is_stored_under_its_name_and_version(tmp_path: Path) -> None:
    bundle = register(tmp_path)
    assert bundle.folder == tmp_path / "models/digits/1"
    assert find_bundle(tmp_path, "digits@1") == bundle
    assert bundle.labels() == ("cat", "dog")
    assert bundle.onnx_path.read_bytes() == b"network digits 1"
    assert list((tmp_path / "runs").iterdir()) == []


def test_versions_are_numbered_per_model(tmp_path: Path) -> None:
    assert [reserve_version(tmp_path, "digits") for _ in range(11)] == list(range(1, 12))
    assert reserve_version(tmp_path, "mnist") == 1


def test_a_reserved_version_is_not_a_model_yet(store: Path) -> None:
    assert reserve_version(store, "digits") == 4
    assert [model.version for model in list_models(store)] == [1, 2, 3]
    with pytest.raises(RequestError, match="no model 'digits@4'"):
        find_bundle(store, "digits@4")


def test_an_unused_reservation_can_be_released(store: Path) -> None:
    assert reserve_version(store, "digits") == 4
    release_version(store, "digits", 4)
    assert reserve_version(store, "digits") == 4
    release_version(store, "digits", 3)
    release_version(store, "digits", 99)
    assert find_bundle(store, "digits@3").version == 3


def test_models_are_listed_by_name_and_number(tmp_path: Path) -> None:
    for name in ("mnist", *["digits"] * 11):
        register(tmp_path, name)
    promote_version(tmp_path, "digits", 10, "champion")
    (tmp_path / "models/.hidden").mkdir()
    (tmp_path / "models/notes.txt").write_text("by hand")
    listed = [(model.name, model.version, model.aliases) for model in versions_in(tmp_path)]
    digits = [("digits", number, ("champion",) if number == 10 else ()) for number in range(1, 12)]
    assert listed == [*digits, ("mnist", 1, ())]


def test_an_empty_store_lists_nothing(tmp_path: Path) -> None:
    assert list_models(tmp_path) == []
    with pytest.raises(RequestError, match="contains none"):
        find_bundle(tmp_path, "digits@1")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_found_by_alias_version_and_folder(store: Path) -> None:
    promote_version(store, "digits", 2, "champion")
    promote_version(store, "digits", 3, "candidate-b")
    second = find_bundle(store, "digits@2")
    assert find_bundle(store, "digits@champion") == second
    assert find_bundle(store, str(second.folder)) == second
    assert find_bundle(store, "digits@candidate-b").version == 3
    shown = show_model(store, "digits@champion")
    assert (shown.version, shown.aliases) == (2, ("champion",))
    assert shown.metrics["test"]["accuracy"] == 0.9


def test_a_bundle_is_found_in_a_folder_with_an_at_sign_in_its_path(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "me@work" / "bundle", "digits", 1, 0.9)
    assert find_bundle(tmp_path, str(made.folder)) == made


@pytest.mark.parametrize(
    "reference",
    [
        "digits@4",
        "digits@0",
        "digits@-1",
        "digits@nobody",
        "digits@",
        "digits",
        "nothing@1",
        "no/such/folder",
        "../models/digits@1",
        "@",
        "digits@1@1",
    ],
)
def test_an_unknown_reference_lists_the_existing_models(reference: str, store: Path) -> None:
    promote_version(store, "digits", 2, "champion")
    for find in (find_bundle, show_model):
        with pytest.raises(RequestError) as caught:
            find(store, reference)
        assert int(caught.value.exit_code) == 2
        assert repr(reference) in str(caught.value)
        for known in ("digits@1", "digits@champion", "digits@2", "digits@3"):
            assert known in str(caught.value)


def test_a_folder_that_is_not_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"has no manifest\.json"):
        find_bundle(tmp_path, str(tmp_path))
    with publishing(tmp_path / "table", {"kind": "prediction-table"}) as staging:
        (staging / "predictions.csv").write_text("image_path\n")
    with pytest.raises(RequestError, match="prediction-table"):
        find_bundle(tmp_path, str(tmp_path / "table"))


@pytest.mark.parametrize("name", NEEDED_TO_SCORE)
def test_a_damaged_bundle_is_refused(name: str, store: Path) -> None:
    path = store / "models/digits/2" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(WorkError, match=re.escape(name)) as caught:
        find_bundle(store, "digits@2")
    assert int(caught.value.exit_code) == 1
    path.unlink()
    with pytest.raises(WorkError, match=re.escape(name)):
        find_bundle(store, "digits@2")
    assert find_bundle(store, "digits@1").version == 1


def test_rollback_follows_the_history_to_its_start(store: Path) -> None:
    for version in (1, 3, 2, 2, 3):
        promote_version(store, "digits", version, "champion")
        assert aliases_of(store, "digits") == {"champion": version}
    assert [rollback_alias(store, "digits", "champion") for _ in range(3)] == [2, 3, 1]
    assert aliases_of(store, "digits") == {"champion": 1}
    with pytest.raises(RequestError, match="digits@champion has no earlier version"):
        rollback_alias(store, "digits", "champion")
    assert aliases_of(store, "digits") == {"champion": 1}


def test_promotion_after_a_rollback_continues_the_history(store: Path) -> None:
    for version in (1, 2):
        promote_version(store, "digits", version, "champion")
    rollback_alias(store, "digits", "champion")
    promote_version(store, "digits", 3, "champion")
    assert rollback_alias(store, "digits", "champion") == 1


def test_aliases_are_independent(store: Path) -> None:
    for version in (1, 2):
        promote_version(store, "digits", version, "champion")
        promote_version(store, "digits", version + 1, "candidate")
    assert rollback_alias(store, "digits", "candidate") == 2
    assert aliases_of(store, "digits") == {"champion": 2, "candidate": 2}


def test_rollback_skips_removed_versions(store: Path) -> None:
    for version in (1, 2, 3):
        promote_version(store, "digits", version, "champion")
    shutil.rmtree(store / "models/digits/2")
    assert rollback_alias(store, "digits", "champion") == 1


def test_rollback_never_returns_the_current_version(store: Path) -> None:
    for version in (1, 2, 1):
        promote_version(store, "digits", version, "champion")
    shutil.rmtree(store / "models/digits/2")
    with pytest.raises(RequestError, match="no earlier version"):
        rollback_alias(store, "digits", "champion")


@pytest.mark.parametrize(("name", "alias"), [("nothing", "champion"), ("digits", "nobody")])
def test_rollback_of_an_unknown_model_or_alias(name: str, alias: str, store: Path) -> None:
    with pytest.raises(RequestError, match=f"{name}@{alias}"):
        rollback_alias(store, name, alias)
    assert not (store / "models/nothing").exists()


@pytest.mark.parametrize(("name", "version"), [("digits", 4), ("digits", 0), ("nothing", 1), ("..", 1)])
def test_a_missing_version_is_not_promoted(name: str, version: int, store: Path) -> None:
    with pytest.raises(RequestError, match=r"digits@1, digits@2, digits@3"):
        promote_version(store, name, version, "champion")
    assert aliases_of(store, "digits") == {}


@pytest.mark.parametrize(
    "alias", ["Champion", "", "1", "42", "a b", "../x", "a@b", "-a", "a\n", "é", "a" * 64, "a/b"]
)
def test_an_invalid_alias_is_refused(alias: str, store: Path) -> None:
    with pytest.raises(RequestError, match="alias"):
        promote_version(store, "digits", 1, alias)
    assert aliases_of(store, "digits") == {}


def test_the_aliases_file_is_replaced_without_leftovers(store: Path) -> None:
    promote_version(store, "digits", 1, "champion")
    promote_version(store, "digits", 2, "champion")
    visible = {path.name for path in (store / "models/digits").iterdir() if path.name[0] != "."}
    assert visible == {"1", "2", "3", "aliases.json", "log"}
    assert aliases_file(store)["aliases"] == {"champion": 2}
    assert aliases_file(store)["history"] == {"champion": [1]}


def reserve_many(store: Path, barrier: Barrier, result: Path) -> None:
    barrier.wait()
    versions = [reserve_version(store, "digits") for _ in range(RESERVATIONS)]
    result.write_text(json.dumps(versions))
    barrier.wait()  # A reserved number without a version is released when its process ends.


def promote_many(store: Path, barrier: Barrier, own: str, version: int) -> None:
    barrier.wait()
    change_own_alias(store, own)
    for _ in range(ROUNDS):
        promote_version(store, "digits", version, "champion")


def change_own_alias(store: Path, alias: str) -> None:
    for number in range(ROUNDS):
        promote_version(store, "digits", number % 3 + 1, alias)
        if number % 4 == 3:
            rollback_alias(store, "digits", alias)


def at_once(
    function: Callable[..., None], arguments: list[tuple[object, ...]], meanwhile: Callable[[], None]
) -> None:
    """Run a function in several spawned processes at the same time, one for each element of `arguments`."""
    barrier = SPAWN.Barrier(len(arguments))
    processes = [SPAWN.Process(target=function, args=(own[0], barrier, *own[1:])) for own in arguments]
    try:
        for process in processes:
            process.start()
        meanwhile()
        while any(process.is_alive() for process in processes):
            meanwhile()
    finally:
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_two_processes_never_reserve_the_same_version(tmp_path: Path) -> None:
    answers = [tmp_path / "first.json", tmp_path / "second.json"]
    at_once(reserve_many, [(tmp_path / "store", result) for result in answers], lambda: None)
    versions = [version for result in answers for version in json.loads(result.read_text())]
    assert sorted(versions) == list(range(1, 2 * RESERVATIONS + 1))


def test_two_processes_can_move_aliases_while_readers_see_complete_files(store: Path) -> None:
    promote_version(store, "digits", 3, "champion")
    seen: list[int] = []

    def read() -> None:
        seen.append(aliases_file(store)["aliases"]["champion"])
        assert find_bundle(store, "digits@champion").version in (1, 2, 3)

    at_once(promote_many, [(store, "first", 1), (store, "second", 2)], read)
    assert set(seen) <= {1, 2, 3}
    content = aliases_file(store)
    together = {
        alias: (content["aliases"][alias], content["history"].get(alias, [])) for alias in content["aliases"]
    }
    for alias in ("first", "second"):
        change_own_alias(store, f"{alias}-alone")
        alone = aliases_file(store)
        assert together[alias] == (alone["aliases"][f"{alias}-alone"], alone["history"][f"{alias}-alone"])
    current, history = together["champion"]
    moves = [*history, current]
    assert moves[0] == 3
    assert set(moves[1:]) == {1, 2}
    assert all(before != after for before, after in pairwise(moves))
