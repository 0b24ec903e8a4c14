"""Selecting the training device; requesting a GPU that is not available is an error."""

import os
from typing import Literal

from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.processes import without_native_output
from pixelmill.pipeline.resources import processor_limit


def import_tensorflow() -> None:
    """Import TensorFlow and Keras, showing what their native libraries print only if the import fails."""
    # Export and evaluation run on TensorFlow, whichever backend the network was trained with.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_native_output():
        import keras  # noqa: F401
        import tensorflow as tf  # noqa: F401


def choose_device(wanted: Literal["auto", "cpu", "gpu"]) -> str:
    """Hide or require the GPU, and return a description of the selected device.

    Raises:
        RequestError: A GPU was requested, and TensorFlow sees none.
    """
    import tensorflow as tf

    # TensorFlow counts the processors of the host, of which a container may have fewer.
    tf.config.threading.set_intra_op_parallelism_threads(processor_limit().count)
    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "gpu" and not gpus:
        built = "with" if tf.test.is_built_with_cuda() else "without"
        raise RequestError(
            f"training.device is gpu, and TensorFlow {tf.__version__}, built {built} CUDA, sees no GPU",
            "a GPU with its driver, and the extra `train-gpu`",
            "Install `pixelmill[train-gpu]`, or set training.device=cpu.",
        )
    if wanted == "cpu" or not gpus:
        tf.config.set_visible_devices([], "GPU")
        return "cpu"
    details = tf.config.experimental.get_device_details(gpus[0])
    return f"gpu ({details.get('device_name', 'unnamed')})"
