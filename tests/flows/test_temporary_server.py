"""The temporary Prefect server of a command: it ends with the command, and its errors never block."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pixelmill.flows.prefect_database import require_database
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.registry import show_model
from tests.conftest import PIXELMILL, Run, start_interruptible
from tests.flows.test_command_line import refused

SECONDS_TO_END = 60


# The Python API runs on a server of the same kind as the commands.
PROGRAM = """
import pathlib, sys, pixelmill

if __name__ == "__main__":
    store = pathlib.Path(sys.argv[1])
    promotion = pixelmill.retrain("digits", ["training.epochs=6", "promotion.min_accuracy=0"], store)
    (store / "promotion").write_text(f"{promotion.name} {promotion.version} {promotion.alias}")
"""


@contextmanager
def training(command: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A command that has started training."""
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
    settings = ["--store", str(tmp_path / "store"), "--set", "training.epochs=10000"]
    with training([str(PIXELMILL), "retrain", "digits", *settings], prefect) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        assert server_of(process) in family
        process.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=SECONDS_TO_END)
    assert alive == []


def test_a_server_that_dies_is_restarted_and_the_run_completes(
    prefect: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    program = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "store")]
    with training(program, prefect) as process:
        server_of(process).kill()
        assert process.stderr is not None
        errors = process.stderr.read()
        assert process.wait() == 0, errors
    assert "prefect   the server died with exit code -9 and is restarted" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "store/promotion").read_text() == "digits 1 champion"
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


def damaged(path: Path, damage: str) -> Path:
    """A database that cannot be read."""
    write_database(path, "ffffffffffff")
    content = bytearray(path.read_bytes())
    if damage == "no database":
        content = bytearray(b"something else entirely, " * 100)
    else:
        start = 0 if damage == "head" else 4096
        content[start : start + 4096] = os.urandom(4096)
    path.write_bytes(content)
    return path


def test_a_damaged_database_is_one_line(prefect: dict[str, str], run: Run, tmp_path: Path) -> None:
    database = damaged(tmp_path / "prefect/prefect.db", "head")
    result = run("retrain", "digits", cwd=tmp_path, env=prefect)
    refused(result, 1, str(database), "is damaged", "PREFECT_HOME=")
    assert len(result.errors.strip().splitlines()) == 1


@pytest.mark.parametrize("damage", ["head", "middle", "no database"])
def test_any_damage_of_a_database_is_noticed(tmp_path: Path, damage: str) -> None:
    database = damaged(tmp_path / "prefect/prefect.db", damage)
    with pytest.raises(WorkError, match=r"prefect\.db is damaged .* PREFECT_HOME="):
        require_database(f"sqlite+aiosqlite:///{database}")
