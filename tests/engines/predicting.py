"""Predicting with one engine, in its own environment.

`python -m tests.engines.predicting ENGINE REQUESTS PREDICTIONS`; `tests.engines.matrix` writes the first
file and reads the second.
"""

import json
import sys
from pathlib import Path

import numpy as np

from tests.engines.loaders import LOADERS, Array, Predict


def predict(engine: Predict, images: Array) -> Array:
    """Predict with an engine in one batch, then image by image.

    Args:
        engine: A loaded engine.
        images: uint8 [images, height, width, channels].

    Returns:
        float32 [2 * images, classes].
    """
    return np.concatenate([engine(images), *(engine(image[np.newaxis]) for image in images)])


def main() -> None:
    """Predict every case in a file."""
    name, requests, predictions = sys.argv[1:]
    engine = LOADERS[name]
    found = {}
    for request in json.loads(Path(requests).read_text()):
        images = np.array(request["pixels"], np.uint8).reshape(request["shape"])
        found[request["name"]] = predict(engine.load(Path(request["model"])), images).tolist()
    Path(predictions).write_text(json.dumps({"version": engine.version(), "predictions": found}))


if __name__ == "__main__":
    main()
