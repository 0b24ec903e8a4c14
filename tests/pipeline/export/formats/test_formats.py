"""Files in other formats: converted, compared, published or refused, verified, and run by programs."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json, read_manifest, verify_files
from pixelmill.pipeline.bundles import ModelBundle, open_bundle
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.golden import read_golden
from pixelmill.pipeline.bundles.model_files import MODEL_FILES, model_files
from pixelmill.pipeline.bundles.verification import require_agreement, verify_bundle
from pixelmill.pipeline.config import Int8Spec
from pixelmill.pipeline.datasets import Images
from pixelmill.pipeline.errors import GateRefused, RequestError, WorkError
from pixelmill.pipeline.export.formats.addition import remove_refused
from pixelmill.pipeline.export.formats.agreement import FormatResult, measure_formats, require_formats_agree
from pixelmill.pipeline.export.held_out import HeldOut, from_dataset
from pixelmill.pipeline.export.parity import Tolerance
from pixelmill.pipeline.export.quantization import sample_evenly
from pixelmill.pipeline.image_encoding import encode_png
from pixelmill.pipeline.inference import load_session
from pixelmill.pipeline.processes import run_in_spawned_process
from pixelmill.pipeline.recipes import load_recipe
from pixelmill.pipeline.registry.training_data import find_dataset
from tests.conftest import Run, update_manifest
from tests.pipeline.export.formats.networks import IMAGE, draw_images, write_networks

pytestmark = [
    pytest.mark.xdist_group("formats"),
    pytest.mark.skipif(
        not all(ENGINES[name].version() for name in (EngineName.LITERT, EngineName.OPENVINO)),
        reason="engines are not installed: pip install '.[engines]'",
    ),
]
TOLERANCE = Tolerance(1e-7, 1e-5, 2e-5)
ALL = "onnx,litert,openvino,triton,ort"
FILES = (
    "model.tflite",
    "model.int8.tflite",
    "openvino/model.xml",
    "model.ort",
    "triton/digits/1/model.onnx",
)


@pytest.fixture(scope="module")
def held_out(trained_store: Path, bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    dataset = find_dataset(trained_store, bundle)
    assert dataset is not None
    return from_dataset(dataset, bundle.image_spec(), tmp_path_factory.mktemp("held-out"))


@pytest.fixture(scope="module")
def delivered(run: Run, trained_store: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """`digits@1`, exported with every format by the real command."""
    output = tmp_path_factory.mktemp("formats") / "delivered"
    result = run("export", "digits@1", "--store", trained_store, "--output", output, "--format", ALL)
    assert result.code == 0, result.errors
    assert "delegate" not in result.errors, "engines print nothing"
    assert re.search(r"openvino openvino/model\.xml, .* 0 of 359 labels differ", result.output)
    return open_bundle(output)


@pytest.fixture
def copy(delivered: ModelBundle, tmp_path: Path) -> ModelBundle:
    shutil.copytree(delivered.folder, tmp_path / "copy")
    return replace(delivered, folder=tmp_path / "copy")


@pytest.fixture(scope="module")
def networks(
    bundle: ModelBundle, held_out: HeldOut, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """Other networks in every format, `digits` once more, and what was said of the rest."""
    folder = tmp_path_factory.mktemp("networks")
    for name in ("digits", "black"):
        shutil.copytree(bundle.folder, folder / name)
    assert held_out.arrays is not None
    calibration = sample_evenly(held_out.arrays.training, 512)
    return folder, run_in_spawned_process(write_networks, folder, calibration)


def measure(folder: Path, files: list[Path]) -> tuple[FormatResult, ...]:
    formats = tuple(kind.format for kind in MODEL_FILES if kind.format != "onnx")
    return measure_formats(folder, formats, files, None, IMAGE, TOLERANCE, Int8Spec(max_flip_fraction=0.5))


def test_every_file_is_in_the_manifest_the_proof_and_the_readme(
    delivered: ModelBundle, bundle: ModelBundle
) -> None:
    manifest = verify_files(delivered.folder)
    assert tuple(model_files(manifest["files"])) == ("model.onnx", *FILES)
    assert manifest["export"]["formats"] == ALL.split(",")
    # The bundle's own files are the same; four describe the added ones.
    before = read_manifest(bundle.folder)["files"]
    changed = {name for name, facts in before.items() if facts != manifest["files"][name]}
    assert changed == {"README.md", "bom.cdx.json", "parity.json", "report/export.html"}
    results = {result["file"]: result for result in read_json(delivered.folder / "parity.json")["formats"]}
    assert tuple(results) == FILES
    for name, result in results.items():
        is_exact = "int8" not in name
        assert (result["images"], result["invalid"], result["refused"]) == (359, 0, "")
        assert result["golden_difference"] < (1e-5 if is_exact else 0.05)
        assert (result["allowed_difference"] == 1e-5) == is_exact
        assert result["accuracy"] > 0.9
    readme, report = ((delivered.folder / name).read_text() for name in ("README.md", "report/export.html"))
    for name in FILES[:4]:
        assert f"`{name}`" in readme
        assert name in report
    assert "`triton/`" in readme


def test_no_file_names_a_folder_of_this_machine(delivered: ModelBundle) -> None:
    names = [*FILES, "openvino/model.bin", "required_operators_and_types.config", "parity.json"]
    for name in names:
        content = (delivered.folder / name).read_bytes()
        for place in (Path(__file__).parents[4], delivered.folder.parent, Path("/tmp")):
            assert str(place).encode() + b"/" not in content, name


def test_verify_replays_the_golden_images_on_every_file(delivered: ModelBundle) -> None:
    found = verify_bundle(delivered, [EngineName.ONNXRUNTIME, EngineName.OPENVINO, EngineName.LITERT])
    require_agreement(found)
    assert [(check.engine.value, check.file) for check in found.engines] == [
        ("onnxruntime", "model.onnx"),
        ("openvino", "model.onnx"),
        ("litert", "model.tflite"),
        ("litert", "model.int8.tflite"),
        ("openvino", "openvino/model.xml"),
        ("onnxruntime", "model.ort"),
        ("onnxruntime", "triton/digits/1/model.onnx"),
    ]


@pytest.mark.parametrize("name", ["model.tflite", "openvino/model.bin", "triton/digits/config.pbtxt"])
def test_a_tampered_file_is_refused(copy: ModelBundle, name: str) -> None:
    content = bytearray((copy.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy.folder / name).write_bytes(content)
    with pytest.raises(WorkError, match="has SHA-256"):
        verify_bundle(copy)


def test_another_model_in_place_of_a_file_is_refused(copy: ModelBundle) -> None:
    shutil.copyfile(copy.folder / "model.int8.tflite", copy.folder / "model.tflite")
    update_manifest(copy.folder)
    found = verify_bundle(copy, [EngineName.LITERT])
    assert [check.agrees for check in found.engines] == [False, True]
    with pytest.raises(GateRefused, match=r"different results from LiteRT with model\.tflite;"):
        require_agreement(found)


def test_a_file_that_cannot_be_loaded_is_reported(copy: ModelBundle) -> None:
    (copy.folder / "model.tflite").write_bytes(b"no model")
    update_manifest(copy.folder)
    first, _ = verify_bundle(copy, [EngineName.LITERT]).engines
    assert first.difference is None
    assert first.error


def test_another_process_makes_the_same_bytes(
    delivered: ModelBundle, networks: tuple[Path, dict[str, str]]
) -> None:
    """Except `model.ort`: onnxruntime writes tables in the order of their addresses."""
    again = networks[0] / "digits"
    for name in (*FILES[:3], "openvino/model.bin", "triton/digits/config.pbtxt", FILES[4]):
        assert (again / name).read_bytes() == (delivered.folder / name).read_bytes(), name


def test_depthwise_grouped_and_residual_layers_agree(
    networks: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    files = []
    for number, pixels in enumerate(draw_images(40)):
        files.append(tmp_path / f"{number:02d}.png")
        files[-1].write_bytes(encode_png(pixels))
    (tmp_path / "40.png").write_bytes(b"no image")
    results = measure(networks[0] / "residual", [*files, tmp_path / "40.png"])
    assert [result.format for result in results] == ["litert", "litert", "openvino", "ort", "triton"]
    require_formats_agree(results, TOLERANCE)
    for result in results:
        assert (result.images, result.invalid) == (40, 0)
        # The classes of a network with random weights are too close to survive int8.
        assert bool(result.refused) is (result.precision == "int8" and result.label_flips > 20)
        assert result.max_abs_difference < (0.1 if result.precision == "int8" else 1e-5)


def test_a_layer_that_a_format_lacks_is_named_in_one_line(networks: tuple[Path, dict[str, str]]) -> None:
    folder, said = networks
    assert set(said) == {"sinh"}
    assert said["sinh"] == (
        "1: a model that LiteRT cannot express: it lacks Sinh; expected layers that consist of LiteRT's own "
        "ops. Leave litert out of `formats`, or replace the layer."
    )
    assert not list((folder / "sinh").glob("*.tflite"))


def test_a_file_that_differs_is_refused(
    networks: tuple[Path, dict[str, str]], delivered: ModelBundle, held_out: HeldOut, tmp_path: Path
) -> None:
    """An int8 file in place of a float32 one, which differs as much as a wrong conversion might."""
    shutil.copytree(networks[0] / "digits", tmp_path / "digits")
    shutil.copyfile(tmp_path / "digits/model.int8.tflite", tmp_path / "digits/model.tflite")
    spec, limits = delivered.image_spec(), Int8Spec()
    results = measure_formats(
        tmp_path / "digits", ["litert"], held_out.files(), held_out.labels, spec, TOLERANCE, limits
    )
    with pytest.raises(GateRefused, match=r"model\.tflite on LiteRT .* Leave litert out of `formats`"):
        require_formats_agree(results, TOLERANCE)


def test_int8_beyond_its_limits_is_not_published(
    bundle: ModelBundle, networks: tuple[Path, dict[str, str]], held_out: HeldOut
) -> None:
    """Calibrated on black images, int8 cannot represent any others."""
    folder, spec, limits = networks[0] / "black", bundle.image_spec(), Int8Spec()
    files, labels = held_out.files(), held_out.labels
    results = measure_formats(folder, ["litert"], files, labels, spec, TOLERANCE, limits)
    exact, integers = results
    require_formats_agree(results, TOLERANCE)
    assert (exact.refused, exact.label_flips) == ("", 0)
    assert "labels differ from model.onnx" in integers.refused
    remove_refused(folder, results)
    assert (folder / "model.tflite").is_file()
    assert not (folder / "model.int8.tflite").exists()


def test_integers_are_used_and_the_rows_add_up_to_one(delivered: ModelBundle, held_out: HeldOut) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(delivered.folder / "model.int8.tflite"))
    kinds = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    assert np.int8 in kinds
    assert held_out.arrays is not None
    images: Images = held_out.arrays.held_out
    run = ENGINES[EngineName.LITERT].load(delivered.folder / "model.int8.tflite")
    predicted = run(np.asarray(images.pixels))
    assert np.abs(predicted.sum(axis=1) - 1).max() < 1e-5
    assert (predicted.argmax(axis=1) == images.labels).mean() > 0.95


def test_the_list_of_ops_is_that_of_the_file(delivered: ModelBundle) -> None:
    lines = (delivered.folder / "required_operators_and_types.config").read_text().splitlines()
    assert lines[0] == "# The ops and types of model.ort"
    assert any(line.startswith("ai.onnx;") and "Softmax" in line for line in lines)
    metadata = load_session(delivered.folder / "model.ort").metadata
    assert metadata == load_session(delivered.onnx_path).metadata


def program_of(page: str, name: str) -> str:
    """The program that the README says to save under a name."""
    after = page.split(f"ave as `{name}`")[1]
    return after.split("```python\n")[1].split("```\n")[0]


@pytest.mark.parametrize("name", ["classify_litert.py", "classify_openvino.py", "classify_ort.py"])
def test_a_program_of_the_readme_predicts_the_golden_probabilities(copy: ModelBundle, name: str) -> None:
    page = (copy.folder / "README.md").read_text()
    for program in ("classify.py", name):
        (copy.folder / program).write_text(program_of(page, program))
    golden, labels = read_golden(copy.folder), copy.labels()
    done = subprocess.run(
        [sys.executable, name, golden.files[0]], cwd=copy.folder, capture_output=True, text=True, check=True
    )
    probability, label = done.stdout.splitlines()[0].split("  ", 1)
    assert label == labels[golden.probabilities[0].argmax()]
    assert float(probability) == pytest.approx(golden.probabilities[0].max(), abs=1e-5)


def test_the_program_for_triton_compiles(delivered: ModelBundle) -> None:
    program = program_of((delivered.folder / "README.md").read_text(), "classify_triton.py")
    compile(program, "classify_triton.py", "exec")
    assert '.infer("digits", [image])' in program


def test_formats_that_are_there_already_are_delivered_as_they_are(
    delivered: ModelBundle, run: Run, tmp_path: Path
) -> None:
    result = run("export", delivered.folder, "--output", tmp_path / "again", "--format", "litert,ort")
    assert result.code == 0, result.errors
    assert read_manifest(tmp_path / "again") == read_manifest(delivered.folder)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("tflite", r"Correct 'tflite'"), ("ort,ort", r"at most once"), ("", r"Correct ''")],
)
def test_unknown_formats_are_refused(
    run: Run, trained_store: Path, tmp_path: Path, wanted: str, message: str
) -> None:
    store = ("--store", trained_store)
    result = run("export", "digits@1", *store, "--output", tmp_path / "out", "--format", wanted)
    assert result.code == 2
    assert re.search(message, result.last_error)
    assert not (tmp_path / "out").exists()


def test_a_recipe_names_each_format_once() -> None:
    assert load_recipe("digits").export.formats == ("onnx",)
    recipe = load_recipe("digits", ["export.formats=[litert, ort]"])
    assert recipe.export.formats == ("onnx", "litert", "ort")
    with pytest.raises(RequestError, match="each format once"):
        load_recipe("digits", ["export.formats=[ort, ort]"])
