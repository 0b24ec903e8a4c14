"""How many epochs a warm start saves, when a dataset has grown by 5%.

    python -m tests.benchmarks.warm_start ARCHIVE [--images N] [--epochs N] [--seeds N]

ARCHIVE is a `.tar.gz` of images in folders of classes, `.../CLASS/NAME.jpg`. A model is trained with the
recipe `folder` on N images of each class. Then 5% new images come in, and a model of all of them is trained
twice: from nothing, with the same recipe, and from the weights of the first model, with a fiftieth of its
learning rate. Both are validated on the same images. The target is the lowest validation loss from nothing.
"""

import argparse
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from pixelmill.pipeline.artifacts import sha256_of
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.datasets.download import download_dataset
from pixelmill.pipeline.datasets.preparation import prepare_dataset
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.training import TrainedModel, read_history
from pixelmill.pipeline.training.trainer import train_model
from pixelmill.pipeline.training.warm_start import StartingWeights

GROWTH = 0.05
PEAK, WARM_PEAK = 0.005, 0.0001


def write_images(archive: Path, folder: Path, first: int, last: int) -> None:
    """Extract the images of each class from one place in alphabetical order to another."""
    seen: dict[str, int] = defaultdict(int)
    with tarfile.open(archive) as stream:
        members = [member for member in stream if member.name.endswith((".jpg", ".jpeg", ".png"))]
        for member in sorted(members, key=lambda member: member.name):
            name = Path(member.name).parent.name
            if first <= seen[name] < last:
                target = folder / name / Path(member.name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                content = stream.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
            seen[name] += 1


def prepare(images: Path, store: Path) -> PreparedDataset:
    recipe = recipe_for(images, 1, 0, PEAK)
    return prepare_dataset(download_dataset(recipe.dataset, store), recipe, store)


def recipe_for(images: Path, epochs: int, seed: int, peak: float) -> Recipe:
    settings = (
        f"dataset.path={images}",
        "dataset.near_duplicates=false",
        f"training.epochs={epochs}",
        f"training.seed={seed}",
        f"training.learning_rate.peak={peak}",
    )
    return load_recipe("folder", (*settings, "name=growing"))


def train(
    dataset: PreparedDataset, recipe: Recipe, folder: Path, start: StartingWeights | None = None
) -> TrainedModel:
    return run_in_spawned_process(
        train_model, dataset, recipe, folder, folder.with_suffix(".npz"), start=start
    )


def epochs_to(losses: list[float], target: float) -> float:
    """The first epoch with a loss that is not higher, counted from 1; infinite if there is none."""
    return next((epoch for epoch, loss in enumerate(losses, 1) if loss <= target), float("inf"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=int, default=400, metavar="N")
    parser.add_argument("--epochs", type=int, default=15, metavar="N")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder / "images"
        write_images(options.archive, images, 0, options.images)
        before = prepare(images, folder / "store")
        write_images(options.archive, images, options.images, round(options.images * (1 + GROWTH)))
        after = prepare(images, folder / "store")
        print(f"{before.counts} images, then {after.counts}", flush=True)
        for seed in range(options.seeds):
            cold, warm = (recipe_for(images, options.epochs, seed, peak) for peak in (PEAK, WARM_PEAK))
            earlier = train(before, cold, folder / f"earlier-{seed}")
            start = StartingWeights(
                earlier.model_path, sha256_of(earlier.model_path), "earlier", before.class_names
            )
            losses = {
                "nothing": train(after, cold, folder / f"cold-{seed}"),
                "the earlier model": train(after, warm, folder / f"warm-{seed}", start),
            }
            curves = {
                origin: [float(row["val_loss"]) for row in read_history(model)]
                for origin, model in losses.items()
            }
            target = min(curves["nothing"])
            for origin, curve in curves.items():
                found[origin].append(epochs_to(curve, target))
                print(
                    f"seed {seed}, from {origin}: loss {target:.4f} after epoch {found[origin][-1]:g}, "
                    f"lowest {min(curve):.4f}, losses {' '.join(f'{loss:.3f}' for loss in curve)}",
                    flush=True,
                )
    for origin, epochs in found.items():
        print(f"from {origin}: median {median(epochs):g} epochs")


if __name__ == "__main__":
    main()
