"""Images/s that one processor augments, for each augmentation alone.

    python -m tests.benchmarks.augmentation_throughput [--rounds R]

Batches of 64 random images in colour of 32x32 and of 224x224 pixels, from memory. The input pipeline runs one
such thread for each processor. Each round measures every augmentation once; the best round counts.
"""

import argparse
import time

import numpy as np

from pixelmill.pipeline.config import AugmentationSpec
from pixelmill.pipeline.training.augmentation import augment

SIDES = (32, 224)
BATCH = 64
_SECONDS = 0.3
SPECS = {
    "shift and flip": {"shift": 0.1, "flip": "horizontal"},
    "rotation": {"rotation": 10},
    "crop and flip": {"crop": 0.5, "flip": "horizontal"},
    "randaugment": {"policy": "randaugment"},
    "trivialaugment": {"policy": "trivialaugment"},
    "brightness, contrast, saturation": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    "the same and hue": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "erasing": {"erasing": 0.25},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
}


def rate(side: int, spec: AugmentationSpec) -> float:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (BATCH, side, side, 3), np.uint8)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, BATCH)]
    augment(pixels, labels, spec, rng)
    start, done = time.thread_time(), 0
    while time.thread_time() - start < _SECONDS:
        augment(pixels, labels, spec, rng)
        done += BATCH
    return done / (time.thread_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="R")
    options = parser.parse_args()
    import cv2

    cv2.setNumThreads(1)
    specs = {name: AugmentationSpec.model_validate(fields) for name, fields in SPECS.items()}
    best = {(name, side): 0.0 for name in specs for side in SIDES}
    for _ in range(options.rounds):
        best = {(name, side): max(before, rate(side, specs[name])) for (name, side), before in best.items()}
    for name in specs:
        print(f"{name}: {', '.join(f'{best[name, side]:,.0f} images/s at {side}x{side}' for side in SIDES)}")


if __name__ == "__main__":
    main()
