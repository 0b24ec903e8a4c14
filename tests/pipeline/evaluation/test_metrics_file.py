"""`metrics.json` and its JSON schema."""

from importlib.resources import files
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest

from pixelmill.pipeline.artifacts import read_json
from pixelmill.pipeline.bundles import ModelBundle
from pixelmill.pipeline.evaluation.evaluate import describe_metrics
from pixelmill.pipeline.evaluation.metrics import measure
from pixelmill.pipeline.evaluation.metrics_file import SCHEMA_FILE, MetricsFile, metrics_schema

SCHEMA = Path(str(files("pixelmill.pipeline.evaluation"))) / SCHEMA_FILE


def test_the_published_schema_is_that_of_the_types() -> None:
    assert read_json(SCHEMA) == metrics_schema(), (
        "write it again: json.dumps(metrics_schema(), indent=2) + a line break"
    )
    jsonschema.Draft202012Validator.check_schema(metrics_schema())


def test_the_metrics_of_a_bundle_follow_the_schema(bundle: ModelBundle) -> None:
    written = read_json(bundle.folder / "metrics.json")
    jsonschema.validate(written, read_json(SCHEMA))
    described = MetricsFile.model_validate(written).model_dump(mode="json", by_alias=True)
    assert {name: described[name] for name in written} == written


@pytest.mark.parametrize("missing", ["loss_interval", "accuracy"])
def test_metrics_without_a_value_do_not_follow_the_schema(bundle: ModelBundle, missing: str) -> None:
    written = read_json(bundle.folder / "metrics.json")
    del written["test"][missing]
    with pytest.raises(jsonschema.ValidationError, match=missing):
        jsonschema.validate(written, read_json(SCHEMA))


@pytest.mark.parametrize(("classes", "shown"), [(30, None), (31, 20)])
def test_only_the_most_confused_of_many_classes_are_listed(classes: int, shown: int | None) -> None:
    labels = np.repeat(np.arange(classes), 4)
    probabilities = np.eye(classes, dtype=np.float32)[(labels + 1) % classes]
    written = describe_metrics(measure(probabilities, labels, tuple(map(str, range(classes)))))
    most = written["most_confused"]
    if shown is None:
        assert most is None
        return
    assert isinstance(most, dict)
    assert most["classes"] == [str(index) for index in range(shown)]
    assert most["confusion_matrix"][0] == [0, 4, *[0] * 18]
    assert most["other"] == [0] * 19 + [4]
