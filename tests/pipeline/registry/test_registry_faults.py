"""The registry with damaged, forged or foreign bundles, and with killed and concurrent processes."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pixelmill.pipeline.artifacts import MANIFEST, read_json, write_json
from pixelmill.pipeline.bundles import METRICS_FILE, ONNX_FILE, PARITY_FILE
from pixelmill.pipeline.errors import PixelmillError, RequestError, WorkError
from pixelmill.pipeline.registry import (
    DamagedVersion,
    ModelVersion,
    aliases_of,
    find_bundle,
    find_version,
    list_models,
    promote_version,
    reserve_version,
    rollback_alias,
    show_model,
)
from tests.conftest import Run, update_manifest
from tests.pipeline.registry.bundles import register, write_bundle

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with `digits@1` to `digits@3` and no alias."""
    for _ in range(3):
        register(tmp_path)
    return tmp_path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def forge(folder: Path, **facts: object) -> None:
    write_json(folder / MANIFEST, {**read_json(folder / MANIFEST), **facts})


def start(program: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


ROLLBACK = """
import pathlib, sys
from pixelmill.pipeline.registry import rollback_alias
described = []
def tell(event, arguments):
    if event == "fcntl.flock" and not described:
        described.append(event)
        print("waits for the lock", flush=True)
sys.addaudithook(tell)
print(rollback_alias(pathlib.Path(sys.argv[1]), "digits", "champion"), flush=True)
"""


def test_a_waiting_rollback_sees_versions_registered_meanwhile(tmp_path: Path) -> None:
    register(tmp_path)
    promote_version(tmp_path, "digits", 1, "champion")
    folder = tmp_path / "models/digits"
    with FileLock(folder / ".aliases.lock"):
        process = start(ROLLBACK, tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits for the lock\n"
        register(tmp_path)
        register(tmp_path)
        pointing = {"aliases": {"champion": 3}, "history": {"champion": [1, 2]}}
        (folder / "aliases.json").write_text(json.dumps(pointing))
    result, _ = process.communicate()
    assert result == "2\n"
    assert aliases_of(tmp_path, "digits") == {"champion": 2}


def test_rollback_skips_a_damaged_version_and_reports_it(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 2, 3):
        promote_version(store, "digits", version, "champion")
    damage(store / "models/digits/2" / ONNX_FILE)
    with caplog.at_level(logging.WARNING):
        assert rollback_alias(store, "digits", "champion") == 1
    assert "digits@2 is skipped" in caplog.text
    assert "has SHA-256" in caplog.text


def test_rollback_with_only_damaged_versions_changes_nothing(store: Path) -> None:
    for version in (1, 2):
        promote_version(store, "digits", version, "champion")
    damage(store / "models/digits/1" / ONNX_FILE)
    before = (store / "models/digits/aliases.json").read_bytes()
    with pytest.raises(RequestError, match="no earlier version"):
        rollback_alias(store, "digits", "champion")
    assert (store / "models/digits/aliases.json").read_bytes() == before


@pytest.mark.parametrize("name", [ONNX_FILE, METRICS_FILE, PARITY_FILE])
def test_a_damaged_version_is_not_promoted(name: str, store: Path) -> None:
    promote_version(store, "digits", 1, "champion")
    damage(store / "models/digits/2" / name)
    with pytest.raises(WorkError, match="has SHA-256"):
        promote_version(store, "digits", 2, "champion")
    assert aliases_of(store, "digits") == {"champion": 1}


def test_a_version_with_an_added_file_is_not_promoted(store: Path) -> None:
    (store / "models/digits/2/model.onnx.data").write_bytes(b"other weights")
    with pytest.raises(WorkError, match=r"model\.onnx\.data, which manifest\.json does not list"):
        promote_version(store, "digits", 2, "champion")
    assert aliases_of(store, "digits") == {}


def test_a_replaced_version_is_detected(store: Path) -> None:
    shutil.rmtree(store / "models/digits/2")
    shutil.copytree(store / "models/digits/1", store / "models/digits/2")
    for read in (find_bundle, show_model):
        with pytest.raises(WorkError, match="contains digits@1"):
            read(store, "digits@2")
    with pytest.raises(WorkError, match="contains digits@1"):
        promote_version(store, "digits", 2, "champion")


def test_only_versions_in_the_store_are_found_for_promotion(store: Path, tmp_path: Path) -> None:
    theirs = write_bundle(tmp_path / "theirs/models/digits/2", "digits", 2, 0.1)
    own = store / "models/digits/2"
    (tmp_path / "link").symlink_to(own)
    for reference in ("digits@2", str(own), str(tmp_path / "link")):
        assert find_version(store, reference) == ("digits", 2)
    with pytest.raises(RequestError, match="which is not in"):
        find_version(store, str(theirs.folder))


def test_a_foreign_folder_moves_no_alias(run: Run, store: Path, tmp_path: Path) -> None:
    theirs = write_bundle(tmp_path / "theirs/models/digits/2", "digits", 2, 0.1)
    promote_version(store, "digits", 1, "champion")
    result = run("models", "promote", theirs.folder, "--store", store)
    assert result.code == 2
    assert str(theirs.folder) in result.last_error
    assert "--store" in result.last_error
    assert aliases_of(store, "digits") == {"champion": 1}
    assert run("models", "promote", store / "models/digits/2", "--store", store).code == 0
    assert aliases_of(store, "digits") == {"champion": 2}


def test_modified_results_are_refused(store: Path) -> None:
    path = store / "models/digits/2" / METRICS_FILE
    write_json(path, {"test": {"accuracy": 1.0, "loss": 0.0, "images": 10_000}})
    with pytest.raises(WorkError, match=METRICS_FILE):
        show_model(store, "digits@2")
    update_manifest(store / "models/digits/2")
    assert show_model(store, "digits@2").metrics["test"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        {},
        {"test": None},
        {"test": {"accuracy": "1.0"}},
        {"test": {"accuracy": 7}},
        {"test": {"accuracy": float("nan"), "loss": 0.1, "images": 1}},
        {"test": {"accuracy": 0.9, "loss": None, "images": 1}},
        {"test": {"accuracy": 0.9, "loss": 0.1, "images": 1, "balanced_accuracy": 0.9}},
    ],
)
def test_malformed_results_are_one_line(metrics: object, store: Path) -> None:
    write_json(store / "models/digits/2" / METRICS_FILE, metrics)
    update_manifest(store / "models/digits/2")
    with pytest.raises(WorkError, match=r"metrics\.json is malformed"):
        show_model(store, "digits@2")


@pytest.mark.parametrize(
    "facts",
    [
        {"name": 1},
        {"name": ""},
        {"version": "2"},
        {"version": True},
        {"version": -1},
        {"created_at": None},
        {"opset": "seventeen"},
        {"licence": ["CC-BY-4.0"]},
        {"recipe": "digits"},
        {"files": {ONNX_FILE: {"sha256": "0" * 64, "size": 2**50}}},
    ],
    ids=str,
)
def test_a_manifest_with_a_wrong_type_is_one_line(facts: dict[str, Any], store: Path) -> None:
    forge(store / "models/digits/2", **facts)
    with pytest.raises(RequestError, match=r"manifest\.json is malformed"):
        find_bundle(store, "digits@2")
    assert [entry.version for entry in list_models(store) if isinstance(entry, DamagedVersion)] == [2]


def as_fifo(folder: Path) -> None:
    (folder / METRICS_FILE).unlink()
    os.mkfifo(folder / METRICS_FILE)


def as_text(folder: Path) -> None:
    (folder / MANIFEST).write_text("not JSON")


def as_list(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


def without_results(folder: Path) -> None:
    (folder / METRICS_FILE).unlink()


@pytest.mark.parametrize("harm", [as_fifo, as_text, as_list, without_results])
def test_one_damaged_version_does_not_hide_the_others(harm: Callable[[Path], None], store: Path) -> None:
    harm(store / "models/digits/2")
    first, second, third = list_models(store)
    assert isinstance(first, ModelVersion)
    assert isinstance(second, DamagedVersion)
    assert isinstance(third, ModelVersion)
    assert len(second.error.splitlines()) == 1
    assert str(second.folder) in second.error


def test_the_list_shows_damaged_versions_with_exit_code_1(run: Run, store: Path) -> None:
    promote_version(store, "digits", 2, "champion")
    as_fifo(store / "models/digits/2")
    result = run("models", "list", "--store", store)
    assert result.code == 1
    assert len(result.errors.strip().splitlines()) == 1
    assert "1 of 3 entries" in result.last_error
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == ["digits@1", "digits@2", "digits@3"]
    assert "champion, damaged: " in lines[1]
    assert "accuracy 0.9000" in lines[2]
    described = run("models", "list", "--store", store, "--json").json["models"]
    assert [entry["error"] is None for entry in described] == [True, False, True]
    assert (described[1]["version"], described[1]["aliases"]) == (2, ["champion"])


def test_unreadable_aliases_do_not_hide_the_versions(store: Path) -> None:
    promote_version(store, "digits", 1, "champion")
    (store / "models/digits/aliases.json").write_text("[]")
    listed = list_models(store)
    assert isinstance(listed[0], DamagedVersion)
    assert "aliases.json" in listed[0].error
    assert [entry.version for entry in listed] == [None, 1, 2, 3]


def test_a_model_that_was_trained_elsewhere_is_listed(run: Run, store: Path) -> None:
    folder = store / "models/digits/2"
    write_json(folder / METRICS_FILE, {"test": {"accuracy": None, "loss": None, "images": 4}})
    update_manifest(folder)
    result = run("models", "list", "--store", store)
    assert result.code == 0, result.errors
    assert "accuracy unknown" in result.output.splitlines()[1]


def test_control_characters_in_a_manifest_are_escaped(run: Run, store: Path) -> None:
    folder = store / "models/digits/2"
    forge(folder, created_at="\x1b[2Jtoday\u202e", run_id="a\nb\x07")
    shown = run("models", "show", "digits@2", "--store", store)
    assert shown.code == 0, shown.errors
    listed = run("models", "list", "--store", store)
    forge(folder, kind="\x1b]0;owned\x07")
    refused = run("verify", folder)
    assert refused.code == 2
    for text in (shown.output, listed.output, refused.errors):
        assert not {"\x1b", "\u202e", "\x07"} & set(text)
    assert r"\x1b[2Jtoday\u202e" in shown.output
    assert r"\x1b[2Jtoday\u202e" in listed.output.splitlines()[1]
    assert r"\x1b]0;owned\x07" in refused.last_error


RESERVE = """
import pathlib, sys
from pixelmill.pipeline.registry import reserve_version
print(reserve_version(pathlib.Path(sys.argv[1]), "digits"), flush=True)
sys.stdin.read()
"""


def test_a_number_is_reserved_only_while_its_process_runs(
    store: Path,
) -> None:
    process = start(RESERVE, store)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "4\n"
        assert reserve_version(store, "digits") == 5
        assert (store / "models/digits/4").is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert reserve_version(store, "digits") == 6
    assert not (store / "models/digits/4").exists()
    assert (store / "models/digits/5").is_dir()
    register(store)
    hidden = [path.name for path in (store / "models/digits").iterdir() if path.name.endswith("-tmp")]
    assert len(hidden) == 2, "one for each number that this process has set aside"


def test_a_folder_with_a_user_file_is_kept_when_its_reservation_is_released(store: Path) -> None:
    process = start(RESERVE, store)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "4\n"
        process.kill()
    (store / "models/digits/4/notes.txt").write_text("by hand")
    assert reserve_version(store, "digits") == 5
    assert (store / "models/digits/4/notes.txt").read_text() == "by hand"


@pytest.mark.parametrize("name", ["\u0661", "007", "9" * 200, "9" * 5000, "0", "-1", "1.0"], ids=ascii)
def test_other_folders_are_not_versions(name: str, store: Path) -> None:
    if len(name) < 255:
        shutil.copytree(store / "models/digits/1", store / "models/digits" / name)
    assert [entry.version for entry in list_models(store)] == [1, 2, 3]
    with pytest.raises(PixelmillError):
        find_bundle(store, f"digits@{name}")
