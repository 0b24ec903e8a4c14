"""How many wrong labels of training images the audit of a retraining finds, and how often it is right.

    python -m tests.benchmarks.label_errors SOURCE --recipe RECIPE [--rate SHARE] [--seeds N] [--images N]
        [--set KEY=VALUE ...]

SOURCE is a folder with one subfolder per class, whose labels are taken to be right; or a `.tar.gz` of
CIFAR-10 as image files, `train/CLASS/NAME.jpg`, from which `hard_pictures` makes N photographs of each class.
A share of the images is put into another class at random; then `pixelmill retrain` runs with its defaults.
Only training images count: the audit finds those of validation and test in another way.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelmill.pipeline.evaluation.intervals import interval_of_proportion
from tests.benchmarks.hard_pictures import write_hard_pictures


@dataclass(frozen=True)
class Result:
    """Numbers of training images.

    Attributes:
        images: All of them.
        wrong: Those whose label is wrong.
        found: Those that the audit names.
        right: Those that it names rightly.
        corrected: Those of them with the right suggestion.
    """

    images: int
    wrong: int
    found: int
    right: int
    corrected: int


def plant(source: Path, folder: Path, rate: float, seed: int) -> dict[str, str]:
    """Link the images of a folder into another, a share of them in a wrong class.

    Returns:
        The true class of each image, by its path in the new folder.
    """
    draws, truth = np.random.default_rng(seed), {}
    classes = sorted(path.name for path in source.iterdir() if path.is_dir())
    for name in classes:
        for path in sorted((source / name).iterdir()):
            others = [other for other in classes if other != name]
            shown = str(draws.choice(others)) if draws.random() < rate else name
            target = folder / shown / f"{name}-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())
            truth[target.relative_to(folder).as_posix()] = name
    return truth


def measure(source: Path, recipe: str, rate: float, seed: int, overrides: list[str]) -> Result:
    """Plant wrong labels, retrain, and compare what the audit found."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        truth = plant(source, work / "images", rate, seed)
        settings = ["name=noisy", "dataset.source=folder", f"dataset.path={work / 'images'}"]
        settings += [f"training.seed={seed}", *overrides]
        command = [sys.executable, "-m", "pixelmill.flows.entry", "retrain", recipe]
        command += ["--store", str(work / "store"), "--quiet"]
        for setting in settings:
            command += ["--set", setting]
        environment = {**os.environ, "PREFECT_HOME": str(work / "prefect")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode not in (0, 3):
            raise SystemExit(done.stderr)
        return count(work / "store", truth)


def count(store: Path, truth: dict[str, str]) -> Result:
    """Compare the findings of the one run in a store with the true classes."""
    import pyarrow.parquet as pq

    (rows,) = store.glob("datasets/*/images.parquet")
    trained = pq.read_table(rows, columns=["name"], filters=[("split", "=", "train")])["name"].to_pylist()
    wrong = {path for path in trained if truth[path] != path.split("/")[0]}
    (audit,) = store.glob("runs/*/audit/audit.json")
    found = {
        finding["path"]: finding["suggested_label"]
        for finding in json.loads(audit.read_text())["findings"]["label_error"]
        if finding["split"] == "train"
    }
    right = wrong & found.keys()
    return Result(
        len(trained), len(wrong), len(found), len(right), sum(found[path] == truth[path] for path in right)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--rate", type=float, default=0.03, metavar="SHARE")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--images", type=int, default=150, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.source
        if source.is_file():
            write_hard_pictures(source, Path(folder), options.images)
            source = Path(folder) / "train"
        for seed in range(options.seeds):
            print_result(seed, measure(source, options.recipe, options.rate, seed, options.set))


def print_result(seed: int, result: Result) -> None:
    shares = []
    for name, part, whole in (
        ("recall", result.right, result.wrong),
        ("precision", result.right, result.found),
        ("suggestion right", result.corrected, result.right),
    ):
        if whole:
            low, high = interval_of_proportion(part, whole)
            shares.append(f"{name} {part / whole:.2f} ({low:.2f} to {high:.2f})")
    print(
        f"seed {seed}: {result.images} training images, {result.wrong} wrong, {result.found} found, "
        f"{result.right} of them wrong: {', '.join(shares)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
