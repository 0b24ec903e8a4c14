"""The folders of retraining runs: those of killed runs are removed, and all others are kept."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pixelmill.pipeline.artifacts import publishing, temporary_sibling
from pixelmill.pipeline.registry import register_bundle, reserve_version
from pixelmill.pipeline.runs import begin_run, remove_abandoned
from tests.conftest import update_manifest
from tests.pipeline.registry.bundles import register, write_bundle
from tests.pipeline.registry.test_registry_faults import forge

ROOT = Path(__file__).parents[2]
RUN = """
import pathlib, sys
from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.runs import begin_run
run = begin_run(pathlib.Path(sys.argv[1]), "digits")
with scratch_folder("held-out", run) as images, scratch_folder("upload") as upload:
    (run / "training").mkdir()
    (run / "training/model.keras").write_text("a model")
    (images / "0.png").write_text("an image")
    print(run, upload, flush=True)
    sys.stdin.read()
"""


@contextmanager
def run_at_work(store: Path) -> Iterator[tuple["subprocess.Popen[str]", Path, Path]]:
    """Another process during a run, the folder of the run, and a scratch folder elsewhere."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(store)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        run, upload = process.stdout.readline().split()
        try:
            yield process, Path(run), Path(upload)
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_running_run_is_kept_and_a_killed_one_is_removed(tmp_path: Path) -> None:
    with run_at_work(tmp_path / "store") as (process, run, upload):
        other = begin_run(tmp_path / "store", "digits")
        assert (run / "training/model.keras").is_file()
        assert upload.is_dir()
        process.kill()
        process.wait()
        third = begin_run(tmp_path / "store", "mnist")
        assert not run.exists()
        assert not upload.exists()
        assert other.is_dir()
        assert third.is_dir()


def test_a_finished_run_is_kept(tmp_path: Path) -> None:
    with run_at_work(tmp_path / "store") as (process, run, upload):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
        remove_abandoned(tmp_path / "store")
        assert [path.name for path in run.iterdir()] == ["training"]
        assert not upload.exists()


def test_a_killed_run_whose_model_is_registered_keeps_its_results(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with run_at_work(store) as (process, run, _):
        bundle = write_bundle(tmp_path / "bundle", "digits", reserve_version(store, "digits"), 0.9)
        forge(bundle.folder, run_id=run.name)
        update_manifest(bundle.folder)
        register_bundle(store, bundle)
        process.kill()
        process.wait()
        remove_abandoned(store)
        assert [path.name for path in run.iterdir()] == ["training"]


def test_files_that_are_not_ours_are_kept(tmp_path: Path) -> None:
    store = tmp_path / "store"
    register(store)
    with publishing(store / "datasets/digits-0a", {}):
        pass
    stale = [
        temporary_sibling(store / place)
        for place in ("runs/x", "datasets/digits-0b", "checkpoints/digits.npz", "models/digits/2")
    ]
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text("left by a killed process")
    (store / "runs/20250101T000000Z-digits-000000").mkdir()
    users = [store / "runs/notes.txt", store / "models/digits/.notes.tmp", store / "datasets/.x.tmp"]
    users += [tmp_path / "tmp/.thesis.tmp", tmp_path / "tmp/thesis.pixelmill-tmp"]
    for path in users:
        path.write_text("a year of work")
    before = set(tmp_path.rglob("*"))
    remove_abandoned(store)
    assert set(tmp_path.rglob("*")) == before - set(stale)


def test_a_missing_store_is_created_by_the_first_run(tmp_path: Path) -> None:
    run = begin_run(tmp_path / "new store", "digits")
    assert run.parent == tmp_path / "new store/runs"
    assert "-digits-" in run.name
