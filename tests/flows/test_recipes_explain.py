"""`pixelmill recipes explain`: every field of a recipe, as defined by its types."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from pixelmill.flows.command_line import app
from pixelmill.pipeline.config import Recipe
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.part import Part
from pixelmill.pipeline.recipes.annotations import TAGS, parts_in
from pixelmill.pipeline.recipes.fields import list_groups
from tests.conftest import PIXELMILL

Explain = Callable[..., str]


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Explain:
    """`pixelmill recipes explain`, in this process."""

    def call(*arguments: str) -> str:
        app(["recipes", "explain", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    return call


def fields_of(shown: str) -> dict[str, Any]:
    return {field["key"]: field for group in json.loads(shown)["groups"] for field in group["fields"]}


def names_below(part: type[Part]) -> set[str]:
    """The names of all fields of a recipe, read from the types in a different way."""
    found = set()
    for name, field in part.model_fields.items():
        inner = list(parts_in(field.annotation))
        found |= set().union(*(names_below(kind) for kind in inner)) | ({name} if not inner else set())
    return found


def test_every_field_is_explained(explain: Explain) -> None:
    explained = {key.split(".")[-1] for key in fields_of(explain("--json"))}
    assert explained == (names_below(Recipe) - set(TAGS)) | {"layers", "bars"}


def test_every_field_has_a_meaning() -> None:
    groups = list_groups()
    assert [field.key for group in groups for field in group.fields if not field.meaning] == []
    assert [f"{group.key} {group.where}" for group in groups if not group.meaning] == []


def test_a_field_is_shown_with_type_limits_default_and_meaning(explain: Explain) -> None:
    assert explain("training.early_stopping").splitlines()[1:] == [
        "  training.early_stopping: whole number above 0 or null; default null",
        "      Number of epochs without a lower validation loss after which training stops; the weights with",
        "          the lowest validation loss are kept.",
    ]
    fields = fields_of(explain("--json"))
    assert fields["training.epochs"]["default"] is None
    assert fields["image.background"]["type"] == "whole number at least 0 and at most 255"
    assert fields["training.augmentation.flip"]["type"] == "one of none, horizontal, vertical, both"
    assert fields["training.jit_compile"]["type"] == "auto or true or false"
    assert fields["export.batch_sizes"]["type"] == "list of whole number above 0, at least 2"
    assert fields["model.layers.N.kernel_size"]["type"] == "whole number or [whole number, whole number]"
    assert fields["name"]["type"] == "text of the form ^[a-z0-9][a-z0-9_-]{0,62}$"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("training", {"training.epochs", "training.learning_rate.peak", "training.augmentation.flip"}),
        ("training.learning_rate", {"training.learning_rate.peak"}),
        ("model.layers.3.rate", {"model.layers.N.rate"}),
        ("convolution", {"model.layers.N.filters", "model.layers.N.dilation"}),
        ("max_pooling", {"model.layers.N.size"}),
        ("folder", {"dataset.path", "dataset.max_unreadable_fraction"}),
        ("dataset.source", {"dataset.path", "dataset.mirrors"}),
        ("name", {"name"}),
    ],
)
def test_a_key_selects_all_below_it_and_a_kind_selects_its_fields(
    key: str, expected: set[str], explain: Explain
) -> None:
    found = set(fields_of(explain(key, "--json")))
    assert expected <= found
    everything = {field.key for group in list_groups() for field in group.fields}
    assert found < everything


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("epochs", "training.epochs"), ("training.epohs", "training.epochs"), ("convolutoin", "convolution")],
)
def test_an_unknown_key_is_refused_with_the_closest_one(key: str, nearest: str, explain: Explain) -> None:
    with pytest.raises(RequestError, match=rf"Did you mean {nearest}\?"):
        explain(key)


@pytest.mark.parametrize("key", ["", ".", "xyz", "training.", "model.layers.first"])
def test_every_key_is_accepted(key: str, explain: Explain) -> None:
    with pytest.raises(RequestError, match="no key"):
        explain(key)


def test_the_help_of_retrain_mentions_it_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from pixelmill.flows.command_line import app\n"
        "for words in (['recipes', 'explain'], ['retrain', '--help']):\n"
        "    try: app(words, standalone_mode=False)\n"
        "    except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'prefect', 'onnx', 'onnxruntime', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [PIXELMILL.with_name("python"), "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "200", "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stderr
    assert "pixelmill recipes explain" in done.stdout
