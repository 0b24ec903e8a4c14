"""The opset and IR version for the oldest runtime that must load a model."""

import pytest

from pixelmill.pipeline.config import ExportSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.export.runtimes import OnnxVersion, choose_version


@pytest.mark.parametrize(
    ("runtime", "opset", "ir_version"),
    [
        ("1.6", 13, 7),
        ("1.8.1", 14, 7),
        ("1.9", 15, 7),
        ("1.10", 15, 8),
        ("1.11.1", 16, 8),
        ("1.12", 17, 8),
        ("1.14", 17, 8),
        ("1.31.1", 17, 8),
        ("2.0", 17, 8),
    ],
)
def test_the_newest_opset_that_the_runtime_supports(runtime: str, opset: int, ir_version: int) -> None:
    assert choose_version(ExportSpec(runtime_version=runtime)) == OnnxVersion(opset, ir_version)


def test_a_recipe_may_request_another_opset() -> None:
    assert choose_version(ExportSpec(opset=13, runtime_version="1.14")) == OnnxVersion(13, 7)
    assert choose_version(ExportSpec(opset=18, runtime_version="1.14")) == OnnxVersion(18, 8)
    assert choose_version(ExportSpec(opset=18)) == OnnxVersion(18, 8)


@pytest.mark.parametrize("runtime", ["1.5", "0.9", "newest", "1", "1.x", "", "١.١٤"])
def test_an_unsupported_runtime_is_refused(runtime: str) -> None:
    with pytest.raises(RequestError, match="runtime version"):
        choose_version(ExportSpec(runtime_version=runtime))
