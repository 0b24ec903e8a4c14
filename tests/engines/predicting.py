"""Predicting with one engine, in its own environment.

`python -m tests.engines.answering ENGINE QUESTIONS ANSWERS`; `tests.engines.matrix` writes the one file and
reads the other.
"""

import json
import sys
from pathlib import Path

import numpy as np

from tests.engines.loaders import LOADERS, Answer, Array


def ask(answer: Answer, images: Array) -> Array:
    """Predict with an engine in one batch, then image by image.

    Args:
        answer: A loaded engine.
        images: uint8 [images, height, width, channels].

    Returns:
        float32 [2 * images, classes].
    """
    return np.concatenate([answer(images), *(answer(image[np.newaxis]) for image in images)])


def main() -> None:
    """Predict every case in a file."""
    name, questions, answers = sys.argv[1:]
    engine = LOADERS[name]
    found = {}
    for question in json.loads(Path(questions).read_text()):
        images = np.array(question["pixels"], np.uint8).reshape(question["shape"])
        found[question["name"]] = ask(engine.load(Path(question["model"])), images).tolist()
    Path(answers).write_text(json.dumps({"version": engine.version(), "answers": found}))


if __name__ == "__main__":
    main()
