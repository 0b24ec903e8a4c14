"""How fast a folder of images becomes tensors and splits, beside a limit and beside tf.data, all in one run.

    python -m tests.benchmarks.prepare_throughput [--small-images N] [--photographs N] [--rounds R]

`decoding` is what a preparation does beyond listing, hashing and dividing: it reads, verifies, decodes,
measures and stores. The limit decodes the same files, whose bytes are in memory, on all processors.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import RawDataset
from pixelmill.pipeline.datasets.catalogue_rows import read_rows, read_strings
from pixelmill.pipeline.datasets.division import ModelHistory
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.ledger import ledger_folder
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.datasets.tensor_writer import add_tensors
from pixelmill.pipeline.datasets.tensors import TensorStore
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.processes import run_in_spawned_process, spawned_pool
from pixelmill.pipeline.progress import QUIET_VARIABLE
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.resources import processor_limit
from tests.benchmarks.material import PHOTOGRAPHS, SMALL, Kind, write_images

Seconds = dict[str, float]


def measure(kind: Kind, images: Path, work: Path) -> Seconds:
    """One round: the seconds of each contender and step."""
    recipe = recipe_of(kind, images)
    seconds: Seconds = {}
    for name, processes in (("decoding", None), ("decoding, one process", 1)):
        shutil.rmtree(work, ignore_errors=True)
        seconds[name] = run_in_spawned_process(decode_all, recipe, work, processes)
    shutil.rmtree(work, ignore_errors=True)
    seconds |= run_in_spawned_process(prepare_thrice, recipe, images, work)
    seconds["limit"] = decode_in_memory(recipe, images)
    seconds["tf.data"] = run_in_spawned_process(iterate_tf_data, kind, images)
    return seconds


def recipe_of(kind: Kind, images: Path) -> Recipe:
    """A recipe for the folder."""
    sizes = [f"image.{name}={getattr(kind.image, name)}" for name in ("height", "width", "channels")]
    return load_recipe("folder", [f"dataset.path={images}", "name=benchmark", *sizes])


def decode_all(recipe: Recipe, work: Path, processes: int | None) -> float:
    """Decode all images to a new tensor store."""
    raw = download_dataset(recipe.dataset, work)
    contents, first = np.unique(read_rows(raw.catalogue).contents, return_index=True)
    places = read_strings(raw.catalogue, ["place"], first)["place"]
    start = time.monotonic()
    add_tensors(
        TensorStore(work, recipe.image),
        contents,
        lambda chosen: places.take(chosen).to_pylist(),
        raw.catalogue.reader,
        lambda count, note: None,
        processes,
    )
    return time.monotonic() - start


def prepare_thrice(recipe: Recipe, images: Path, work: Path) -> Seconds:
    """Everything from the folder to the splits: the first time, unchanged, and with 1% more files."""
    seconds: Seconds = {}
    for name in ("", ", unchanged", ", 1% more"):
        if name == ", 1% more":
            add_files(images)
        start = time.monotonic()
        raw = download_dataset(recipe.dataset, work)
        listed = time.monotonic()
        prepare(raw, recipe, work)
        seconds[f"listing and hashing{name}"] = listed - start
        seconds[f"preparation{name}"] = time.monotonic() - listed
    for path in images.rglob("more-*.jpg"):
        path.unlink()
    return seconds


def prepare(raw: RawDataset, recipe: Recipe, work: Path) -> None:
    """Prepare as the flow does."""
    prepare_dataset(raw, recipe, work, ModelHistory(ledger_folder(work, recipe.name)))


def add_files(images: Path) -> None:
    """Add different files: a JPEG file stays the same picture with a few bytes after its end."""
    files = sorted(images.rglob("*.jpg"))
    for index, path in enumerate(files[:: max(1, 100)]):
        path.with_name(f"more-{path.name}").write_bytes(path.read_bytes() + index.to_bytes(4))


_barrier: Barrier | None = None


def _set_barrier(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603  # A barrier reaches a spawned process only while that is started.
    _barrier = barrier


def decode_in_memory(recipe: Recipe, images: Path) -> float:
    """The limit: a process per processor decodes bytes that are in memory."""
    count = processor_limit().count
    files = sorted(images.rglob("*.jpg"))
    barrier = multiprocessing.get_context("spawn").Barrier(count)
    with spawned_pool(count, _set_barrier, (barrier,)) as pool:
        shares = [pool.submit(_decode_share, recipe, files[place::count]) for place in range(count)]
        starts, ends = zip(*(share.result() for share in shares), strict=True)
    return float(max(ends) - min(starts))


def _decode_share(recipe: Recipe, files: list[Path]) -> tuple[float, float]:
    contents = [path.read_bytes() for path in files]
    assert _barrier is not None
    _barrier.wait()
    start = time.monotonic()
    for content in contents:
        decode(content, recipe.image)
    return start, time.monotonic()


def iterate_tf_data(kind: Kind, images: Path) -> float:
    """`image_dataset_from_directory`, all batches once."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    start = time.monotonic()
    dataset = keras.utils.image_dataset_from_directory(
        images, batch_size=64, image_size=(kind.image.height, kind.image.width), shuffle=False, verbose=False
    )
    for _ in dataset:
        pass
    return time.monotonic() - start


def show(kind: Kind, images: int, rounds: list[Seconds]) -> None:
    """Print the medians, and the ratios that matter."""

    def ratio(of: Callable[[Seconds], float]) -> float:
        return median(of(one) for one in rounds)

    print(f"\n{kind.name}: {images:,} images, {processor_limit().count} processors, {len(rounds)} rounds")
    for name in rounds[0]:
        found = [one[name] for one in rounds]
        spread, rate = f"({min(found):.2f}..{max(found):.2f})", images / median(found)
        print(f"  {name:<32}{median(found):>9.2f} s  {spread}{rate:>12,.0f} images/s")
    print(f"  decoding reaches {ratio(lambda one: one['limit'] / one['decoding']):.2f} of the limit")
    speedup = ratio(lambda one: one["decoding, one process"] / one["decoding"])
    print(f"  all processors are {speedup:.2f} times one process")
    whole = ratio(lambda one: one["preparation, 1% more"] / one["preparation"])
    print(
        f"  1% more files take {whole:.1%} of the first preparation, beyond listing and hashing", flush=True
    )


def main() -> None:
    """Make the images, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--small-images", type=int, default=50_000, help="files of 32x32; 0 leaves them out")
    parser.add_argument("--photographs", type=int, default=2000, help="files of 1600x1200; 0 leaves them out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the files there, and use those that are there")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    options = parser.parse_args()
    os.environ[QUIET_VARIABLE] = "1"
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        for kind, count in ((SMALL, options.small_images), (PHOTOGRAPHS, options.photographs)):
            if count:
                images = write_images(kind, count, folder)
                rounds = [measure(kind, images, Path(temporary) / "store") for _ in range(options.rounds)]
                measured[kind.name] = rounds
                show(kind, count, rounds)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
