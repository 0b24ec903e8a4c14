"""How much memory Keras and TensorFlow themselves need to train on images of a size, without our code.

    python -m tests.benchmarks.training_memory [--side 224] [--batch 64]

The network of the recipe `folder` is fitted to batches of random numbers that are already in memory. The
difference to the peak of a run is what pixelmill adds.
"""

import argparse
import resource

import numpy as np

from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.training.devices import import_tensorflow
from pixelmill.pipeline.training.network import build_network

CLASSES, STEPS = 10, 3


def note(step: str) -> None:
    """Print the largest memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{step:<24}{peak:>8,.0f} MB", flush=True)


def main() -> None:
    """Print the peak after each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    sides = [f"image.{name}={options.side}" for name in ("height", "width")]
    recipe = load_recipe("folder", ["dataset.path=made-up", "name=made-up", *sides])
    note("pixelmill")
    import_tensorflow()
    import keras

    note("TensorFlow and Keras")
    network = build_network(recipe.model, recipe.image, CLASSES)
    network.compile(optimizer=keras.optimizers.AdamW(), loss="sparse_categorical_crossentropy")
    note("network")
    random = np.random.default_rng(0)
    shape = (options.batch, options.side, options.side, recipe.image.channels)
    pixels = random.integers(0, 256, shape).astype(np.uint8)
    labels = random.integers(0, CLASSES, options.batch)
    for step in range(1, STEPS + 1):
        network.train_on_batch(pixels, labels)
        note(f"batch {step} of {options.batch}")


if __name__ == "__main__":
    main()
