"""The network of a recipe in PyTorch, independent of pixelmill: any interpreter with PyTorch can run it.

python torch_contender.py FOLDER LAYERS BATCH_SIZE THREADS
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def serve_requests(epoch: Callable[[str], None]) -> None:
    """Print a line when ready; then train an epoch for each input line, and print its duration."""
    print("ready", flush=True)
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        epoch(line.strip())
        taken = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        print(json.dumps(taken), flush=True)


def build(layers: list[dict[str, Any]], depth: int, classes: int) -> tuple[Any, int]:
    """The layers of a recipe up to the logits, and the number of output channels."""
    from torch import nn

    made = list[Any]()
    for layer in layers:
        after = depth
        kind = layer["layer"]
        if kind == "residual":
            branch, after = build(layer["layers"], depth, classes)
            made.append(_residual(layer, branch, depth, after))
        elif kind in _SIMPLE:
            made += _SIMPLE[kind](nn, layer, depth)
            after = layer.get("filters", depth)
        elif kind == "dense":
            made.append(nn.Linear(depth, classes))
        elif kind != "softmax":
            raise SystemExit(f"the layer {kind} is not written in PyTorch here")
        depth = after
    return nn.Sequential(*made), depth


def _convolution(nn: Any, layer: dict[str, Any], depth: int) -> list[Any]:
    return [nn.Conv2d(depth, layer["filters"], bias=layer["bias"], **_sliding(layer))]


def _separable_convolution(nn: Any, layer: dict[str, Any], depth: int) -> list[Any]:
    return [
        nn.Conv2d(depth, depth, groups=depth, bias=False, **_sliding(layer)),
        nn.Conv2d(depth, layer["filters"], 1, bias=layer["bias"]),
    ]


def _sliding(layer: dict[str, Any]) -> dict[str, int]:
    size = layer["kernel_size"]
    padding = 0 if layer["padding"] == "valid" else size // 2
    return {"kernel_size": size, "stride": layer["stride"], "padding": padding}


def _activation(nn: Any, layer: dict[str, Any], depth: int) -> list[Any]:
    functions = {None: nn.Identity, "relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU}
    return [functions[layer["function"]]()]


_SIMPLE: dict[str, Callable[[Any, dict[str, Any], int], list[Any]]] = {
    "convolution": _convolution,
    "separable_convolution": _separable_convolution,
    "batch_normalization": lambda nn, layer, depth: [nn.BatchNorm2d(depth)],
    "activation": _activation,
    "max_pooling": lambda nn, layer, depth: [nn.MaxPool2d(layer["size"], layer["stride"])],
    "average_pooling": lambda nn, layer, depth: [nn.AvgPool2d(layer["size"], layer["stride"])],
    "global_average_pooling": lambda nn, layer, depth: [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    "global_max_pooling": lambda nn, layer, depth: [nn.AdaptiveMaxPool2d(1), nn.Flatten()],
    "dropout": lambda nn, layer, depth: [nn.Dropout(layer["rate"])],
}


def _residual(layer: dict[str, Any], branch: Any, depth: int, after: int) -> Any:
    from torch import nn

    projection = [nn.Conv2d(depth, after, 1, bias=False), nn.BatchNorm2d(after)]

    class Residual(nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.branch = branch
            self.shortcut = nn.Sequential(*([] if depth == after else projection))
            (self.activation,) = _activation(nn, {"function": layer["activation"]}, after)

        def forward(self, tensor: Any) -> Any:
            return self.activation(self.branch(tensor) + self.shortcut(tensor))

    return Residual()


def main() -> None:
    """Train on request, on images in device memory; on a GPU with bfloat16 and `torch.compile`."""
    import torch

    folder, layers, batch_size, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    pixels = torch.from_numpy(np.load(Path(folder) / "train_images.npy")).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(np.load(Path(folder) / "train_labels.npy")).to(device)
    network = build(json.loads(layers), pixels.shape[1], 10)[0].to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.001, fused=True)
    loss_of = torch.nn.CrossEntropyLoss()
    forward = torch.compile(network) if on_gpu else network

    def train(chosen: Any) -> None:
        batch = pixels[chosen].to(torch.float32, memory_format=torch.channels_last) / 255
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = loss_of(forward(batch), labels[chosen])
        loss.backward()
        optimizer.step()

    def epoch(name: str) -> None:
        for chosen in torch.randperm(len(labels), device=device).split(int(batch_size)):
            train(chosen)
        if on_gpu:
            torch.cuda.synchronize()

    train(torch.arange(int(batch_size), device=device))
    serve_requests(epoch)


if __name__ == "__main__":
    main()
