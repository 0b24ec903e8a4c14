"""Variants of lower precision: valid, reproducible, compared with the original, published or refused."""

import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pixelmill.pipeline.bundles import ONNX_FILE, ONNX_FILES, ModelBundle, open_bundle
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.config import ExportSpec, ReducedPrecision
from pixelmill.pipeline.datasets import Images, PreparedDataset
from pixelmill.pipeline.errors import RequestError, WorkError
from pixelmill.pipeline.export.graph import canonicalize, serialize
from pixelmill.pipeline.export.quantization import make_variant, round_like_float16, sample_evenly
from pixelmill.pipeline.export.runtimes import OnnxVersion
from pixelmill.pipeline.export.variants import (
    VariantResult,
    export_variants,
    judge_variants,
    measure_variants,
)
from pixelmill.pipeline.images import Pixels
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.predictions import read_predictions
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.scoring import ScoringRequest
from pixelmill.pipeline.scoring.run import score_folder
from tests.conftest import update_manifest, write_images

# One worker runs all of these tests, so that it creates the expensive fixtures once.
pytestmark = pytest.mark.xdist_group("variants")

BOTH: tuple[ReducedPrecision, ...] = ("fp16", "int8")


@pytest.fixture(scope="module")
def dataset(trained_store: Path, bundle: ModelBundle) -> PreparedDataset:
    """The dataset on which `bundle` was trained."""
    from pixelmill.pipeline.artifacts import verify_files

    (folder,) = (trained_store / "datasets").glob("digits-*")
    return PreparedDataset.from_manifest(folder, verify_files(folder))


@pytest.fixture(scope="module")
def training(dataset: PreparedDataset) -> Pixels:
    return sample_evenly(dataset.split("train").pixels, 200)


@pytest.fixture(scope="module")
def variants(bundle: ModelBundle, training: Pixels) -> dict[ReducedPrecision, bytes]:
    """The bundle's file in each precision."""
    content = bundle.onnx_path.read_bytes()
    return {precision: make_variant(content, precision, training) for precision in BOTH}


