"""OpenVINO's intermediate representation (IR), made from `model.onnx`."""

from pathlib import Path

from pixelmill.pipeline.bundles import ONNX_FILE
from pixelmill.pipeline.bundles.model_files import OPENVINO_FILE


def write_openvino(folder: Path) -> None:
    """Write `openvino/model.xml` and `model.bin`: float32 weights, and the metadata of `model.onnx`.

    The same ONNX file gives the same bytes. `pixelmill.pipeline.telemetry` disables OpenVINO's telemetry.
    """
    import openvino

    path = folder / OPENVINO_FILE
    path.parent.mkdir()
    # `convert_model` would record the path of the ONNX file.
    model = openvino.Core().read_model(str(folder / ONNX_FILE))
    openvino.save_model(model, str(path), compress_to_fp16=False)
