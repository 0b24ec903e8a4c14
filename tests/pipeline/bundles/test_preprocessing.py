"""The description of the preprocessing that goes into a bundle."""

import json

import pytest

from pixelmill.pipeline.bundles.preprocessing import describe_preprocessing, preprocessing_sha256
from pixelmill.pipeline.config import ImageSpec

SPECS = [
    ImageSpec(height=9, width=12, channels=channels, resize=resize)
    for channels in (1, 3)
    for resize in ("stretch", "crop", "pad")
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_description_is_json_and_contains_the_whole_spec(spec: ImageSpec) -> None:
    description = json.loads(json.dumps(describe_preprocessing(spec)))
    assert description == describe_preprocessing(spec)
    assert ImageSpec.model_validate(description["spec"]) == spec


def test_only_equal_specs_have_the_same_hash() -> None:
    base = {"height": 8, "width": 9, "channels": 3, "resize": "pad", "background": 5}
    changes: list[dict[str, object]] = [
        {},
        {"height": 9},
        {"width": 8},
        {"channels": 1},
        {"resize": "crop"},
        {"background": 6},
    ]
    hashes = []
    for change in changes:
        specs = [ImageSpec.model_validate({**base, **change}) for _ in range(2)]
        first, again = (preprocessing_sha256(describe_preprocessing(spec)) for spec in specs)
        assert first == again
        assert len(first) == 64
        hashes.append(first)
    assert len(set(hashes)) == len(changes)
