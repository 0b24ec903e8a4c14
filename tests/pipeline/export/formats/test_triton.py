"""The model repository for Triton, checked against Triton's own schema."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from pixelmill.pipeline.artifacts import write_json
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.formats.triton import write_triton
from tests.pipeline.export.test_variants import small_network

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def schema() -> Any:
    """The module with Triton's `ModelConfig`, without the client around it and its dependencies."""
    environment = ROOT / ".engines/tritonclient"
    if not (environment / "installed").is_file():
        pytest.skip("no schema here: make .engines/tritonclient/installed")
    (path,) = environment.glob("lib/python*/site-packages/tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draft(folder: Path, name: str) -> None:
    """The files of a bundle that the repository is made from; the network takes 4 x 4 grey images."""
    import onnx

    from pixelmill.pipeline.export.graph import canonicalize, serialize
    from pixelmill.pipeline.export.runtimes import OnnxVersion

    model = onnx.load_model_from_string(small_network(17))
    content = canonicalize(model, OnnxVersion(17, 8), {"name": name, "version": "12"}, "A small network.")
    (folder / "model.onnx").write_bytes(serialize(content))
    write_json(folder / "labels.json", ["cat", 'big "dog"', "bird\nor plane", "☃", "\\n"])
    write_json(folder / "preprocessing.json", {"input": {"height": 4, "width": 4, "channels": 1}})


def test_the_configuration_is_valid_and_describes_the_model(schema: Any, tmp_path: Path) -> None:
    draft(tmp_path, "small-one_2")
    write_triton(tmp_path)
    folder = tmp_path / "triton/small-one_2"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("small-one_2", "onnxruntime", 64)
    (image,), (probabilities,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == ("image", schema.TYPE_UINT8, [4, 4, 1])
    assert (probabilities.name, probabilities.data_type) == ("probabilities", schema.TYPE_FP32)
    assert list(probabilities.dims) == [5]
    assert config.HasField("dynamic_batching")
    labels = (folder / probabilities.label_filename).read_text().splitlines()
    assert labels == ["cat", 'big "dog"', "bird or plane", "☃", "\\n"]
    assert (folder / "12/model.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


@pytest.mark.parametrize("name", ["..", "a/b", "", 'x" }'])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    draft(tmp_path, name)
    with pytest.raises(RequestError, match="for a Triton repository"):
        write_triton(tmp_path)
    assert not (tmp_path / "triton").exists()
