"""Keras files as other teams make them, good ones and bad ones."""

from pathlib import Path
from typing import Any

CLASSES = ("cat", "dog", "bird")


def write_keras_files(folder: Path) -> None:
    """Write `NAME.keras` for some kinds of models of 12 x 16 coloured pixels, in a process of its own."""
    from pipeline.training.devices import choose_device, import_tensorflow

    import_tensorflow()
    choose_device("cpu")
    import keras

    layers = keras.layers

    class Doubling(layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, values: Any) -> Any:
            return values * 2

    def classifier() -> list[Any]:
        return [layers.GlobalAveragePooling2D(), layers.Dense(len(CLASSES))]

    kinds = {
        "logits": [layers.Conv2D(8, 3), layers.BatchNormalization(), *classifier()],
        "lambda": [layers.Lambda(lambda values: values / 255), *classifier()],
        "custom": [Doubling(), *classifier()],
        "flat": [layers.Conv2D(3, 3)],
    }
    for name, inner in kinds.items():
        keras.utils.set_random_seed(1)
        keras.mixed_precision.set_global_policy("mixed_bfloat16" if name == "logits" else "float32")
        keras.Sequential([keras.Input((12, 16, 3)), *inner]).save(folder / f"{name}.keras")
    pixels = keras.Input((12, 16, 3), dtype="uint8")
    keras.Sequential([pixels, layers.Rescaling(1 / 255), *classifier()]).save(folder / "bytes.keras")
    keras.Sequential([keras.Input((12, 16, 3)), *classifier()]).save(folder / "old.h5")


def refusals(files: list[Path]) -> list[str]:
    """What is said of each file by what loads it; run it in a process of its own."""
    from pipeline.errors import PixelmillError
    from pipeline.export.loading import inspect_network

    said = []
    for file in files:
        try:
            said.append(str(inspect_network(file)))
        except PixelmillError as error:
            said.append(f"refused with {error.exit_code}: {error}")
    return said
