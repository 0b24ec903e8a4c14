"""Pitfalls between Keras and ONNX: layers that might be converted incorrectly are correct or refused."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.helper import make_graph, make_model, make_node

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.config import ExportSpec, ImageSpec
from pixelmill.pipeline.errors import PixelmillError, RequestError
from pixelmill.pipeline.export.conversion import require_standard_ops
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import Probabilities
from pixelmill.pipeline.processes import run_in_spawned_process

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("traps")

IMAGE = ImageSpec(height=8, width=8, channels=3)
_MIXED = "mixed_bfloat16"
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), np.uint8)


@dataclass(frozen=True)
class Exported:
    """The export of a network: its ONNX file and Keras's predictions, or the error."""

    onnx: bytes = b""
    keras: Probabilities | None = None
    error: PixelmillError | None = None


def _layers() -> dict[str, Callable[[Any], list[Any]]]:
    """Networks with one layer each, between a rescaling and a classifier."""
    return {
        "plain": lambda layers: [layers.Conv2D(4, 3)],
        "random": lambda layers: [layers.RandomFlip(), layers.GaussianNoise(0.5), layers.Dropout(0.5)],
        "normalization": lambda layers: [_adapted(layers.Normalization(name="scaled"))],
        "rescaling": lambda layers: [layers.Rescaling([0.5, 2.0, 1.0], [0.1, 0.2, 0.3])],
        "gelu": lambda layers: [layers.Conv2D(4, 3), layers.Activation("gelu", name="exact")],
        "approximate": lambda layers: [layers.Conv2D(4, 3), layers.Activation(_approximate_gelu)],
        "celu": lambda layers: [layers.Conv2D(4, 3), layers.Activation("celu", name="smooth")],
        "grouped": lambda layers: [layers.Conv2D(6, 3, groups=3, name="parted")],
        "strided": lambda layers: [
            layers.Conv2D(4, 1),
            layers.Conv2D(8, 3, groups=2, strides=2, padding="same"),
            layers.Conv2D(8, 3, groups=8, use_bias=False),
        ],
        "inverse": lambda layers: [layers.Conv2D(4, 3), layers.Activation(_inverse_erf, name="inverse")],
        "bicubic": lambda layers: [layers.Resizing(13, 13, interpolation="bicubic", name="enlarged")],
        "mixed": lambda layers: [layers.Conv2D(4, 3, dtype=_MIXED), layers.Dense(4, dtype=_MIXED)],
    }


def _adapted(layer: Any) -> Any:
    layer.adapt(np.random.default_rng(2).random((32, 8, 8, 3)))
    return layer


def _approximate_gelu(values: Any) -> Any:
    import keras

    return keras.activations.gelu(values, approximate=True)


def _inverse_erf(values: Any) -> Any:
    import keras

    return keras.ops.erfinv(values)


def export_all(opsets: tuple[int, ...]) -> dict[tuple[str, int], Exported]:
    from pixelmill.pipeline.training.devices import choose_device, import_tensorflow

    import_tensorflow()
    choose_device("cpu")
    import keras

    from pixelmill.pipeline.export.draft import write_onnx
    from pixelmill.pipeline.export.precision import in_precision

    exported = {}
    for name, layers in _layers().items():
        keras.utils.set_random_seed(0)
        inner = layers(keras.layers)
        ends = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4), keras.layers.Softmax()]
        network = keras.Sequential(
            [keras.Input((8, 8, 3), dtype="uint8"), keras.layers.Rescaling(1 / 255), *inner, *ends]
        )
        for opset in opsets:
            try:
                plain = in_precision(network, "float32")
                content = write_onnx(plain, IMAGE, ExportSpec(opset=opset), {})
                predictions = np.asarray(plain.predict_on_batch(PIXELS))
                exported[name, opset] = Exported(content, predictions)
            except PixelmillError as error:
                exported[name, opset] = Exported(error=error)
    return exported


@pytest.fixture(scope="module")
def exported() -> dict[tuple[str, int], Exported]:
    return run_in_spawned_process(export_all, (13, 17))


