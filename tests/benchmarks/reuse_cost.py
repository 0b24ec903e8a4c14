"""The cost of a run that reuses 99% of its rows, compared with reading and hashing the files.

    python -m tests.benchmarks.reuse_cost [--small-images N] [--photographs N] [--rounds R]

Both read the same files, of which every hundredth has changed since the earlier table; first from the page
cache, then from the disk. The time includes reading the earlier table, but not the start of the processes.
"""

import argparse
import hashlib
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from pixelmill.pipeline.bundles import open_bundle
from pixelmill.pipeline.processes import spawned_pool
from pixelmill.pipeline.resources import processor_limit
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.commit import commit_table
from pixelmill.pipeline.scoring.plan import lock_output, plan_scoring
from pixelmill.pipeline.scoring.run import score_folder, score_shards
from pixelmill.pipeline.storage import local_path
from tests.benchmarks.material import PHOTOGRAPHS, SMALL, Workload, forget, prepare


def main() -> None:
    """Print both rates and their ratio, for both kinds of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small-images", type=int, default=50_000)
    parser.add_argument("--photographs", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind, count in ((SMALL, arguments.small_images), (PHOTOGRAPHS, arguments.photographs)):
            if count:
                measure(prepare(kind, count, Path(folder)), Path(folder), arguments.rounds)


def measure(workload: Workload, folder: Path, rounds: int) -> None:
    """Compare with the files in the page cache, and on the disk only."""
    files = workload.files()
    earlier = ScoringRequest(open_bundle(workload.bundle), workload.images, folder / "earlier")
    score_folder(earlier)
    for number, file in enumerate(files[::100]):
        # Bytes after the end of a JPEG file change the file, but not the image.
        with Path(file).open("ab") as changed:
            changed.write(number.to_bytes(4, "big"))
    for on_disk in (False, True):
        compare(workload, earlier, folder / "again", on_disk, rounds)
    shutil.rmtree(local_path(earlier.output))


def compare(workload: Workload, earlier: ScoringRequest, output: Path, on_disk: bool, rounds: int) -> None:
    """Run both alternately, and print the medians and the median ratio."""
    files = workload.files()
    request = ScoringRequest(earlier.bundle, earlier.images, output, previous=earlier.output)
    runs = {
        "read and hash": partial(seconds_to_hash, files),
        "pixelmill --previous, 1% changed": partial(seconds_to_score, request),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if on_disk:
                forget(files)
            taken[name].append(run())
        shutil.rmtree(output)
    kind = f"{workload.kind.name:12} {'on the disk' if on_disk else 'in memory':12}"
    for name, seconds in taken.items():
        print(f"{kind} {name:34} {len(files) / statistics.median(seconds):10,.0f} files/s")
    hashing, scoring = taken.values()
    ratio = statistics.median(ours / theirs for ours, theirs in zip(scoring, hashing, strict=True))
    print(f"{kind} costs {ratio:.2f} of reading and hashing (median of {rounds} rounds)")


def seconds_to_score(request: ScoringRequest) -> float:
    """Score with an earlier table; returns the seconds without the start of the workers."""
    start = time.perf_counter()
    with lock_output(request.output):
        plan = plan_scoring(request)
        planning = time.perf_counter() - start
        outcome = score_shards(plan)
        table = commit_table(plan, outcome)
    seconds = time.perf_counter() - start
    listed = table.manifest["listed"]
    if table.manifest["reused"] + len(range(0, listed, 100)) != listed:
        raise SystemExit(f"{table.manifest['reused']} rows were reused of {listed} files")
    return seconds - (outcome.startup_seconds - planning)


def seconds_to_hash(files: list[str]) -> float:
    """Read and hash all files with one process per processor; returns the seconds without their start."""
    count = processor_limit().count
    with spawned_pool(count) as pool:
        list(pool.map(hash_files, [files[:1]] * count))
        start = time.perf_counter()
        list(pool.map(hash_files, [files[part::count] for part in range(count)]))
        return time.perf_counter() - start


def hash_files(files: list[str]) -> list[str]:
    """The SHA-256 of each file."""
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


if __name__ == "__main__":
    main()
