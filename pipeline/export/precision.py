"""Copying a Keras network to another floating-point precision."""

from typing import Any, Literal

Precision = Literal["float32", "float64"]
_LOWER = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
# The data types that each precision replaces.
_REPLACED: dict[Precision, tuple[str, ...]] = {
    "float32": (*_LOWER, "float64"),
    "float64": (*_LOWER, "float32"),
}


def in_precision(network: Any, precision: Precision) -> Any:
    """A network with the same weights in which every layer computes in one precision.

    Args:
        network: A built Keras network, which is not modified.
        precision: The compute dtype of all layers. Integer inputs keep their dtype.

    Returns:
        The network itself if it already computes in that precision, otherwise a copy.
    """
    import keras

    if all(layer.compute_dtype == precision for layer in all_layers(network)):
        return network
    config = _with_precision(keras.saving.serialize_keras_object(network), precision)
    copied = keras.saving.deserialize_keras_object(config)
    copied.set_weights([weight.astype(precision) for weight in network.get_weights()])
    return copied


def all_layers(network: Any) -> list[Any]:
    """The layers of a network, including those of nested networks."""
    return [layer for layer in network._flatten_layers() if layer is not network]


def _with_precision(config: Any, precision: Precision) -> Any:
    """A serialized network with every floating-point dtype replaced by one precision."""
    if isinstance(config, list | tuple):
        return [_with_precision(item, precision) for item in config]
    if not isinstance(config, dict):
        return config
    if str(config.get("class_name", "")).endswith("DTypePolicy"):
        return {**config, "config": {**config["config"], "name": precision}}
    return {
        key: precision
        if key == "dtype" and value in _REPLACED[precision]
        else _with_precision(value, precision)
        for key, value in config.items()
    }
