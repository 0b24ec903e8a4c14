"""How much memory the rows of a dataset take, from the listing to the splits, by their number.

    python -m tests.benchmarks.dataset_memory [--images N ...]

The images are made up and never read, so that only the rows are measured: names, hashes, classes, splits and
the model's record of them. Each size runs in a process of its own.
"""

import argparse
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pixelmill.pipeline.datasets.catalogue import ListedImage, Listing
from pixelmill.pipeline.datasets.catalogue_rows import read_rows
from pixelmill.pipeline.datasets.division import ModelHistory, divide_images, tabulate_images
from pixelmill.pipeline.datasets.ledger import ledger_folder
from pixelmill.pipeline.datasets.preparation import find_usable
from pixelmill.pipeline.datasets.readers import FileReader
from pixelmill.pipeline.datasets.tensors import Located, TensorStore
from pixelmill.pipeline.datasets.write_catalogue import write_catalogue
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.progress import QUIET_VARIABLE
from pixelmill.pipeline.recipes import load_recipe

CLASSES = 10


def list_images(count: int) -> Iterator[ListedImage]:
    """Images of ten classes in groups of five."""
    for number in range(count):
        label = f"class-{number % CLASSES}"
        name = f"{label}/photographs-of-2026/{number:08d}.jpg"
        place = f"/data/datasets/photographs/{name}"
        group = f"{label}-{number // (5 * CLASSES)}"
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        yield ListedImage(name, place, place, label, None, group, {"camera": "left"}, "", sha256)


def measure(count: int, work: Path) -> list[tuple[str, float, float]]:
    """The largest memory until the end of each step, in MB, and its processor seconds."""
    found: list[tuple[str, float, float]] = []

    def note(step: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found.append((step, peak, time.process_time()))

    note("imports")
    listing = Listing(list_images(count), FileReader(), (), "made up")
    raw = write_catalogue("folder", listing, work)
    note("catalogue")
    recipe = load_recipe("folder", ["dataset.path=made-up", "dataset.near_duplicates=false", "name=made-up"])
    rows = read_rows(raw.catalogue)
    located = Located(np.ones(count, np.int32), np.arange(count, dtype=np.int32), {})
    history = ModelHistory(ledger_folder(work, recipe.name))
    tensors = TensorStore(work, recipe.image)
    for step in ("splits", "splits again"):
        images = find_usable(raw, recipe, rows, np.ones(count, np.bool_), located, history)
        division = divide_images(images, recipe.dataset, tensors, history)
        note(step)
        tabulate_images(images, division, is_ordered_by_content=True)
        note(f"table of {step}")
    return found


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, nargs="+", default=[250_000, 1_000_000])
    options = parser.parse_args()
    os.environ[QUIET_VARIABLE] = "1"
    for count in options.images:
        with tempfile.TemporaryDirectory() as work:
            found = run_in_spawned_process(measure, count, Path(work))
        print(f"\n{count:,} images")
        last = 0.0
        for step, peak, seconds in found:
            print(f"  {step:<24}{peak:>8,.0f} MB{seconds - last:>10.1f} processor seconds", flush=True)
            last = seconds


if __name__ == "__main__":
    main()
