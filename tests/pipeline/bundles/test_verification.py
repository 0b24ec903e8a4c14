"""`verify`: the files of a bundle, its golden vectors, and the installed engines."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from pixelmill.pipeline.artifacts import MANIFEST, read_json, write_array
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.bundles.engines import ENGINES, EngineName
from pixelmill.pipeline.bundles.model_files import ONNX_ENGINES
from pixelmill.pipeline.bundles.verification import require_agreement, verify_bundle
from pixelmill.pipeline.errors import GateRefused, RequestError, WorkError
from pixelmill.pipeline.inference import load_session
from tests.conftest import update_manifest


@pytest.fixture
def copy(bundle: ModelBundle, tmp_path: Path) -> ModelBundle:
    shutil.copytree(bundle.folder, tmp_path / "copy")
    return replace(bundle, folder=tmp_path / "copy")


def change_array(file: Path, change: Callable[[np.ndarray], None]) -> None:
    array = np.load(file)
    change(array)
    write_array(file, array)


@pytest.mark.parametrize("name", ONNX_ENGINES)
def test_an_engine_predicts_the_golden_probabilities(bundle: ModelBundle, name: EngineName) -> None:
    if ENGINES[name].version() is None:
        pytest.skip(f"{ENGINES[name].title} is not installed: pip install '.[engines]'")
    (check,) = verify_bundle(bundle, [name]).engines
    assert check.error == ""
    assert check.difference is not None
    assert check.difference <= check.allowed == 1e-5
    assert check.version == ENGINES[name].version()


def test_all_installed_engines_are_run(bundle: ModelBundle) -> None:
    found = verify_bundle(bundle)
    require_agreement(found)
    requested = {check.engine for check in found.engines}
    assert {EngineName.ONNXRUNTIME, EngineName.REFERENCE} <= requested
    assert requested | set(found.missing) == set(ONNX_ENGINES)
    assert {check.file for check in found.engines} == {"model.onnx"}
    assert not requested & set(found.missing)
    assert found.images == 4
    assert found.files == len(read_json(bundle.folder / MANIFEST)["files"])


def test_an_engine_that_reads_none_of_the_files_is_refused(bundle: ModelBundle) -> None:
    if ENGINES[EngineName.LITERT].version() is None:
        pytest.skip("LiteRT is not installed: pip install '.[engines]'")
    with pytest.raises(RequestError, match="litert, which reads none of the files"):
        verify_bundle(bundle, [EngineName.LITERT])


def test_a_file_that_the_proof_does_not_mention_is_refused(copy: ModelBundle) -> None:
    shutil.copyfile(copy.onnx_path, copy.folder / "model.ort")
    update_manifest(copy.folder)
    with pytest.raises(
        RequestError, match=r"no valid allowed_difference for every file \(KeyError: 'model.ort'"
    ):
        verify_bundle(copy)


def test_different_probabilities_are_refused(copy: ModelBundle) -> None:
    def nudge(probabilities: np.ndarray) -> None:
        probabilities[2, 3] += 2e-5

    change_array(copy.folder / "golden/probabilities.npy", nudge)
    update_manifest(copy.folder)
    found = verify_bundle(copy, [EngineName.ONNXRUNTIME])
    assert found.engines[0].difference == pytest.approx(2e-5, rel=0.1)
    with pytest.raises(GateRefused, match="different results from onnxruntime"):
        require_agreement(found)


def test_nan_does_not_agree(copy: ModelBundle) -> None:
    change_array(copy.folder / "golden/probabilities.npy", lambda array: array.fill(np.nan))
    update_manifest(copy.folder)
    found = verify_bundle(copy, [EngineName.ONNXRUNTIME])
    assert found.engines[0].difference is not None
    assert found.engines[0].difference > 1
    assert not found.agrees


def test_an_image_that_decodes_differently_is_reported(copy: ModelBundle) -> None:
    shutil.copyfile(copy.folder / "golden/plain.png", copy.folder / "golden/turned.jpg")
    (copy.folder / "golden/enlarged.png").write_bytes(b"no image")
    update_manifest(copy.folder)
    found = verify_bundle(copy)
    assert found.changed_tensors == ("enlarged.png", "turned.jpg")
    with pytest.raises(GateRefused, match=r"different results from enlarged\.png, turned\.jpg;"):
        require_agreement(found)


@pytest.mark.parametrize("content", [b"no graph", None])
def test_a_file_that_an_engine_cannot_run_is_reported_with_its_message(
    copy: ModelBundle, content: bytes | None
) -> None:
    if content is None:
        model = onnx.load(copy.onnx_path)
        del model.graph.node[0]
        content = model.SerializeToString()
    copy.onnx_path.write_bytes(content)
    update_manifest(copy.folder)
    with pytest.raises(Exception) as raised:  # noqa: PT011  # Whatever the engine raises.
        load_session(copy.onnx_path)
    (check,) = verify_bundle(copy, [EngineName.ONNXRUNTIME]).engines
    assert check.difference is None
    assert check.error.split()[0] in str(raised.value)
    assert not check.agrees


def test_a_model_with_another_output_shape_is_reported(copy: ModelBundle) -> None:
    change_array(copy.folder / "golden/probabilities.npy", lambda array: None)
    array = np.load(copy.folder / "golden/probabilities.npy")
    write_array(copy.folder / "golden/probabilities.npy", array[:, :-1])
    update_manifest(copy.folder)
    (check,) = verify_bundle(copy, [EngineName.ONNXRUNTIME]).engines
    assert check.difference is None
    assert "(4, 10)" in check.error


@pytest.mark.parametrize("name", ["model.onnx", "labels.json", "golden/tensors.npy", "model.keras"])
def test_a_tampered_bundle_is_refused(copy: ModelBundle, name: str) -> None:
    content = bytearray((copy.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy.folder / name).write_bytes(content)
    with pytest.raises(WorkError, match="has SHA-256"):
        verify_bundle(copy)


def test_a_bundle_of_an_earlier_release_is_reported(copy: ModelBundle) -> None:
    shutil.rmtree(copy.folder / "golden")
    update_manifest(copy.folder)
    with pytest.raises(RequestError, match="no golden"):
        verify_bundle(copy)
