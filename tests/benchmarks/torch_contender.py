"""A recipe's network in PyTorch, without anything of pixelmill: any interpreter with PyTorch runs it.

python torch_contender.py FOLDER LAYERS BATCH_SIZE THREADS
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def answer_requests(epoch: Callable[[str], None]) -> None:
    """Say that all is ready; train an epoch for each line that comes in, and say how long it took."""
    print("ready", flush=True)
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        epoch(line.strip())
        taken = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        print(json.dumps(taken), flush=True)


def build(layers: list[dict[str, Any]], channels: int, classes: int) -> Any:
    """The layers of a recipe, up to the logits."""
    from torch import nn

    depth, made = channels, list[Any]()
    for layer in layers:
        kind = layer["layer"]
        if kind == "convolution":
            made.append(
                nn.Conv2d(
                    depth,
                    layer["filters"],
                    layer["kernel_size"],
                    padding=layer["padding"],
                    stride=layer["stride"],
                    bias=layer["bias"],
                )
            )
            depth = layer["filters"]
        elif kind == "batch_normalization":
            made.append(nn.BatchNorm2d(depth))
        elif kind == "activation":
            made.append({"relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU}[layer["function"]]())
        elif kind == "max_pooling":
            made.append(nn.MaxPool2d(layer["size"], layer["stride"]))
        elif kind == "dropout":
            made.append(nn.Dropout(layer["rate"]))
        elif kind == "global_average_pooling":
            made += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        elif kind == "dense":
            made.append(nn.Linear(depth, classes))
        elif kind != "softmax":
            raise SystemExit(f"the layer {kind} is not written in PyTorch here")
    return nn.Sequential(*made)


def main() -> None:
    """Train whenever asked, on images in memory."""
    import torch

    folder, layers, batch_size, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    pixels = torch.from_numpy(np.load(Path(folder) / "train_images.npy")).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.load(Path(folder) / "train_labels.npy"))
    network = build(json.loads(layers), pixels.shape[1], 10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.001, fused=True)
    loss_of = torch.nn.CrossEntropyLoss()

    def train(chosen: Any) -> None:
        batch = pixels[chosen].to(torch.float32, memory_format=torch.channels_last) / 255
        optimizer.zero_grad(set_to_none=True)
        loss_of(network(batch), labels[chosen]).backward()
        optimizer.step()

    def epoch(name: str) -> None:
        for chosen in torch.randperm(len(labels)).split(int(batch_size)):
            train(chosen)

    train(torch.arange(int(batch_size)))
    answer_requests(epoch)


if __name__ == "__main__":
    main()
