"""Memory and speed on a folder of a million files compared with a small one, which must be the same.

    python -m tests.benchmarks.many_files [--files N] [--few N] [--folder DIR] [--list]

Runs the real command on both folders and observes its processes: the sum of their proportional set sizes
(shared memory is counted once), and the time of the first part of the table. The files of both folders are
read from the disk, because different shares of them would be in the page cache. With `--list`, the small
folder is compared with a list of as many rows as `--files`, each with two more columns, which names the files
of the small folder again and again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.material import SMALL, Workload, forget, prepare

_DISTINCT = 10_000
_FILES_A_FOLDER = 100_000
# Each observation takes processor time.
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Run:
    """One run of the command: memory in bytes, times in seconds."""

    manifest: dict[str, Any]
    peak_memory: int
    seconds_to_first_part: float

    @property
    def images_per_second(self) -> float:
        """From files to the finished table, without start-up."""
        seconds = float(self.manifest["seconds"]) - float(self.manifest["startup_seconds"])
        return float(self.manifest["listed"]) / seconds


def main() -> None:
    """Print the results of both runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    measure = compare_list if arguments.list else compare
    with tempfile.TemporaryDirectory() as temporary:
        few, many = measure(arguments.folder or Path(temporary), arguments.few, arguments.files)
    for run in (few, many):
        print(
            f"{run.manifest['listed']:10,} files: {run.images_per_second:8,.0f} images/s, "
            f"at most {run.peak_memory / 1e6:5.0f} MB in all processes, "
            f"first part after {run.seconds_to_first_part:.1f} s"
        )
    print(f"rate on many files over rate on few: {many.images_per_second / few.images_per_second:.2f}")


def compare(folder: Path, few: int, many: int) -> tuple[Run, Run]:
    """Score a small folder and a large one with the same kind of files."""
    workload = prepare(SMALL, _DISTINCT, folder)
    runs = []
    for count in (few, many):
        images = folder / f"files-{count}"
        if not images.exists():
            write_files(workload, images, count)
        forget(map(str, images.rglob("*.jpg")))
        runs.append(watch(workload.bundle, images, folder / f"table-{count}"))
    return runs[0], runs[1]


def compare_list(folder: Path, few: int, many: int) -> tuple[Run, Run]:
    """Score a small folder, and a long list of its files."""
    workload = prepare(SMALL, _DISTINCT, folder)
    images, file = folder / f"files-{few}", folder / f"list-{many}.csv"
    if not images.exists():
        write_files(workload, images, few)
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.jpg"))
    with file.open("w") as lines:
        lines.write("image_path,number,note\n")
        lines.writelines(f"{names[row % few]},{row},the note of row {row}\n" for row in range(many))
    whole = watch(workload.bundle, images, folder / f"table-{few}")
    return whole, watch(workload.bundle, file, folder / f"table-of-list-{many}", "--root", images)


def write_files(workload: Workload, folder: Path, count: int) -> None:
    """Write different files; bytes after the end of a JPEG file are not part of its image."""
    contents = [Path(file).read_bytes() for file in workload.files()]
    for number in range(count):
        if number % _FILES_A_FOLDER == 0:
            place = folder / f"{number // _FILES_A_FOLDER:04d}"
            place.mkdir(parents=True)
        with (place / f"{number:09d}.jpg").open("wb", buffering=0) as file:
            file.write(contents[number % len(contents)] + number.to_bytes(8, "big"))


def watch(bundle: Path, images: Path, output: Path, *options: object) -> Run:
    """Run the command and observe its processes until it ends."""
    command = [Path(sys.executable).with_name("pixelmill"), "score", bundle, images, *options]
    start = time.monotonic()
    # A manifest of many parts does not fit into a pipe that nobody reads.
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [str(word) for word in (*command, "--output", output, "--fresh", "--json")], stdout=printed
        )
        peak, first = 0, 0.0
        parts = output / ".pixelmill/parts"
        while process.poll() is None:
            peak = max(peak, memory_of(psutil.Process(process.pid)))
            if not first and parts.is_dir() and any(parts.glob("part-*.parquet")):
                first = time.monotonic() - start
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if process.returncode:
            raise SystemExit(f"the command ended with {process.returncode}")
        printed.seek(0)
        return Run(json.load(printed), peak, first)


def memory_of(process: psutil.Process) -> int:
    """The proportional set size of a process and its descendants."""
    total = 0
    for one in (process, *_children(process)):
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue  # The process has ended.
    return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
