"""Reading of a table that has been modified, and of one that is being replaced."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars
import pyarrow.dataset as ds
import pytest

from pixelmill.pipeline.artifacts import MANIFEST, read_json, write_json
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.predictions import CSV_FILE, PARTS_FOLDER, WORK_FOLDER, publication, read_predictions
from pixelmill.pipeline.predictions.columns import RunFacts
from pixelmill.pipeline.predictions.publication import exchange_folders, is_publication_pending, publish_table
from pixelmill.pipeline.storage import parse_location
from tests.pipeline.predictions.tables import FACTS, Row, Table, scored, write_manifest

COUNT = 60
OTHER = RunFacts("digits", "8", "b2" * 32, "20270131T235959Z-digits-4d5e6f", "2027-01-31T23:59:59Z")


def rows_of(count: int = COUNT) -> list[Row]:
    return [scored(f"{number:03d} é.png", (number % 3, 0.5)) for number in range(count)]


def table_of(folder: Path, facts: RunFacts = FACTS) -> Table:
    return Table(folder, rows_of(), facts=facts, rows_in_a_part=10)


def rewrite(part: Path) -> None:
    """The same part with one label changed, written like by any other program."""
    frame = pd.read_parquet(part)
    frame.loc[0, "label"] = "other"
    frame.to_parquet(part)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (lambda part: part.unlink(), r"part-00002\.parquet, which manifest\.json lists, is missing"),
    "cut": (lambda part: part.write_bytes(part.read_bytes()[:-9]), r"part-00002\.parquet has \d+ bytes"),
    "one bit": (
        lambda part: part.write_bytes(bytes([*part.read_bytes()[:99], 1, *part.read_bytes()[100:]])),
        r"part-00002\.parquet has SHA-256",
    ),
    "rewritten": (rewrite, r"part-00002\.parquet has"),
    "a neighbour": (
        lambda part: shutil.copy(part, part.with_name("part-00006.parquet")),
        r"part-00006\.parquet is not listed",
    ),
    "another program's": (
        lambda part: shutil.copy(part, part.with_name("data.parquet")),
        r"data\.parquet is not listed",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_modified_table_is_not_read(change: str, tmp_path: Path) -> None:
    alter, words = CHANGES[change]
    table = table_of(tmp_path)
    assert len(read_predictions(str(table.parquet))) == COUNT
    alter(table.parts[2])
    with pytest.raises(WorkError, match=words):
        read_predictions(table.parquet)


def test_a_part_from_another_run_is_reported(tmp_path: Path) -> None:
    table, other = table_of(tmp_path / "one"), table_of(tmp_path / "two", OTHER)
    assert table.parts[2].stat().st_size == other.parts[2].stat().st_size, "only the content tells"
    shutil.copy(other.parts[2], table.parts[2])
    with pytest.raises(WorkError, match=f"part-00002.parquet is from run {OTHER.run_id}, not from"):
        read_predictions(table.parquet)


def test_a_modified_csv_file_is_not_read(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    file = table.csv / CSV_FILE
    file.write_bytes(file.read_bytes().replace(b"cat", b"dog", 1))
    with pytest.raises(WorkError, match=r"predictions\.csv has SHA-256"):
        read_predictions(table.csv)


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {},
        {"kind": "prediction-table"},
        {"kind": "prediction-table", "files": {"a": 1}, "run": {}, "request": {}},
        {"kind": "prediction-table", "files": [], "run": {"run_id": "r"}, "request": {}},
    ],
)
def test_a_malformed_manifest_is_refused(manifest: object, tmp_path: Path) -> None:
    write_json(tmp_path / MANIFEST, manifest)
    with pytest.raises(RequestError, match="contains no prediction table"):
        read_predictions(tmp_path)


def test_other_programs_read_the_parts_as_one_data_set(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    folder = table.parquet / PARTS_FOLDER
    paths = [row.path for row in rows_of()]
    assert pd.read_parquet(folder)["image_path"].tolist() == paths
    assert ds.dataset(folder).to_table()["image_path"].to_pylist() == paths
    assert polars.read_parquet(folder)["image_path"].to_list() == paths
    query = f"select image_path from '{folder}/*.parquet'"
    assert [path for (path,) in duckdb.connect().execute(query).fetchall()] == paths


def test_other_programs_read_the_csv_file(tmp_path: Path) -> None:
    file = table_of(tmp_path).csv / CSV_FILE
    paths = [row.path for row in rows_of()]
    assert file.read_bytes().startswith(b"\xef\xbb\xbfimage_path,"), "Excel takes it for UTF-8"
    assert pd.read_csv(file)["image_path"].tolist() == paths
    assert polars.read_csv(file)["image_path"].to_list() == paths
    query = f"select image_path from '{file}'"
    assert [path for (path,) in duckdb.connect().execute(query).fetchall()] == paths


def stage(output: Path, facts: RunFacts, csv: bool = False) -> None:
    """Write a complete new table into the work folder of an output."""
    work, new = output / WORK_FOLDER, output.with_name(f"{output.name} new")
    table = table_of(new, facts)
    write_manifest(table.csv if csv else table.parquet, facts.run_id)
    work.mkdir(parents=True, exist_ok=True)
    if csv:
        (table.csv / CSV_FILE).replace(work / CSV_FILE)
    else:
        shutil.rmtree(work / "parts", ignore_errors=True)
        (table.parquet / PARTS_FOLDER).rename(work / "parts")
    ((table.csv if csv else table.parquet) / MANIFEST).replace(work / MANIFEST)
    shutil.rmtree(new)


def runs_in(frame: pd.DataFrame) -> list[str]:
    assert len(frame) == COUNT
    return sorted(set(frame["run_id"]))


@pytest.mark.parametrize("new_is_csv", [False, True])
@pytest.mark.parametrize("old", ["parquet", "csv", None])
def test_a_table_replaces_another_one(old: str | None, new_is_csv: bool, tmp_path: Path) -> None:
    output = tmp_path / "out"
    if old:
        table_of(tmp_path / "old")
        (tmp_path / "old" / old).rename(output)
    stage(output, OTHER, new_is_csv)
    assert is_publication_pending(output)
    publish_table(output)
    assert not is_publication_pending(output)
    assert runs_in(read_predictions(output)) == [OTHER.run_id]
    rows = CSV_FILE if new_is_csv else PARTS_FOLDER
    assert {path.name for path in output.iterdir()} == {MANIFEST, rows, WORK_FOLDER}


def test_foreign_files_among_the_parts_are_kept(tmp_path: Path) -> None:
    output = table_of(tmp_path).parquet
    (output / PARTS_FOLDER / "notes.txt").write_text("mine")
    stage(output, OTHER)
    with pytest.raises(WorkError, match=r"contains 'notes\.txt', which no scoring run wrote"):
        publish_table(output)
    assert (output / PARTS_FOLDER / "notes.txt").read_text() == "mine"
    assert runs_in(read_predictions(output)) == [FACTS.run_id]


def test_folders_are_replaced_in_two_steps_if_they_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "_system_exchange", lambda: None)
    output = table_of(tmp_path).parquet
    stage(output, OTHER)
    # Between the two steps, a reader finds the new table in the work folder.
    (output / PARTS_FOLDER).rename(output / WORK_FOLDER / "aside")
    assert runs_in(read_predictions(output)) == [OTHER.run_id]
    (output / WORK_FOLDER / "aside").rename(output / PARTS_FOLDER)
    assert runs_in(read_predictions(output)) == [FACTS.run_id]
    publish_table(output)
    assert runs_in(read_predictions(output)) == [OTHER.run_id]


def test_folders_are_exchanged_atomically(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    exchange_folders(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old/file").read_text() == "new"
    if sys.platform == "linux":
        assert (tmp_path / "new/file").read_text() == "old"


def test_a_remote_table_is_complete_at_every_step(tmp_path: Path) -> None:
    place = parse_location("memory://stored/out")
    local = tmp_path / "out"
    table_of(tmp_path / "old")
    (tmp_path / "old/parquet").rename(local)
    stage(local, OTHER)
    for path in local.rglob("*"):
        if path.is_file():
            (place / path.relative_to(local).as_posix()).write_bytes(path.read_bytes())
    assert runs_in(read_predictions(place)) == [FACTS.run_id]
    names = sorted(path.name for path in (local / WORK_FOLDER / "parts").iterdir())
    for name in names:
        (place / PARTS_FOLDER / name).write_bytes((local / WORK_FOLDER / "parts" / name).read_bytes())
        assert runs_in(read_predictions(place)) == [OTHER.run_id]
    publish_table(place)
    assert runs_in(read_predictions(place)) == [OTHER.run_id]
    assert read_json(place / MANIFEST)["run"]["run_id"] == OTHER.run_id


READER = """
import sys
from pathlib import Path
from pixelmill.pipeline.predictions import read_predictions

