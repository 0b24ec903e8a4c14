"""What the trained Keras model says of a split. Run it in a process of its own."""

from pathlib import Path

import numpy as np

from pipeline.artifacts import write_array
from pipeline.datasets import PreparedDataset, SplitName
from pipeline.progress import progress
from pipeline.training import TrainedModel
from pipeline.training.devices import choose_device, import_tensorflow

_BATCH = 250


def predict_split(model: TrainedModel, dataset: PreparedDataset, split: SplitName, path: Path) -> Path:
    """Write the model's probabilities, float32 [images, classes], for every image of a split as `.npy`.

    On the CPU in float32, whatever it was trained on: this is what the ONNX file must equal.
    """
    import_tensorflow()
    choose_device("cpu")
    import keras

    network = keras.saving.load_model(model.model_path, safe_mode=True, compile=False)
    pixels = dataset.split(split).pixels
    answers = []
    with progress("evaluate", len(pixels), "images") as advance:
        for start in range(0, len(pixels), _BATCH):
            batch = np.asarray(pixels[start : start + _BATCH])
            answers.append(network.predict_on_batch(batch))
            advance(len(batch), "")
    write_array(path, np.concatenate(answers).astype(np.float32))
    return path
