"""What `training.class_weights` does for the recall of small classes, on CIFAR-10 cut to 10:1.

    python -m tests.benchmarks.class_weights ARCHIVE [--largest N] [--epochs N] [--seeds N]

ARCHIVE is a `.tar.gz` of CIFAR-10 as image files, `train/CLASS/NAME.jpg`. The classes are cut in alphabetical
order from N images to a tenth of that, each smaller than the one before by the same factor: Cui et al., 2019,
arXiv:1901.05555. The test set is 200 further images of each class. Every seed trains the recipe `folder`
once with each setting, one after the other.
"""

import argparse
import re
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np

from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.evaluation.metrics import Metrics, measure
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.training.prediction import predict_images
from pixelmill.pipeline.training.trainer import train_model

RATIO = 10
TEST_IMAGES = 200
SETTINGS = ("none", "balanced")


def write_images(archive: Path, folder: Path, largest: int) -> None:
    """Extract the cut classes to `train`, and the images to test on to `test`."""
    seen: dict[str, int] = defaultdict(int)
    with tarfile.open(archive) as stream:
        members = [member for member in stream if re.fullmatch(r"train/\w+/\w+\.jpg", member.name)]
        names = sorted({member.name.split("/")[1] for member in members})
        factor = RATIO ** (-1 / (len(names) - 1))
        sizes = {name: round(largest * factor**index) for index, name in enumerate(names)}
        for member in sorted(members, key=lambda member: member.name):
            name = member.name.split("/")[1]
            seen[name] += 1
            if seen[name] <= sizes[name] + TEST_IMAGES:
                part = "train" if seen[name] <= sizes[name] else "test"
                target = folder / part / name / Path(member.name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                content = stream.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())


def train(dataset: PreparedDataset, recipe: Recipe, folder: Path) -> Metrics:
    """Train a recipe and measure it on the test images."""
    model = run_in_spawned_process(train_model, dataset, recipe, folder / "training", folder / "state.npz")
    test = dataset.split("test")
    predictions = run_in_spawned_process(predict_images, model.model_path, np.asarray(test.pixels))
    return measure(predictions, test.labels, dataset.class_names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--largest", type=int, default=500, metavar="N")
    parser.add_argument("--epochs", type=int, default=15, metavar="N")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(options.archive, folder, options.largest)
        overrides = (
            f"dataset.path={folder / 'train'}",
            f"dataset.test_path={folder / 'test'}",
            f"training.epochs={options.epochs}",
            "name=cut",
            "dataset.near_duplicates=false",
        )
        recipe = load_recipe("folder", overrides)
        dataset = prepare_dataset(download_dataset(recipe.dataset, folder), recipe, folder)
        print(f"{dataset.counts} images, {options.epochs} epochs", flush=True)
        recalls: dict[str, list[float]] = defaultdict(list)
        smallest: dict[str, list[float]] = defaultdict(list)
        for seed in range(options.seeds):
            for setting in SETTINGS:
                chosen = (*overrides, f"training.seed={seed}", f"training.class_weights={setting}")
                run = folder / f"{setting}-{seed}"
                metrics = train(dataset, load_recipe("folder", chosen), run)
                recalls[setting].append(metrics.balanced_accuracy)
                smallest[setting].append(float(np.mean([row.recall for row in metrics.classes[-3:]])))
                print(f"seed {seed}, {setting}: macro recall {metrics.balanced_accuracy:.4f}", flush=True)
    for setting in SETTINGS:
        print(
            f"{setting}: median macro recall {median(recalls[setting]):.4f}, "
            f"of the three smallest classes {median(smallest[setting]):.4f}"
        )


if __name__ == "__main__":
    main()
