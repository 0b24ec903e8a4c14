"""Whether the input pipeline keeps the network busy, and the time of an epoch compared with PyTorch.

    python -m tests.benchmarks.train_throughput [--images N] [--rounds R] [--torch-python PATH]

In every round, each contender trains the network of the recipe for an epoch, one after the other, so that a
slow machine affects all of them:

- `memory`: Keras on the same batch in memory, which is the limit of the network alone;
- `fed`: Keras with the input pipeline of `pixelmill retrain`;
- `augmented`: the same with shift, rotation, flip, cutout and mixup;
- `PyTorch`: the same layers, batch size and optimizer, channels last, images in memory; on a GPU with
  bfloat16 and `torch.compile`; with default settings, and with threads that sleep while they wait
  (`passive`), which is faster if other programs use the processors. `--torch-python` is an interpreter with
  PyTorch, if this one does not have it.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from pixelmill.pipeline.config import AugmentationSpec, Recipe
from pixelmill.pipeline.datasets import PreparedDataset
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.resources import processor_limit
from tests.benchmarks.torch_contender import serve_requests

CLASSES = 10
AUGMENTATION = AugmentationSpec(shift=0.1, rotation=10, flip="horizontal", cutout=0.2, mixup=0.2)
KERAS = ("memory", "fed", "augmented")
WAIT_POLICIES = {"PyTorch": "ACTIVE", "passive": "PASSIVE"}
Measured = dict[str, list[dict[str, float]]]


def write_dataset(folder: Path, recipe: Recipe, images: int) -> PreparedDataset:
    """Random images, in the files of a prepared dataset."""
    draws = np.random.default_rng(0)
    shape = (images, recipe.image.height, recipe.image.width, recipe.image.channels)
    np.save(folder / "train_images.npy", draws.integers(0, 256, shape, np.uint8))
    np.save(folder / "train_labels.npy", draws.integers(0, CLASSES, images))
    names = tuple(map(str, range(CLASSES)))
    return PreparedDataset(folder, "random", "", names, {"train": images})


def serve_keras(folder: Path, recipe_name: str, images: int, rounds: int) -> None:
    """Train an epoch of the contender named in each line of standard input."""
    from pixelmill.pipeline.training.backends import start_backend
    from pixelmill.pipeline.training.input_pipeline import TrainingBatches, prefetch_batches
    from pixelmill.pipeline.training.trainer import compile_network

    recipe = load_recipe(recipe_name)
    device = start_backend(recipe.training)
    import tensorflow as tf

    dataset = PreparedDataset(folder, "random", "", tuple(map(str, range(CLASSES))), {"train": images})
    network = compile_network(dataset, recipe, device)

    def made(augmentation: AugmentationSpec) -> TrainingBatches:
        training = recipe.training.model_copy(update={"epochs": rounds, "augmentation": augmentation})
        return TrainingBatches(dataset.split("train"), CLASSES, training)

    batches = {"fed": made(recipe.training.augmentation), "augmented": made(AUGMENTATION)}
    pixels, labels = batches["fed"][0]
    steps = batches["fed"].steps
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    memory = tf.data.Dataset.from_tensors((pixels, labels)).repeat(steps).with_options(untuned)
    network.fit(pixels, labels, batch_size=len(pixels), verbose=0)
    with ExitStack() as stack:
        feeds = {
            name: stack.enter_context(prefetch_batches(epochs, steps)) for name, epochs in batches.items()
        }
        data = {"memory": memory, **{name: feed.as_keras() for name, feed in feeds.items()}}
        trained: Counter[str] = Counter()

        def epoch(name: str) -> None:
            if name in feeds:
                feeds[name].start_epoch(trained[name])
                trained[name] += 1
            network.fit(data[name], shuffle=False, verbose=0)

        serve_requests(epoch)


def has_torch(python: str) -> bool:
    """Whether an interpreter has PyTorch; prints a message if not."""
    requested = [python, "-c", "import torch"]
    if shutil.which(python) and subprocess.run(requested, capture_output=True, check=False).returncode == 0:
        return True
    print(f"no PyTorch in {python}: without it; pip install torch into an environment of its own,")
    print("and name its interpreter with --torch-python")
    return False


@contextmanager
def contender(command: list[str], **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that trains an epoch on request."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        if not ready:
            raise SystemExit(f"{' '.join(command)} ended with code {process.wait()}")
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        process.wait()


def request(process: "subprocess.Popen[str]", name: str) -> dict[str, float]:
    """Train an epoch; returns its wall time and processor time in seconds.

    Waiting processes are stopped, because waiting OpenMP threads spin and would occupy a processor.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.send_signal(signal.SIGCONT)
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    reply: dict[str, float] = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGSTOP)
    return reply


