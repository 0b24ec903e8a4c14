"""Valid and invalid Keras files, as other teams may create them."""

from pathlib import Path
from typing import Any

CLASSES = ("cat", "dog", "bird")


def write_keras_files(folder: Path) -> None:
    """Write `NAME.keras` for several kinds of models with 12 x 16 x 3 inputs; run in a separate process."""
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

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
    _write_odd_files(keras, folder)


def _write_odd_files(keras: Any, folder: Path) -> None:
    """Write networks without a shape, with several inputs or outputs, and with other activations."""
    layers, ops = keras.layers, keras.ops

    def pooled(image: Any) -> Any:
        return layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))

    def save(name: str, inputs: Any, outputs: Any) -> None:
        keras.Model(inputs, outputs).save(folder / f"{name}.keras")

    keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]).save(
        folder / "unbuilt.keras"
    )
    image = keras.Input((12, 16, 3), name="picture")
    softmax = layers.Dense(3, activation="softmax")(pooled(image))
    logits = layers.Dense(3)(pooled(image))
    save("dict", {"picture": image}, {"probs": softmax})
    save("list", [image], [softmax])
    save("two", image, {"probs": softmax, "logits": logits})
    save("softmax", image, softmax)
    save("passed", image, layers.Activation("linear", dtype="float32")(layers.Dropout(0.5)(softmax)))
    save("inner", image, keras.Model(image, softmax)(image))
    save("hidden", image, ops.concatenate([softmax[:, :1], softmax[:, 1:]], axis=1))
    save("op", image, ops.softmax(logits))
    save("multi", image, layers.Dense(3, activation="sigmoid")(pooled(image)))
    save("many", image, layers.Activation("sigmoid")(logits))
    binary = layers.Dense(1, activation="sigmoid")(pooled(image))
    save("binary", image, binary)
    save("binary_logit", image, layers.Dense(1)(pooled(image)))
    any_size = keras.Input((None, None, 3), name="picture")
    save("any_size", any_size, layers.Dense(3, activation="softmax")(pooled(any_size)))
    planes = keras.Input((3, 12, 16))
    flat = layers.GlobalAveragePooling2D(data_format="channels_first")(planes)
    save("channels_first", planes, layers.Dense(3, activation="softmax")(flat))
    save("four_channels", *_four_channels(keras))
    broken = keras.Model(image, softmax)
    weights = broken.get_weights()
    weights[0][0, 0] = float("nan")
    broken.set_weights(weights)
    broken.save(folder / "nan.keras")
    keras.Model(image, softmax).export(folder / "saved_model", verbose=False)


def _four_channels(keras: Any) -> tuple[Any, Any]:
    image = keras.Input((12, 16, 4))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    return image, keras.layers.Dense(3, activation="softmax")(pooled)


def save_logits(file: Path) -> None:
    """Save a network of three independent logits, for pixels from 0 to 1; run it in a separate process."""
    import keras
    import numpy as np

    layers = keras.layers
    keras.utils.set_random_seed(1)
    dense = layers.Dense(len(CLASSES))
    network = keras.Sequential([keras.Input((12, 16, 3)), layers.GlobalAveragePooling2D(), dense])
    # Of images of one colour: a class for each channel that is bright.
    dense.set_weights([8 * np.eye(3), np.full(3, -4.0)])
    network.save(file)


def refusals(files: list[Path]) -> list[str]:
    """The error message for each file; run it in a separate process."""
    from pixelmill.pipeline.errors import PixelmillError
    from pixelmill.pipeline.export.keras_loader import inspect_network

    said = []
    for file in files:
        try:
            said.append(str(inspect_network(file)))
        except PixelmillError as error:
            said.append(f"refused with {error.exit_code}: {error}")
    return said


def describe(files: list[Path]) -> list[tuple[int, str]]:
    """The number of outputs and the final activation of each network; run it in a separate process."""
    from pixelmill.pipeline.export.keras_loader import inspect_network

    found = [inspect_network(file) for file in files]
    return [(facts.outputs, facts.activation) for facts in found]


def raw_outputs(file: Path, pixels: Any) -> Any:
    """The outputs of a network as it was saved, for float pixels from 0 to 255; in a separate process."""
    import keras
    import numpy as np

    network = keras.saving.load_model(file)
    return np.asarray(network.predict_on_batch(pixels.astype(np.float32)))
