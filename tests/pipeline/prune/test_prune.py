"""Pruning: what is listed goes, what an alias, a rollback or a running job needs stays."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.artifacts import new_run_id, read_json, write_json, write_text
from pixelmill.pipeline.prune import Candidate, PruneRequest
from pixelmill.pipeline.prune.prune import find_candidates, remove_candidates
from pixelmill.pipeline.prune.versions import needed_versions
from pixelmill.pipeline.registry import (
    aliases_of,
    find_bundle,
    promote_version,
    read_log,
    register_bundle,
    reserve_version,
    rollback_alias,
)
from pixelmill.pipeline.registry.pending import mark_judged
from pixelmill.pipeline.registry.places import version_numbers
from pixelmill.pipeline.runs import begin_run
from pixelmill.pipeline.status import size_below
from pixelmill.pipeline.storage import Location, parse_location
from pixelmill.pipeline.storage.temporaries import HeldFile, temporary_sibling
from tests.pipeline.promotion.versions import register, write_version
from tests.s3 import S3Server, s3_server

NOW = timedelta(0)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True, scope="module")
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for temporary files that no other program uses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("tmp")))
        yield


def prune(store: Location, keep: int = 1) -> list[Candidate]:
    """List, remove, and check that exactly what was listed is gone; returns the list."""
    request = PruneRequest(store, keep, NOW)
    listed = find_candidates(request)
    assert remove_candidates(request, listed) == listed
    assert [path for candidate in listed for path in candidate.paths if path.exists()] == []
    assert find_candidates(request) == []
    return listed


def register_judged(store: Path) -> int:
    """Register a version that the gate has refused."""
    version = register(store, [0, 1, 2]).version
    mark_judged(store, "pets", version)
    return version


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_listing_removes_nothing(tmp_path: Path) -> None:
    for _ in range(3):
        register_judged(tmp_path)
    before = everything_below(tmp_path)
    listed = find_candidates(PruneRequest(tmp_path, 1, NOW))
    assert [candidate.name for candidate in listed if candidate.kind == "version"] == ["pets@1", "pets@2"]
    assert everything_below(tmp_path) == before


def test_thirty_retrainings_stay_under_a_limit(trained_store: Path, tmp_path: Path) -> None:
    """Each leaves a version and the folder of its run; every second one is promoted.

    They are copies of one retraining, since thirty would take half an hour, and what a version and a run hold
    does not depend on the weights. What a change of the data adds, which copies lack, is in the next test.
    """
    store = tmp_path / "store"
    shutil.copytree(trained_store, store)
    (store / "models").rename(tmp_path / "models")
    (run,) = (store / "runs").glob("*-digits-*")
    for number in range(1, 31):
        made = new_run_id("digits")
        shutil.copytree(run, store / "runs" / made)
        bundle = store / "models/digits" / str(number)
        shutil.copytree(tmp_path / "models/digits/1", bundle)
        write_json(
            bundle / "manifest.json",
            {**read_json(bundle / "manifest.json"), "version": number, "run_id": made},
        )
        if number % 2:
            promote_version(store, "digits", number, "champion")
    one = size_below(tmp_path / "models/digits/1") + size_below(run)
    prune(store, keep=3)
    # The three newest, and the three last champions that are older than those.
    assert version_numbers(store, "digits") == [23, 25, 27, 28, 29, 30]
    assert size_below(store / "models") + size_below(store / "runs") < 10 * one
    assert find_bundle(store, "digits@champion").version == 29
    assert rollback_alias(store, "digits", "champion") == 27
    # The dataset that they were trained on, and its tensors, are needed to export them again.
    assert list((store / "datasets").glob("digits-*"))
    assert list((store / "tensors").glob("*/*.npy"))


RETRAININGS = 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_retrainings_with_changed_data_leave_nothing_behind(tmp_path: Path) -> None:
    store = tmp_path / "store"
    program = [sys.executable, "-m", "tests.pipeline.prune.retrainings"]
    subprocess.run([*program, store, tmp_path / "images", str(RETRAININGS)], cwd=ROOT, check=True)
    assert version_numbers(store, "pets") == [*range(1, RETRAININGS + 1)]
    before = {kind: count(store, kind) for kind in PER_RETRAINING}
    assert before == dict.fromkeys(PER_RETRAINING, RETRAININGS)
    listed = prune(store, keep=1)
    assert find_bundle(store, "pets@champion").version in version_numbers(store, "pets")
    # The newest of each, and what a version needs that an alias can be rolled back to.
    kept = len(version_numbers(store, "pets"))
    assert kept <= 3
    assert {kind: count(store, kind) <= kept for kind in PER_RETRAINING} == dict.fromkeys(
        PER_RETRAINING, True
    )
    assert {candidate.kind for candidate in listed} >= {"version", "run", "dataset", "catalogue"}
    # The next one finds its images decoded, and their splits decided.
    subprocess.run([*program, store, tmp_path / "images", "1"], cwd=ROOT, check=True)
    assert version_numbers(store, "pets")[-1] == RETRAININGS + 1


# What each retraining with other data adds to a store.
PER_RETRAINING = {
    "versions": "models/pets/[0-9]*",
    "runs": "runs/*-pets-*",
    "datasets": "datasets/folder-*",
    "catalogues": "downloads/catalogues/*.parquet",
}


def count(store: Path, kind: str) -> int:
    return len(list(store.glob(PER_RETRAINING[kind])))


@settings(max_examples=8, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["promote", "rollback", "refuse", "pending"]), st.integers(1, 6)),
        max_size=8,
    ),
    keep=st.integers(1, 3),
)
def test_what_an_alias_or_a_rollback_needs_stays(
    moves: list[tuple[str, int]], keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = tmp_path_factory.mktemp("store")
    for _ in range(6):
        register_judged(store)
    for move, version in moves:
        if move == "promote":
            promote_version(store, "pets", version, "champion" if version % 2 else "canary")
        elif move == "rollback" and len(history(store)) > 1:
            rollback_alias(store, "pets", "champion")
        elif move == "pending":
            write_text(store / "models/pets/.pending" / str(version), "")
    (store / "splits/pets").mkdir(parents=True)
    (store / "splits/pets/00000001.parquet").write_bytes(b"a record")
    needed = needed_versions(store, "pets", keep)
    log, aliases = read_log(store, "pets"), aliases_of(store, "pets")
    removed = {int(each.name.split("@")[1]) for each in prune(store, keep) if each.kind == "version"}
    assert removed == set(range(1, 7)) - needed
    assert read_log(store, "pets") == log
    assert aliases_of(store, "pets") == aliases
    assert (store / "splits/pets/00000001.parquet").is_file()
    for alias, version in aliases.items():
        assert find_bundle(store, f"pets@{alias}").version == version
    past = history(store)
    if len(past) > 1:
        assert rollback_alias(store, "pets", "champion") == past[-2]
    # What the removed versions were is still known, and their numbers are never used again.
    for version in removed:
        record = read_json(store / f"models/pets/removed/{version:08d}.json")
        assert record["manifest"]["version"] == version
    assert reserve_version(store, "pets") == 7


def history(store: Path) -> list[int]:
    """The versions that the champion has been, the current one last, without those rolled back."""
    past: list[int] = []
    for entry in read_log(store, "pets"):
        if entry.alias == "champion" and entry.action == "promoted":
            past.append(entry.to)
        elif entry.alias == "champion" and entry.action == "rolled back":
            past.pop()
    # A version that was promoted twice is one step back at most.
    return [version for index, version in enumerate(past) if version not in past[index + 1 :]]


def test_a_version_that_another_process_uses_stays(tmp_path: Path) -> None:
    for _ in range(3):
        register_judged(tmp_path)
    used = tmp_path / "models/pets/1"
    program = (
        "import sys; from pathlib import Path; from pixelmill.pipeline.registry.use import keep_in_use\n"
        f"keep_in_use(Path({str(used)!r})); print('held', flush=True); sys.stdin.read()"
    )
    request = PruneRequest(tmp_path, 1, NOW)
    before = find_candidates(request)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        # Neither a new list nor an old one removes it.
        assert "pets@1" not in {candidate.name for candidate in find_candidates(request)}
        assert "pets@1" not in {candidate.name for candidate in remove_candidates(request, before)}
        assert used.is_dir()
        process.communicate("")
    assert [candidate.name for candidate in prune(tmp_path) if candidate.kind == "version"] == ["pets@1"]


def test_a_version_that_is_promoted_after_the_listing_stays(tmp_path: Path) -> None:
    for _ in range(3):
        register_judged(tmp_path)
    request = PruneRequest(tmp_path, 1, NOW)
    listed = [candidate for candidate in find_candidates(request) if candidate.kind == "version"]
    promote_version(tmp_path, "pets", 1, "champion")
    assert [candidate.name for candidate in remove_candidates(request, listed)] == ["pets@2"]


def test_working_files_stay_while_a_retraining_is_at_work(tmp_path: Path) -> None:
    old = tmp_path / "runs/20200101T000000Z-pets-0a1b2c"
    old.mkdir(parents=True)
    newer = tmp_path / "runs/20200102T000000Z-pets-0a1b2c"
    newer.mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/pets-0123456789abcdef.npz").write_bytes(b"x")
    request = PruneRequest(tmp_path, 1, NOW)
    listed = find_candidates(request)
    assert {candidate.kind for candidate in listed} == {"run", "checkpoint"}
    begin_run(tmp_path, "pets")
    assert find_candidates(request) == []
    assert remove_candidates(request, listed) == []
    assert old.is_dir()


def test_features_that_no_run_has_used_for_long_go(tmp_path: Path) -> None:
    for name in ("MobileNetV2-0123456789abcdef", "MobileNetV2-fedcba9876543210"):
        (tmp_path / "features" / name).mkdir(parents=True)
        (tmp_path / "features" / name / "train-00000.npy").write_bytes(b"x" * 100)
    old, used = sorted((tmp_path / "features").iterdir())
    os.utime(old, (0, 0))
    request = PruneRequest(tmp_path, 1, timedelta(days=1))
    listed = find_candidates(request)
    assert [(each.kind, each.name, each.size) for each in listed] == [("features", old.name, 100)]
    assert remove_candidates(request, listed) == listed
    assert (old.exists(), used.exists()) == (False, True)


def test_catalogues_go_except_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "downloads/catalogues"
    folder.mkdir(parents=True)
    for moment, name in enumerate(("b", "c", "a")):
        path = folder / f"{name}.parquet"
        path.write_bytes(b"x")
        os.utime(path, (moment, moment))
    listed = prune(tmp_path)
    assert [(each.kind, each.name) for each in listed] == [
        ("catalogue", "b.parquet"),
        ("catalogue", "c.parquet"),
    ]
    assert [path.name for path in folder.iterdir()] == ["a.parquet"]


def test_temporary_files_go_only_once_their_process_has_ended(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    left = temporary_sibling(tmp_path / "runs/old")
    left.write_text("left by a killed process")
    held = HeldFile.beside(tmp_path / "runs/new")
    try:
        listed = [
            each for each in find_candidates(PruneRequest(tmp_path)) if tmp_path in each.paths[0].parents
        ]
        assert [candidate.paths for candidate in listed] == [(left,)]
    finally:
        held.remove()


def test_the_leftovers_of_interrupted_tables_go_and_the_tables_stay(tmp_path: Path) -> None:
    for name in ("run_date=2026-11-24", "run_date=2026-11-25"):
        (tmp_path / "tables" / name / ".pixelmill/parts").mkdir(parents=True)
        (tmp_path / "tables" / name / "predictions").mkdir()
    request = PruneRequest(tmp_path / "store", 1, NOW, outputs=(tmp_path / "tables",))
    listed = find_candidates(request)
    assert {candidate.kind for candidate in listed} == {"table leftover"}
    assert remove_candidates(request, listed) == listed
    assert sorted(path.name for path in (tmp_path / "tables").rglob("*")) == [
        *["predictions"] * 2,
        "run_date=2026-11-24",
        "run_date=2026-11-25",
    ]


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server() as server, server.bucket("bucket"):
        yield server


def test_versions_in_an_object_store(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    store = parse_location("s3://bucket/store")
    for number in range(1, 5):
        version = reserve_version(store, "pets")
        bundle = write_version(tmp_path / "local", [0, 1, 2], version)
        register_bundle(store, bundle)
        mark_judged(store, "pets", number)
    promote_version(store, "pets", 1, "champion")
    promote_version(store, "pets", 2, "champion")
    # Promotion has verified copies of both; those of removed versions go as well.
    find_bundle(store, "pets@3")
    listed = prune(store)
    assert [(each.kind, each.name) for each in listed] == [("version", "pets@3"), ("bundle copy", "pets@3")]
    assert version_numbers(store, "pets") == [1, 2, 4]
    assert not [key for key in s3.keys("bucket", "store") if "/pets/3/" in key]
    assert find_bundle(store, "pets@champion").version == 2
    assert rollback_alias(store, "pets", "champion") == 1