def measure(options: argparse.Namespace, folder: Path) -> Measured:
    """Run the contenders alternately."""
    recipe = load_recipe(options.recipe)
    write_dataset(folder, recipe, options.images)
    here = [sys.executable, "-m", "tests.benchmarks.train_throughput", "--serve", str(folder)]
    here += ["--recipe", options.recipe, "--images", str(options.images)]
    here += ["--rounds", str(options.rounds)]
    layers = json.dumps([layer.model_dump() for layer in recipe.model.layers])
    other = [options.torch_python, str(Path(__file__).with_name("torch_contender.py")), str(folder), layers]
    other += [str(recipe.training.batch_size), str(processor_limit().count)]
    with ExitStack() as stack:
        keras = stack.enter_context(contender(here))
        processes = dict.fromkeys(KERAS, keras)
        if has_torch(options.torch_python):
            for name, policy in WAIT_POLICIES.items():
                processes[name] = stack.enter_context(contender(other, OMP_WAIT_POLICY=policy))
        measured: Measured = {name: [] for name in processes}
        for number in range(options.rounds):
            # Each round starts with another contender, so that the order does not favour any.
            names = list(measured)
            begins = number % len(names)
            for name in names[begins:] + names[:begins]:
                measured[name].append(request(processes[name], name))
                seconds = ", ".join(f"{key} {value:.1f} s" for key, value in measured[name][-1].items())
                print(f"  round {number + 1} of {options.rounds}: {name:<10} {seconds}", flush=True)
    return measured


def show(measured: Measured, images: int) -> None:
    """Print the table and both ratios, which are medians over the rounds."""

    def ratio(above: str, below: str, key: str) -> float:
        pairs = zip(measured[above], measured[below], strict=True)
        return median(one[key] / other[key] for one, other in pairs)

    print(f"\n  {'contender':<12}{'images/s':>10}{'wall s':>10}{'processor s':>14}")
    for name, epochs in measured.items():
        wall, processor = (median(epoch[key] for epoch in epochs) for key in ("wall", "processor"))
        print(f"  {name:<12}{images / wall:>10,.0f}{wall:>10.1f}{processor:>14.1f}")
    for name in ("fed", "augmented"):
        rate, work = ratio("memory", name, "wall"), ratio("memory", name, "processor")
        print(f"  {name} trains at {rate:.2f} of the rate from memory; by processor seconds {work:.2f}")
    for name in (name for name in WAIT_POLICIES if name in measured):
        wall, processor = (ratio("fed", name, key) for key in ("wall", "processor"))
        print(
            f"  an epoch takes {wall:.2f} of {name}'s wall seconds, {processor:.2f} of its processor seconds"
        )


def main() -> None:
    """Create the data, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default="mnist")
    parser.add_argument("--images", type=int, default=20_000, help="in an epoch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has PyTorch")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_keras(options.serve, options.recipe, options.images, options.rounds)
        return
    print(f"{options.recipe}, {options.images:,} images an epoch, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(options, Path(folder))
    show(measured, options.images)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