def small_network(opset: int, scale: float = 1.0) -> bytes:
    """An ONNX file like an exported one: a convolution and a dense layer on 4 x 4 grey images."""
    random = np.random.default_rng(3)
    weights = {
        "part": np.float32(1 / 255),
        "kernel": (scale * random.normal(size=(6, 1, 3, 3))).astype(np.float32),
        "dense": random.normal(size=(6, 5)).astype(np.float32),
        "bias": random.normal(size=5).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["in"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "part"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("in", TensorProto.UINT8, ["n", 4, 4, 1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return serialize(canonicalize(model, OnnxVersion(opset, 8), {"name": "small"}, "A small network."))


def small_images(count: int) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (count, 4, 4, 1), np.uint8)


@pytest.mark.parametrize("precision", BOTH)
def test_a_variant_is_a_standard_file_that_describes_itself(
    bundle: ModelBundle, variants: dict[ReducedPrecision, bytes], precision: ReducedPrecision
) -> None:
    original, variant = onnx.load(bundle.onnx_path), onnx.load_model_from_string(variants[precision])
    onnx.checker.check_model(variant, full_check=True)
    assert [(item.domain, item.version) for item in variant.opset_import] == [("", 17)]
    assert variant.ir_version == original.ir_version
    assert list(variant.graph.input) == list(original.graph.input)
    assert list(variant.graph.output) == list(original.graph.output)
    metadata = [{entry.key: entry.value for entry in model.metadata_props} for model in (original, variant)]
    assert metadata[1] == {**metadata[0], "precision": precision}
    assert len(variants[precision]) < 0.6 * bundle.onnx_path.stat().st_size


def test_fp16_has_no_float32_and_int8_has_a_scale_per_channel(
    variants: dict[ReducedPrecision, bytes],
) -> None:
    halves = onnx.load_model_from_string(variants["fp16"]).graph
    assert TensorProto.FLOAT not in {constant.data_type for constant in halves.initializer}
    integers = onnx.load_model_from_string(variants["int8"]).graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in integers.initializer}
    producers = {node.output[0]: node for node in integers.node}
    convolutions = [node for node in integers.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        values, scales = (constants[name] for name in producers[node.input[1]].input[:2])
        assert values.dtype == np.int8
        assert scales.shape == values.shape[:1]
        # Two products of such weights with bytes fit into 16 bits, in which CPUs without VNNI add them.
        assert np.abs(values.astype(int)).max() == 64
        assert producers[node.input[0]].op_type == "DequantizeLinear"


@pytest.mark.parametrize("precision", BOTH)
def test_another_process_makes_the_same_bytes(
    bundle: ModelBundle,
    training: Pixels,
    variants: dict[ReducedPrecision, bytes],
    precision: ReducedPrecision,
) -> None:
    again = run_in_spawned_process(make_variant, bundle.onnx_path.read_bytes(), precision, training)
    assert again == variants[precision]


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("precision", BOTH)
def test_every_opset_has_its_variants(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    opset: int,
    precision: ReducedPrecision,
) -> None:
    content, images = small_network(opset), small_images(200)
    variant = make_variant(content, precision, images[:100])
    # Standard output is reserved for --json.
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
    assert [item.version for item in onnx.load_model_from_string(variant).opset_import] == [opset]
    predictions = []
    for name, data in (("original", content), ("variant", variant)):
        (tmp_path / name).write_bytes(data)
        predictions.append(load_session(tmp_path / name).probabilities(images))
    assert 0 < np.abs(predictions[0] - predictions[1]).max() < 0.1


def test_float16_rows_add_up_to_one_on_an_engine_that_computes_in_float16(
    variants: dict[ReducedPrecision, bytes], training: Pixels, tmp_path: Path
) -> None:
    path = tmp_path / "model.fp16.onnx"
    path.write_bytes(variants["fp16"])
    predictions = ENGINES[EngineName.REFERENCE].load(path)(training[:50])
    assert np.abs(predictions.sum(axis=1) - 1).max() < 1e-6


def test_all_values_between_ops_are_rounded_to_float16(bundle: ModelBundle, training: Pixels) -> None:
    model = onnx.load_model_from_string(round_like_float16(bundle.onnx_path.read_bytes()))
    onnx.checker.check_model(model, full_check=True)
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    read = {name for node in model.graph.node if node.op_type != "Cast" for name in node.input}
    constants = {constant.name for constant in model.graph.initializer}
    values = sorted(read - constants)
    assert softmax.input[0] in values
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in values)
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": training[:20]})
    for value in found:
        assert np.array_equal(value, value.astype(np.float16).astype(np.float32))


def test_int8_uses_the_ranges_of_the_calibration_images() -> None:
    content, images = small_network(17), small_images(100)
    assert make_variant(content, "int8", images) != make_variant(content, "int8", images // 2)


def test_a_model_that_cannot_be_converted_is_reported() -> None:
    with pytest.raises(WorkError, match=r"cannot be converted to int8 .* Remove int8 from export\.variants"):
        make_variant(small_network(17), "int8", np.zeros((5, 3, 3, 2), np.uint8))


@settings(deadline=None)
@given(available=st.integers(1, 300), wanted=st.integers(1, 300))
def test_calibration_images_are_evenly_spaced(available: int, wanted: int) -> None:
    pixels = np.arange(available, dtype=np.uint16).reshape(-1, 1, 1, 1)
    chosen = sample_evenly(pixels, wanted).ravel()
    assert len(chosen) == min(available, wanted)
    assert len(set(chosen)) == len(chosen)
    gaps = np.diff(chosen.astype(int))
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_the_results_of_a_variant_match_its_file(
    bundle: ModelBundle, dataset: PreparedDataset, tmp_path: Path
) -> None:
    """A model that always predicts 0, so that its results can be computed in another way."""
    model = onnx.load(bundle.onnx_path)
    bias = next(constant for constant in model.graph.initializer if list(constant.dims) == [10])
    bias.CopyFrom(numpy_helper.from_array(100 * np.eye(10, dtype=np.float32)[0], bias.name))
    zeros = tmp_path / "zeros.onnx"
    onnx.save(model, zeros)
    test = dataset.split("test")
    said = load_session(bundle.onnx_path).probabilities(np.asarray(test.pixels)).argmax(axis=1)
    original, changed = measure_variants({"fp32": bundle.onnx_path, "int8": zeros}, test.pixels, test.labels)
    assert (original.label_flips, original.max_abs_difference) == (0, 0)
    assert original.accuracy == pytest.approx((said == test.labels).mean())
    assert changed.label_flips == np.count_nonzero(said)
    assert changed.accuracy == pytest.approx((test.labels == 0).mean())
    assert (changed.images, changed.bytes) == (359, zeros.stat().st_size)
    assert 0.99 < changed.max_abs_difference <= 1
    assert min(original.images_per_second, changed.images_per_second) > 0
    assert measure_variants({"fp32": zeros}, test.pixels, None)[0].accuracy is None


def test_nan_predictions_count_as_wrong(tmp_path: Path) -> None:
    """Float16 overflows as on a GPU, although onnxruntime computes in float32 on a CPU."""
    content, images = small_network(17, scale=1e6), small_images(40)
    paths = {"fp32": tmp_path / "model.onnx", "fp16": tmp_path / "model.fp16.onnx"}
    paths["fp32"].write_bytes(content)
    paths["fp16"].write_bytes(make_variant(content, "fp16", images))
    said = load_session(paths["fp32"]).probabilities(images).argmax(axis=1)
    _, halves = measure_variants({"fp32": paths["fp32"], "fp16": paths["fp16"]}, images, said)
    assert (halves.label_flips, halves.accuracy, halves.max_abs_difference) == (40, 0, 1)
    json.dumps(asdict(halves), allow_nan=False)


def result(flips: int, correct: int | None, images: int = 1000) -> tuple[VariantResult, VariantResult]:
    accuracy = None if correct is None else correct / images
    original = VariantResult("fp32", "model.onnx", 100, images, 0, 0, accuracy and 0.9, 10)
    return original, replace(original, precision="int8", label_flips=flips, accuracy=accuracy)


@pytest.mark.parametrize(
    ("flips", "correct", "reason"),
    [
        (10, 895, ""),
        (11, 895, r"11 of 1,000 labels differ from model.onnx (1.10%; at most 1.00%)"),
        (10, 894, "accuracy falls by 0.60% (at most 0.50%)"),
        (0, 1000, ""),
        (10, None, ""),
        (20, 880, "labels differ from model.onnx (2.00%; at most 1.00%), and accuracy falls by 2.00%"),
    ],
)
def test_a_result_beyond_a_limit_is_refused_with_the_reason(
    flips: int, correct: int | None, reason: str
) -> None:
    original, judged = judge_variants(result(flips, correct), ExportSpec())
    assert original.refused == ""
    assert reason in judged.refused
    assert bool(judged.refused) == bool(reason)


@settings(deadline=None)
@given(images=st.integers(1, 10**6), data=st.data())
def test_a_result_equal_to_a_limit_is_allowed(images: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, images))
    lost = data.draw(st.integers(0, images))
    export = ExportSpec.model_validate(
        {"int8": {"max_flip_fraction": count / images, "max_accuracy_drop": lost / images}}
    )
    original = VariantResult("fp32", "model.onnx", 100, images, 0, 0, 1.0, 10)
    fitting = replace(original, precision="int8", label_flips=count, accuracy=(images - lost) / images)
    assert judge_variants((original, fitting), export)[1].refused == ""
    for worse in (
        replace(fitting, label_flips=count + 1),
        replace(fitting, accuracy=(images - lost - 1) / images),
    ):
        assert judge_variants((original, worse), export)[1].refused


def test_variants_within_the_limits_are_published_and_score(
    bundle: ModelBundle, dataset: PreparedDataset, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.folder, folder)
    results = export_variants(
        folder, dataset.split("train").pixels, dataset.split("test"), ExportSpec(variants=BOTH)
    )
    assert [(each.precision, each.file) for each in results] == list(ONNX_FILES.items())
    assert [each.refused for each in results] == ["", "", ""]
    update_manifest(folder)
    write_images(tmp_path / "images", 10)
    for precision in BOTH:
        output = tmp_path / precision
        score_folder(ScoringRequest(open_bundle(folder, precision), tmp_path / "images", output))
        assert Counter(read_predictions(output)["status"]) == {"scored": 10}


def test_a_variant_beyond_the_limits_is_not_published(
    bundle: ModelBundle, dataset: PreparedDataset, tmp_path: Path
) -> None:
    shutil.copyfile(bundle.onnx_path, tmp_path / ONNX_FILE)
    # Calibrated on black images, int8 cannot represent any others.
    black = np.zeros((64, 8, 8, 1), np.uint8)
    test = dataset.split("test")
    results = export_variants(
        tmp_path, black, Images(test.pixels[:100], test.labels[:100]), ExportSpec(variants=BOTH)
    )
    assert [bool(each.refused) for each in results] == [False, False, True]
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.fp16.onnx"}
    assert (tmp_path / ONNX_FILE).read_bytes() == bundle.onnx_path.read_bytes()


def test_without_variants_nothing_is_measured(tmp_path: Path) -> None:
    images = small_images(3)
    assert export_variants(tmp_path, images, Images(images, np.zeros(3, np.int64)), ExportSpec()) == ()
    assert not list(tmp_path.iterdir())


def test_a_recipe_names_each_variant_once_and_sets_their_limits() -> None:
    recipe = load_recipe("digits", ["export.variants=[int8, fp16]", "export.int8.max_flip_fraction=0.25"])
    assert recipe.export.variants == ("int8", "fp16")
    assert (recipe.export.int8.max_flip_fraction, recipe.export.int8.calibration_images) == (0.25, 512)
    with pytest.raises(RequestError, match="each variant once"):
        load_recipe("digits", ["export.variants=[int8, int8]"])
    with pytest.raises(RequestError, match="'fp16' or 'int8'"):
        load_recipe("digits", ["export.variants=[int4]"])
