"""The temporary Prefect server of a command: it ends with the command, and its errors never block."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pixelmill.pipeline.registry import show_model
from tests.conftest import PIXELMILL, Run, start_interruptible
from tests.flows.test_command_line import refused

SECONDS_TO_END = 60


@contextmanager
def training(store: Path, environment: dict[str, str], *settings: str) -> Iterator["subprocess.Popen[str]"]:
    """A `pixelmill retrain digits` that has started training."""
    options = [word for setting in settings for word in ("--set", setting)]
    command = [str(PIXELMILL), "retrain", "digits", "--store", str(store), *options]
    process = start_interruptible(command, environment)
    try:
        assert process.stderr is not None
        assert any(line.lstrip().startswith("train:") for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.wait()


def server_of(process: "subprocess.Popen[str]") -> psutil.Process:
    children = psutil.Process(process.pid).children()
    (server,) = [child for child in children if "pixelmill.flows.server_process" in child.cmdline()]
    return server


@pytest.fixture
def prefect(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment with a separate database."""
    return {**environment, "PREFECT_HOME": str(tmp_path / "prefect")}


def test_no_process_outlives_a_killed_command(prefect: dict[str, str], tmp_path: Path) -> None:
    with training(tmp_path / "store", prefect, "training.epochs=10000") as process:
        family = psutil.Process(process.pid).children(recursive=True)
        assert server_of(process) in family
        process.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=SECONDS_TO_END)
    assert alive == []


def test_a_server_that_dies_is_restarted_and_the_run_completes(
    prefect: dict[str, str], tmp_path: Path
) -> None:
    settings = ("training.epochs=12", "promotion.min_accuracy=0")
    with training(tmp_path / "store", prefect, *settings) as process:
        server_of(process).kill()
        assert process.stderr is not None
        errors = process.stderr.read()
        assert process.wait() == 0, errors
    assert "prefect   the server died with exit code -9 and is restarted" in errors
    assert "Traceback" not in errors
    assert show_model(tmp_path / "store", "digits@1").aliases == ("champion",)
    with sqlite3.connect(tmp_path / "prefect/prefect.db") as database:
        assert database.execute("SELECT name, state_name FROM flow_run").fetchall() == [
            ("retrain digits", "Completed")
        ]


def write_database(path: Path, revision: str) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("CREATE TABLE filler AS SELECT randomblob(100000) AS content")
        database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    database.close()


def test_the_database_of_a_newer_prefect_is_one_line(
    prefect: dict[str, str], run: Run, tmp_path: Path
) -> None:
    database = tmp_path / "prefect/prefect.db"
    write_database(database, "ffffffffffff")
    before = database.read_bytes()
    result = run("retrain", "digits", cwd=tmp_path, env=prefect)
    refused(result, 1, str(database), "newer Prefect", "ffffffffffff", "PREFECT_HOME=")
    assert len(result.errors.strip().splitlines()) == 1
    assert database.read_bytes() == before


@pytest.mark.parametrize("damage", ["head", "middle", "no database"])
def test_a_damaged_database_is_one_line(
    prefect: dict[str, str], run: Run, tmp_path: Path, damage: str
) -> None:
    database = tmp_path / "prefect/prefect.db"
    write_database(database, "ffffffffffff")
    content = bytearray(database.read_bytes())
    if damage == "no database":
        content = bytearray(b"something else entirely, " * 100)
    else:
        start = 0 if damage == "head" else 4096
        content[start : start + 4096] = os.urandom(4096)
    database.write_bytes(content)
    result = run("retrain", "digits", cwd=tmp_path, env=prefect)
    refused(result, 1, str(database), "is damaged", "PREFECT_HOME=")
    assert len(result.errors.strip().splitlines()) == 1
