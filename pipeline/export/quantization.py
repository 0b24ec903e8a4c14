"""Converting an exported ONNX file to fp16 or quantizing it to int8.

The variants have the same input and output as `model.onnx` and use standard ops only.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pixelmill.pipeline.artifacts import scratch_folder
from pixelmill.pipeline.config import ReducedPrecision
from pixelmill.pipeline.datasets import PixelArray
from pixelmill.pipeline.errors import WorkError
from pixelmill.pipeline.export.conversion import INPUT_NAME, OUTPUT_NAME
from pixelmill.pipeline.export.graph import canonicalize, serialize
from pixelmill.pipeline.export.runtimes import OnnxVersion
from pixelmill.pipeline.images import Pixels

PRECISION = "precision"
_CALIBRATION_BATCH = 64
# Relu is included so that a convolution's range begins at zero and its Relu is free.
_QUANTIZED_OPS = ("Conv", "MatMul", "Gemm", "Relu")


def make_variant(content: bytes, precision: ReducedPrecision, calibration: Pixels) -> bytes:
    """Convert an ONNX file to a lower precision; the same file and images give the same bytes.

    Args:
        content: The bytes of `model.onnx`.
        precision: The precision of the variant, which is added to the metadata.
        calibration: Training images on which int8 quantization measures the ranges of activations; uint8
            [images, height, width, channels].

    Raises:
        WorkError: The model cannot be converted to this precision.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    version = OnnxVersion(model.opset_import[0].version, model.ir_version)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    documentation = f"{model.doc_string} Computes in {precision}."
    try:
        reduced = _REDUCE[precision](onnx.shape_inference.infer_shapes(model), calibration)
    except Exception as error:  # onnxruntime's converters raise exceptions of many types.
        raise WorkError(
            f"a model that cannot be converted to {precision} ({type(error).__name__}: {error})",
            f"layers that support {precision}",
            f"Remove {precision} from export.variants, or replace the layer in the recipe.",
        ) from error
    return serialize(canonicalize(reduced, version, {**metadata, PRECISION: precision}, documentation))


def round_like_float16(content: bytes) -> bytes:
    """A float32 model that rounds every weight and every op's result as float16 hardware does.

    On CPUs, onnxruntime computes an fp16 file in float32 and rounds only its weights. This model reveals
    overflows and label flips that would occur on a GPU. Sums inside an op stay in float32, as on GPUs.

    Args:
        content: The bytes of `model.onnx`.
    """
    import onnx
    import onnx_ir

    single, half = onnx_ir.DataType.FLOAT, onnx_ir.DataType.FLOAT16
    model = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content)))
    largest = np.finfo(np.float16).max
    for constant in model.graph.initializers.values():
        if constant.const_value is not None and constant.dtype == single:
            values = constant.const_value.numpy().clip(-largest, largest).astype(np.float16)
            constant.const_value = onnx_ir.tensor(values.astype(np.float32))
    for node in list(model.graph):
        for value in node.outputs:
            if value.dtype == single and not value.is_graph_output():
                uses = tuple(value.uses())
                rounded = onnx_ir.node("Cast", [value], {"to": half})
                widened = onnx_ir.node("Cast", rounded.outputs, {"to": single})
                model.graph.insert_after(node, [rounded, widened])
                for use in uses:
                    use.node.replace_input_with(use.idx, widened.outputs[0])
    return serialize(onnx_ir.to_proto(model))


def sample_evenly(pixels: PixelArray, count: int) -> Pixels:
    """At most `count` evenly spaced images, always the same ones; of every class if sorted by class."""
    chosen = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).round().astype(int)
    return np.asarray(pixels[chosen])


def _to_float16(model: Any, _: Pixels) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    reduced = convert_float_to_float16(model, keep_io_types=True)
    _cast_before_softmax(reduced.graph)
    return reduced


def _cast_before_softmax(graph: Any) -> None:
    """Move the final softmax to float32, because float16 rows add up to 1 only within 0.001."""
    producers = {output: node for node in graph.node for output in node.output}
    cast = producers[OUTPUT_NAME]
    softmax = producers[cast.input[0]]
    if (softmax.op_type, cast.op_type) == ("Softmax", "Cast"):
        logits, between = softmax.input[0], cast.input[0]
        cast.input[0], cast.output[0] = logits, between
        softmax.input[0], softmax.output[0] = between, OUTPUT_NAME


def _to_int8(model: Any, calibration: Pixels) -> Any:
    """Static quantization: int8 weights scaled per channel, uint8 activations scaled per tensor.

    Weights use 7 bits: CPUs without VNNI accumulate two 8-bit products in 16 bits, which can saturate, and
    would predict other labels than those measured here.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    # The graph is already simplified and has its shapes; without this entry onnxruntime warns.
    add_pre_process_metadata(model)
    with scratch_folder("quantization") as folder:
        path = folder / "model.onnx"
        quantize_static(
            model,
            path,
            _CalibrationImages(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED_OPS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(path)


class _CalibrationImages:
    """Batches of calibration images for onnxruntime, which calls `get_next` until it returns None."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches: Iterator[Pixels] = (
            np.ascontiguousarray(pixels[start : start + _CALIBRATION_BATCH])
            for start in range(0, len(pixels), _CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch by input name, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


_REDUCE: dict[ReducedPrecision, Callable[[Any, Pixels], Any]] = {"fp16": _to_float16, "int8": _to_int8}
