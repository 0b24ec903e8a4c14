"""Dirac initialization: kernels that start as the identity instead of random values."""

from typing import Any


def initialize_dirac(network: Any) -> None:
    """Initialize each convolution so that filter i passes channel i through unchanged.

    Filters beyond the number of input channels keep their random kernels. Kernels of an even size (which
    have no centre), depthwise and separable convolutions, and the layers of a nested model (which may be
    pretrained) are not changed. Zagoruyko and Komodakis, 2017, arXiv:1706.00388; applied to convolutions
    without shortcuts as in Jordan, 2024, arXiv:2404.00498, section 3.3.

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
