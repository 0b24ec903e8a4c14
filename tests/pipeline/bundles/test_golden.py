"""Golden vectors, and preprocessing reimplemented from its description alone."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import PREPROCESSING_FILE, ModelBundle
from pixelmill.pipeline.bundles.golden import read_golden, write_golden
from pixelmill.pipeline.bundles.preprocessing import describe_preprocessing
from pixelmill.pipeline.config import ImageSpec
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.image_encoding import ImageForm, encode_as
from pixelmill.pipeline.images import Pixels, decode
from pixelmill.pipeline.inference import load_session
from tests.pipeline.export.written_again import tensor_of

SPECS = st.builds(
    ImageSpec,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    resize=st.sampled_from(["stretch", "crop", "pad"]),
    background=st.integers(0, 255),
)


def picture(height: int, width: int, channels: int) -> Pixels:
    return np.random.default_rng(height * 99 + width).integers(0, 256, (height, width, channels), np.uint8)


def test_the_bundle_contains_the_tensor_of_each_form(bundle: ModelBundle) -> None:
    golden = read_golden(bundle.folder)
    assert [file.stem for file in golden.files] == list(get_args(ImageForm))
    assert golden.tensors.shape == (4, 8, 8, 1)
    assert golden.tensors.dtype == np.uint8
    description = read_json(bundle.folder / PREPROCESSING_FILE)
    for file, tensor in zip(golden.files, golden.tensors, strict=True):
        assert np.array_equal(tensor_of(file.read_bytes(), description), tensor), file.name
    # The forms differ from the tensor, so a reader that omits a step gets a different one.
    for file in golden.files[1:]:
        with Image.open(file) as image:
            assert image.size != (8, 8) or image.mode != "L", file.name
    predictions = load_session(bundle.onnx_path).probabilities(golden.tensors)
    assert np.abs(predictions - golden.probabilities).max() < 1e-5


def test_missing_golden_vectors_are_reported(bundle: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no golden"):
        read_golden(tmp_path)


@settings(deadline=None, max_examples=150)
@given(
    spec=SPECS, height=st.integers(1, 90), width=st.integers(1, 90), form=st.sampled_from(get_args(ImageForm))
)
def test_the_description_is_exact(spec: ImageSpec, height: int, width: int, form: ImageForm) -> None:
    _, data = encode_as(form, picture(height, width, 3))
    description = json.loads(json.dumps(describe_preprocessing(spec)))
    assert np.array_equal(tensor_of(data, description), decode(data, spec).pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_golden_vectors_are_read_as_written(channels: int, tmp_path: Path) -> None:
    spec = ImageSpec(height=10, width=12, channels=channels)
    images = np.stack([picture(10, 12, channels), 255 - picture(10, 12, channels)])
    write_golden(tmp_path, images, spec, lambda tensors: np.full((len(tensors), 5), 0.2, np.float32))
    golden = read_golden(tmp_path)
    assert np.array_equal(golden.tensors[0], images[0])
    assert golden.probabilities.shape == (4, 5)
    for file, tensor in zip(golden.files, golden.tensors, strict=True):
        assert np.array_equal(decode(file.read_bytes(), spec).pixels, tensor)
