"""The predictions of the installed engines: agreement, other labels, NaN, or none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.golden import GoldenVectors, read_golden
from pixelmill.pipeline.bundles.model_files import ONNX_ENGINES
from pixelmill.pipeline.errors import GateRefused
from pixelmill.pipeline.export.engine_agreement import EngineAgreement, compare_engines, require_engines_agree

INSTALLED = tuple(name for name in ONNX_ENGINES if ENGINES[name].version() is not None)
TIE_MARGIN = 2e-5


def write_nan_model(path: Path) -> None:
    """A file that predicts NaN for every image: the logarithm of a negative number."""
    nodes = [
        make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        make_node("GlobalAveragePool", ["cast"], ["pooled"]),
        make_node("Flatten", ["pooled"], ["flat"]),
        make_node("Neg", ["flat"], ["negative"]),
        make_node("Log", ["negative"], ["probabilities"]),
    ]
    image = make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 1])
    probabilities = make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 8])
    graph = make_graph(nodes, "nan", [image], [probabilities])
    path.write_bytes(
        make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


@pytest.fixture(scope="module")
def golden(bundle: ModelBundle) -> GoldenVectors:
    return read_golden(bundle.folder)


def test_every_installed_engine_is_run(bundle: ModelBundle, golden: GoldenVectors) -> None:
    agreements = compare_engines(bundle.onnx_path, golden, TIE_MARGIN)
    assert tuple(each.engine for each in agreements) == INSTALLED
    for each in agreements:
        assert (each.images, each.label_flips, each.invalid, each.trouble) == (4, 0, 0, "")
        assert each.max_abs_difference is not None
        assert each.max_abs_difference < 1e-5
    require_engines_agree(agreements)


def test_another_label_is_refused_unless_it_is_a_tie(bundle: ModelBundle, golden: GoldenVectors) -> None:
    other = golden.probabilities.copy()
    other[2] = np.roll(other[2], 1)
    agreements = compare_engines(bundle.onnx_path, replace(golden, probabilities=other), TIE_MARGIN)
    assert [each.label_flips for each in agreements] == [1] * len(INSTALLED)
    title = ENGINES[INSTALLED[0]].title
    with pytest.raises(GateRefused, match=rf"{title} .* another label than Keras for 1 of 4 golden images"):
        require_engines_agree(agreements)


def test_nan_is_refused_and_engines_that_cannot_run_are_reported(
    tmp_path: Path, golden: GoldenVectors
) -> None:
    write_nan_model(tmp_path / "nan.onnx")
    keras = replace(golden, probabilities=np.full((4, 8), 1 / 8, np.float32))
    found = {each.engine: each for each in compare_engines(tmp_path / "nan.onnx", keras, TIE_MARGIN)}
    runtime = found[EngineName.ONNXRUNTIME]
    assert (runtime.invalid, runtime.label_flips, runtime.max_abs_difference) == (4, 0, None)
    with pytest.raises(GateRefused, match="predicts no valid probabilities for 4 of 4 golden images"):
        require_engines_agree([runtime])
    (tmp_path / "text.onnx").write_text("no model")
    agreements = compare_engines(tmp_path / "text.onnx", golden, TIE_MARGIN)
    assert tuple(each.engine for each in agreements) == INSTALLED
    assert all(each.trouble and each.images == 0 for each in agreements)
    require_engines_agree(agreements)


def test_the_worst_engine_is_named() -> None:
    fine = EngineAgreement(EngineName.ONNXRUNTIME, "1", 4, 0, 0, 1e-7, "")
    bad = EngineAgreement(EngineName.OPENCV, "5", 4, 0, 3, None, "")
    with pytest.raises(GateRefused, match="OpenCV 5 predicts no valid probabilities for 3 of 4"):
        require_engines_agree([fine, bad])
