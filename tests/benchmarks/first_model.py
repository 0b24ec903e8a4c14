"""A first model of one's own photographs: ours from one command, a plain Keras script, a logistic regression.

    python -m tests.benchmarks.first_model --cifar ARCHIVE [--weights FILE] [--seeds N] [--first-seed N]
        [--images N] [--data hard,imbalanced] [--only photos,photos-small,folder,keras,logistic]
        [--set KEY=VALUE ...]

ARCHIVE is a `.tar.gz` of CIFAR-10 as image files, `train/CLASS/NAME.jpg`; FILE holds weights of a MobileNetV2
in any form that `model.layers.0.weights` takes, and is `imagenet` by default. The pictures are those of
`hard_pictures`: N images of each of ten classes to train and validate on, 100 others to test on; for
`imbalanced`, from N images of the first class to a tenth of that of the last one. Ours is `pixelmill
retrain`, with its audit, evaluation, export and proof. The Keras script trains the same network, as tutorials
do: first a new head, then everything with a lower rate, for as many seconds in all as `photos` took.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.images import decode
from pixelmill.pipeline.layers.application import Application
from pixelmill.pipeline.processes import run_in_spawned_process
from tests.benchmarks.hard_pictures import imbalanced_sizes, write_hard_pictures

SIDE = 160
IMAGE = ImageSpec(height=SIDE, width=SIDE, channels=3)
NETWORK = "MobileNetV2"
STRENGTHS = (0.0001, 0.001, 0.01, 0.1)
DEFAULT_SECONDS = 600.0
_VALIDATION = 10


@dataclass(frozen=True)
class Request:
    """One measurement: `overrides` are for ours, `seconds` the budget of the Keras script."""

    data: Path
    weights: str
    seed: int
    overrides: tuple[str, ...]
    is_imbalanced: bool
    seconds: float


@dataclass(frozen=True)
class Result:
    """`accuracy`: balanced, on the test images, 0 to 1; `seconds`: wall time."""

    accuracy: float
    seconds: float


def train_ours(recipe: str, request: Request) -> Result:
    """`pixelmill retrain`, from the folder to the registered version."""
    with tempfile.TemporaryDirectory() as store:
        settings = [f"dataset.path={request.data}", "name=first", f"training.seed={request.seed}"]
        if recipe == "photos":
            settings.append(f"model.layers.0.weights={request.weights}")
        if request.is_imbalanced:
            settings.append("training.class_weights=balanced")
        command = [
            sys.executable,
            "-m",
            "pixelmill.flows.entry",
            "retrain",
            recipe,
            "--store",
            store,
            "--json",
        ]
        for setting in (*settings, *request.overrides):
            command += ["--set", setting]
        start = time.monotonic()
        environment = {**os.environ, "PREFECT_HOME": f"{store}/prefect"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        seconds = time.monotonic() - start
        if done.returncode not in (0, 3):
            raise SystemExit(done.stderr)
        metrics = json.loads((Path(store) / "models/first/1/metrics.json").read_text())
        return Result(metrics["test"]["balanced_accuracy"], seconds)


def train_keras(request: Request) -> Result:
    """The plain Keras script."""
    return run_in_spawned_process(run_keras, request)


def fit_logistic(request: Request) -> Result:
    """Logistic regression on the output of the frozen network."""
    return run_in_spawned_process(run_logistic, request)


def run_keras(request: Request) -> Result:
    """A new head for a third of the time, then everything; batch normalization stays in inference mode."""
    start = time.monotonic()
    base = load_base(request.weights)
    import keras

    keras.utils.set_random_seed(request.seed)
    pixels, labels, names = read_part(request.data / "train")
    held_out = np.random.default_rng(request.seed).permutation(len(labels)) % _VALIDATION == 0
    outputs = keras.layers.Dense(len(names), activation="softmax")
    inputs = keras.Input((SIDE, SIDE, 3))
    tensor = base(keras.layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    model = keras.Model(
        inputs, outputs(keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(tensor)))
    )
    for trainable, rate, share in ((False, 1e-3, 1 / 3), (True, 1e-5, 1.0)):
        base.trainable = trainable
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(
            pixels[~held_out],
            labels[~held_out],
            validation_data=(pixels[held_out], labels[held_out]),
            batch_size=32,
            epochs=1000,
            callbacks=[stop_after(start + share * request.seconds)],
            verbose=0,
        )
    seconds = time.monotonic() - start
    pixels, labels, _ = read_part(request.data / "test")
    return Result(balanced(model.predict(pixels, verbose=0).argmax(axis=1), labels), seconds)


def stop_after(moment: float) -> Any:
    """A callback that stops `fit` after the batch in which the moment passes."""
    import keras

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if time.monotonic() > moment:
                self.model.stop_training = True

    return Stop()


def run_logistic(request: Request) -> Result:
    """The strength of the regularization is the best of four on a tenth of the training images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    start = time.monotonic()
    base = load_base(request.weights)
    features, labels, _ = embed(base, request.data / "train")
    held_out = np.random.default_rng(request.seed).permutation(len(labels)) % _VALIDATION == 0
    weights = "balanced" if request.is_imbalanced else None

    def fit(strength: float, chosen: npt.NDArray[np.bool_]) -> Any:
        regression = LogisticRegression(C=strength, max_iter=1000, class_weight=weights)
        return make_pipeline(StandardScaler(), regression).fit(features[chosen], labels[chosen])

    scores = {
        strength: balanced(fit(strength, ~held_out).predict(features[held_out]), labels[held_out])
        for strength in STRENGTHS
    }
    model = fit(max(scores, key=scores.__getitem__), np.ones(len(labels), bool))
    seconds = time.monotonic() - start
    features, labels, _ = embed(base, request.data / "test")
    return Result(balanced(model.predict(features), labels), seconds)