def predictions_of(content: bytes, pixels: Pixels) -> Probabilities:
    (predictions,) = onnxruntime.InferenceSession(content).run(None, {"image": pixels})
    return np.asarray(predictions)


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "random",
        "normalization",
        "rescaling",
        "gelu",
        "approximate",
        "celu",
        "grouped",
        "strided",
        "bicubic",
        "mixed",
    ],
)
def test_layers_that_can_be_expressed_match_keras(
    exported: dict[tuple[str, int], Exported], name: str, opset: int
) -> None:
    one = exported[name, opset]
    assert one.error is None, one.error
    assert one.keras is not None
    for size in (1, 6):
        predictions = np.concatenate(
            [predictions_of(one.onnx, PIXELS[at : at + size]) for at in range(0, 6, size)]
        )
        assert np.abs(predictions - one.keras).max() < 1e-5
    model = onnx.load_from_string(one.onnx)
    # Converted directly to this opset, because converting down may give an invalid file.
    assert [(item.domain, item.version) for item in model.opset_import] == [("", opset)]
    assert [value.name for value in model.graph.input] == ["image"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("opset", [13, 17])
def test_layers_that_cannot_be_expressed_are_reported(
    exported: dict[tuple[str, int], Exported], opset: int
) -> None:
    error = exported["inverse", opset].error
    assert isinstance(error, RequestError)
    assert "layer 'inverse' (Activation), which needs Erfinv" in str(error)
    assert "Replace the layer" in str(error)


def test_groups_are_part_of_the_convolution(exported: dict[tuple[str, int], Exported]) -> None:
    model = onnx.load_from_string(exported["strided", 17].onnx)
    groups = [
        attribute.i
        for node in model.graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    ]
    assert groups == [1, 2, 8]


def test_ops_of_a_newer_opset_are_refused(exported: dict[tuple[str, int], Exported]) -> None:
    model = onnx.load_from_string(exported["plain", 17].onnx)
    model.graph.node[-1].op_type = "LayerNormalization"
    model.graph.node[-1].name = "sequential_1/last_1/op"
    model.graph.node[-1].input.append("constant_0")
    require_standard_ops(model, 17, {})
    with pytest.raises(RequestError, match=r"layer 'last' \(Softmax\), which needs LayerNormalization"):
        require_standard_ops(model, 16, {"last": "Softmax"})


@pytest.mark.parametrize(
    ("node", "fits", "refused", "missing"),
    [
        # Each op is in both opsets, but with an attribute or input that only one of them has.
        (
            make_node("Resize", ["image", "", "s"], ["y"], antialias=1),
            18,
            17,
            "attribute antialias of Resize",
        ),
        (make_node("ReduceMean", ["image"], ["y"], axes=[1]), 17, 18, "attribute axes of ReduceMean"),
        (make_node("ReduceMean", ["image", "a"], ["y"]), 18, 17, "ReduceMean with 2 inputs"),
        (make_node("Pad", ["image", "p", "v", "a"], ["y"]), 18, 17, "Pad with 4 inputs"),
        (make_node("Split", ["image", "s"], ["y"], num_outputs=2), 18, 17, "attribute num_outputs of Split"),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_attributes_and_inputs_of_another_opset_are_refused(
    node: onnx.NodeProto, fits: int, refused: int, missing: str
) -> None:
    node.name = "model/scaled/op"
    branch = make_graph([node], "branch", [], [])
    within = make_node("If", ["image"], ["z"], then_branch=branch, else_branch=branch)
    for nodes in ([node], [within]):
        model = make_model(make_graph(nodes, "graph", [], []))
        require_standard_ops(model, fits, {})
        with pytest.raises(RequestError, match=rf"layer 'scaled' \(Resizing\), which needs (the )?{missing}"):
            require_standard_ops(model, refused, {"scaled": "Resizing"})


def test_ops_of_a_custom_domain_are_refused(bundle: ModelBundle, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(bundle.onnx_path, options)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert {node.domain for node in optimized.graph.node} - {""}
    with pytest.raises(RequestError, match="standard ops of opset 17"):
        require_standard_ops(optimized, 17, {})
    require_standard_ops(onnx.load(bundle.onnx_path), 17, {})
