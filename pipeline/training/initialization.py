"""Kernels that pass channels on at first, in place of kernels drawn at random."""

from typing import Any


def pass_channels_on(network: Any) -> None:
    """Have each convolution of a network begin by passing channels on: channel i goes to filter i.

    As many as there are of both; the filters beyond keep the kernels that were drawn for them. Kernels of
    an even size, which have no middle, depthwise and separable ones, and those of a model inside this one,
    which may have been trained, stay as they are. Zagoruyko and Komodakis, 2017, arXiv:1706.00388; in
    convolutions without shortcuts as Jordan has it, 2024, arXiv:2404.00498, section 3.3.

    Args:
        network: A Keras model, built and not yet trained.
    """
    import keras

    for layer in network.layers:
        if type(layer) is keras.layers.Conv2D and all(side % 2 for side in layer.kernel_size):
            kernel = keras.ops.convert_to_numpy(layer.kernel).copy()
            middle = tuple(side // 2 for side in layer.kernel_size)
            passed = range(min(kernel.shape[2:]))
            kernel[..., passed] = 0
            kernel[*middle, passed, passed] = 1
            layer.kernel.assign(kernel)