folder, stop, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
seen = []
while not seen or not stop.exists():
    rows = read_predictions(folder)
    (run,) = set(rows["run_id"])
    assert len(rows) == count, len(rows)
    seen.append(run)
    print(run, flush=True)
"""


@pytest.mark.parametrize("csv", [False, True])
def test_a_reader_sees_a_complete_table_while_killed_runs_replace_it(csv: bool, tmp_path: Path) -> None:
    """A reader reads continuously, while processes publish one table after the other and are killed."""
    output, stop = tmp_path / "out", tmp_path / "stop"
    table = table_of(tmp_path / "old")
    (table.csv if csv else table.parquet).rename(output)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, output, stop, str(COUNT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    lines = [reader.stdout.readline()]
    try:
        for number in range(16):
            facts = (OTHER, FACTS)[number % 2]
            # The next run first completes a publication that was killed.
            if is_publication_pending(output):
                publish_table(output)
            stage(output, facts, csv)
            publish_and_die(output, number)
            assert len(set(read_predictions(output)["run_id"])) == 1
        if is_publication_pending(output):
            publish_table(output)
    finally:
        stop.touch()
        rest, errors = reader.communicate()
    assert reader.returncode == 0, errors
    assert {line.strip() for line in (*lines, *rest.splitlines())} == {FACTS.run_id, OTHER.run_id}


def publish_and_die(output: Path, call: int) -> None:
    """Publish in a process that is killed before its n-th rename."""
    child = os.fork()
    if child == 0:
        kill_before_change(call % 8)
        try:
            publish_table(output)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def kill_before_change(count: int) -> None:
    """Kill this process before it renames, exchanges or removes for the n-th time."""
    left = [count]
    changes = {"os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree", "ctypes.call_function"}

    def strike(event: str, _: object) -> None:
        if event in changes:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    sys.addaudithook(strike)