def load_base(weights: str) -> Any:
    """The network of both with its weights, without our preprocessing."""
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

    import_tensorflow()
    choose_device("cpu")
    import keras

    from pixelmill.pipeline.training.pretrained import PretrainedWeights, load_pretrained

    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    inputs = keras.Input((SIDE, SIDE, 3))
    layer = Application(layer="application", name=NETWORK, weights=weights)
    file = None if weights == "imagenet" else PretrainedWeights(Path(weights), "", weights)
    load_pretrained(keras.Model(inputs, base(inputs)), layer, file)
    return base


def read_part(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[str]]:
    """The pixels, stretched to the size of the network, the labels, and the class names."""
    names = sorted(path.name for path in folder.iterdir())
    files = [(path, label) for label, name in enumerate(names) for path in sorted((folder / name).iterdir())]
    pixels = np.stack([decode(path.read_bytes(), IMAGE).pixels for path, _ in files])
    return pixels, np.array([label for _, label in files], np.int64), names


def embed(base: Any, folder: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[str]]:
    """As `read_part`, with the mean of each channel of the network's output in place of pixels."""
    pixels, labels, names = read_part(folder)
    batches = [
        base.predict_on_batch(pixels[first : first + 32] / np.float32(127.5) - 1).mean(axis=(1, 2))
        for first in range(0, len(pixels), 32)
    ]
    return np.concatenate(batches), labels, names


def balanced(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """The mean recall over the classes."""
    return float(np.mean([np.mean(predicted[labels == label] == label) for label in np.unique(labels)]))


CONTENDERS: dict[str, Callable[[Request], Result]] = {
    "photos": lambda request: train_ours("photos", request),
    "photos-small": lambda request: train_ours("photos-small", request),
    "folder": lambda request: train_ours("folder", request),
    "keras": train_keras,
    "logistic": fit_logistic,
}
DATA = ("hard", "imbalanced")


def compare(options: argparse.Namespace, name: str, folder: Path) -> list[str]:
    """Run the contenders on one data set; returns a line for each."""
    sizes = imbalanced_sizes(options.images) if name == "imbalanced" else options.images
    write_hard_pictures(options.cifar, folder, sizes)
    results: dict[str, list[Result]] = {contender: [] for contender in options.only.split(",")}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        seconds = options.seconds
        for contender, of_contender in results.items():
            request = Request(
                folder, options.weights, seed, tuple(options.set), name == "imbalanced", seconds
            )
            of_contender.append(result := CONTENDERS[contender](request))
            seconds = result.seconds if contender == "photos" else seconds
            print(
                f"{name}, seed {seed}, {contender}: {result.accuracy:.3f}, {result.seconds:.0f} s", flush=True
            )
    return [
        f"{name}, {contender}: balanced accuracy {median(each.accuracy for each in found):.3f}, "
        f"{median(each.seconds for each in found):.0f} s, medians of {len(found)}"
        for contender, found in results.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, metavar="ARCHIVE")
    parser.add_argument("--weights", default="imagenet", metavar="FILE")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N")
    parser.add_argument("--images", type=int, default=240, metavar="N")
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--only", default=",".join(CONTENDERS))
    parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        metavar="S",
        help="for keras, where photos is left out",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            line for name in options.data.split(",") for line in compare(options, name, Path(folder) / name)
        ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
