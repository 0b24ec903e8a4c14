"""Recipes: which ones load, the messages for invalid ones, and that a dump loads unchanged."""

from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelmill.pipeline.config import DatasetSource, FolderSource, OwnImages, Recipe
from pixelmill.pipeline.errors import RequestError
from pixelmill.pipeline.layers.application import Application
from pixelmill.pipeline.layers.convolution import Convolution
from pixelmill.pipeline.recipes import dump_recipe, load_recipe, parse_recipe, shipped_recipes
from pixelmill.pipeline.recipes.yaml_text import dump_yaml, parse_yaml


def refusal(reference: object, *overrides: str) -> str:
    """The error message for a recipe."""
    with pytest.raises(RequestError) as caught:
        load_recipe(str(reference), overrides)
    assert int(caught.value.exit_code) == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_built_in_recipe_has_its_own_name(name: str) -> None:
    # Those for images of one's own are named after the folder.
    own = ("folder", "photos", "photos-small")
    assert load_recipe(name).name == ("images" if name in own else name)


def test_every_kind_of_dataset_has_a_built_in_recipe() -> None:
    kinds = get_args(get_args(DatasetSource)[0])
    shipped = {type(load_recipe(name).dataset) for name in shipped_recipes()}
    # One recipe serves all sources of your own images.
    assert shipped == {kind for kind in kinds if not issubclass(kind, OwnImages)} | {FolderSource}


def test_a_file_loads_like_a_built_in_recipe(tmp_path: Path) -> None:
    digits = load_recipe("digits")
    assert load_recipe(str(written(tmp_path, dump_recipe(digits)))) == digits


@pytest.mark.parametrize(
    ("override", "unknown", "nearest"),
    [
        ("trainin.epochs=3", "trainin", "training"),
        ("training.epoch=3", "training.epoch", "epochs"),
        ("training.learning_rate.peek=0.1", "training.learning_rate.peek", "peak"),
        ("image.heigth=8", "image.heigth", "height"),
        ("dataset.test_fractoin=0.1", "dataset.test_fractoin", "test_fraction"),
        ("model.layer=[]", "model.layer", "layers"),
        ("model.layers.0.filter=8", "model.layers.0.filter", "filters"),
        ("model.layers.6.sise=2", "model.layers.6.sise", "size"),
        ("model.layers.11.unit=10", "model.layers.11.unit", "units"),
        ("export.license=MIT", "export.license", "licence"),
        ("promotion.min_acuracy=0.9", "promotion.min_acuracy", "min_accuracy"),
    ],
)
def test_an_unknown_key_is_refused_with_the_closest_one(override: str, unknown: str, nearest: str) -> None:
    message = refusal("digits", override)
    assert f"unknown key {unknown};" in message
    assert f"Did you mean {nearest}?" in message


def test_an_unknown_key_without_a_close_match_lists_all_keys() -> None:
    message = refusal("digits", "model.layers.1.zzz=3")
    assert "unknown key model.layers.1.zzz; expected one of layer." in message
    assert "Did you mean" not in message


def test_keys_of_another_layer_are_not_suggested() -> None:
    message = refusal("digits", "model.layers.6.filters=8")
    assert "one of layer, padding, size, stride." in message


@pytest.mark.parametrize(
    ("override", "place", "received"),
    [
        ("training.epochs=0", "training.epochs", "0"),
        ("training.epochs=-1", "training.epochs", "-1"),
        ("training.epochs=2.5", "training.epochs", "2.5"),
        ("training.epochs=true", "training.epochs", "True"),
        ("training.epochs=many", "training.epochs", "'many'"),
        ("training.epochs=", "training.epochs", "None"),
        ("training.optimizer=adam", "training.optimizer", "'adam'"),
        ("training.learning_rate.peak=0", "training.learning_rate.peak", "0"),
        ("training.learning_rate.peak=.nan", "training.learning_rate.peak", "nan"),
        ("training.learning_rate.peak=.inf", "training.learning_rate.peak", "inf"),
        ("training.weight_decay=.inf", "training.weight_decay", "inf"),
        ("training.learning_rate.warmup_fraction=1", "training.learning_rate.warmup_fraction", "1"),
        ("training.seed=4294967296", "training.seed", "4294967296"),
        ("training=", "training", "None"),
        ("image.channels=2", "image.channels", "2"),
        ("image.background=256", "image.background", "256"),
        ("image.resize=squash", "image.resize", "'squash'"),
        ("dataset.test_fraction=1", "dataset.test_fraction", "1"),
        ("dataset=digits", "dataset", "'digits'"),
        ("dataset.source=mnits", "dataset", "{'source': 'mnits'}"),
        ("model.layers.0.kernel_size=0", "model.layers.0.kernel_size", "0"),
        ("model.layers.0.padding=none", "model.layers.0.padding", "'none'"),
        ("model.layers.0=dropout", "model.layers.0", "'dropout'"),
        ("model.layers.11.units=many", "model.layers.11.units", "'many'"),
        ("model.layers.11.units=0", "model.layers.11.units", "0"),
        ("model.layers=[]", "model.layers", "[]"),
        ("export.opset=12", "export.opset", "12"),
        ("export.batch_sizes=[1]", "export.batch_sizes", "[1]"),
        ("export.max_abs_difference=.inf", "export.max_abs_difference", "inf"),
        ("promotion.min_accuracy=1.5", "promotion.min_accuracy", "1.5"),
        ("promotion.alias=Champion", "promotion.alias", "'Champion'"),
        ("name=My Model", "name", "'My Model'"),
        ("name=../outside", "name", "'../outside'"),
        ("name=two\nlines", "name", "'two\\nlines'"),
        ("name=!!python/object/apply:os.getcwd []", "name", "'!!python/object/apply:os.getcwd []'"),
        ("dataset={source: folder, path: 007}", "dataset.path", "7"),
        ("training.learning_rate.peak=true", "training.learning_rate.peak", "True"),
        ("training.epochs=1:30", "training.epochs", "'1:30'"),
        ("training.epochs=1_000", "training.epochs", "'1_000'"),
    ],
)
def test_an_invalid_value_is_reported_with_its_key(override: str, place: str, received: str) -> None:
    assert f"recipe digits: {place} is {received};" in refusal("digits", override)


def test_an_unknown_kind_of_layer_lists_the_known_kinds() -> None:
    message = refusal("digits", "model.layers.0.layer=convolutoin")
    assert "model.layers.0" in message
    assert "'batch_normalization', 'activation'" in message
    assert "Did you mean convolution?" in message


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("model.layers.2.function=rleu", "relu"),
        ("model.layers.0={layer: application, name: mobilenetV2}", "MobileNetV2"),
        ("training.optimizer=adamv", "adamw"),
        ("dataset.source=mnits", "mnist"),
    ],
)
def test_the_closest_value_is_suggested(override: str, nearest: str) -> None:
    assert f"Did you mean {nearest}?" in refusal("digits", override)


@pytest.mark.parametrize(
    "override", ["model.layers.12={layer: flatten}", "model.layers.11={layer: dropout, rate: 0.5}"]
)
def test_a_network_must_end_in_dense_and_softmax(override: str) -> None:
    assert "the last two layers must be dense and softmax" in refusal("digits", override)


@pytest.mark.parametrize("key", ["name", "dataset", "image", "model", "training"])
def test_a_missing_key_is_reported(key: str, tmp_path: Path) -> None:
    content = yaml.safe_load(dump_recipe(load_recipe("digits")))
    del content[key]
    assert f": {key} is missing;" in refusal(written(tmp_path, yaml.safe_dump(content)))


def test_a_missing_nested_key_is_reported_with_its_path() -> None:
    assert ": dataset.path is missing;" in refusal("digits", "dataset.source=folder")
    assert ": model.layers.0.filters is missing;" in refusal(
        "digits", "model.layers.0={layer: convolution, kernel_size: 3}"
    )


def test_overrides_change_only_their_key() -> None:
    plain = load_recipe("digits")
    changed = load_recipe(
        "digits",
        [
            "training.epochs=3",
            "training.learning_rate.peak=1e-3",
            "model.layers.0.filters=8",
            "model.layers.6={layer: average_pooling, size: 2}",
            "export.batch_sizes=[1, 2, 3]",
            "promotion.alias=candidate",
            "evaluation.worst_mistakes=0",
        ],
    )
    first = changed.model.layers[0]
    assert isinstance(first, Convolution)
    assert first.filters == 8
    assert first.kernel_size == 3
    assert changed.model.layers[6].layer == "average_pooling"
    assert changed.model.layers[1:6] == plain.model.layers[1:6]
    assert changed.model.layers[7:] == plain.model.layers[7:]
    assert (changed.training.epochs, changed.training.learning_rate.peak) == (3, 0.001)
    assert changed.training.batch_size == plain.training.batch_size
    assert changed.export.batch_sizes == (1, 2, 3)
    assert changed.export.licence == plain.export.licence
    assert changed.promotion.alias == "candidate"
    assert changed.evaluation.worst_mistakes == 0
    assert (changed.name, changed.dataset, changed.image) == (plain.name, plain.dataset, plain.image)


def test_the_last_override_wins() -> None:
    assert load_recipe("digits", ["training.epochs=3", "training.epochs=4"]).training.epochs == 4


def test_a_value_may_contain_an_equals_sign() -> None:
    assert load_recipe("digits", ["export.licence=a=b"]).export.licence == "a=b"


@pytest.mark.parametrize(
    "override",
    [
        "training.epochs",
        "",
        "=3",
        "training.epochs=[",
        "training.epochs=3: 4: 5",
        "training.epochs.deeper=3",
        "name.deeper.still=3",
        "model.layers.99.filters=8",
        "model.layers.first.filters=8",
        "model.layers.filters=8",
        "training.epochs=!!python/object/apply:os.getcwd []",
        "training.epochs=!!timestamp 2026-11-25",
        "training.epochs=" + "[" * 500,
        "training.epochs=" + "9" * 5000,
        "training={epochs: 3, epochs: 4}",
    ],
    ids=lambda override: override[:40],
)
def test_an_invalid_override_is_refused_and_quoted(override: str) -> None:
    assert f"override {override[:20]!r}"[:-1] in refusal("digits", override)


@pytest.mark.parametrize(
    "text",
    ["", "# only a comment\n", "[]", "- name: digits\n", "digits", "3", "null"],
)
def test_a_file_without_a_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    assert f"recipe {path} has no keys" in refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        "name: [digits",
        "name: digits\n  image: {}",
        "\tname: digits",
        "name: one\n---\nname: two\n",
        "? [a, list]\n: is no key\n",
        "name: !!python/object/apply:os.getcwd []",
        "name: !!timestamp 2024-12-01",
        "name: !!int 1_0",
        b"name: \xff\xfe",
        b"\x00",
        "name: " + "[" * 500,
    ],
    ids=lambda text: repr(text)[:30],
)
def test_a_file_that_is_not_yaml_is_refused(text: str | bytes, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    assert f"recipe {path}" in refusal(path)


@pytest.mark.parametrize("text", ["{1: 2}", "true: 1", "null: 1", "name: &name {inside: *name}"])
def test_a_mapping_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    assert "recipe" in refusal(written(tmp_path, text))


@pytest.mark.parametrize("reference", ["no-such-recipe", "folder/none.yaml", "", "a\0b", "x" * 300])
def test_a_missing_file_lists_the_built_in_recipes(reference: str) -> None:
    message = refusal(reference)
    assert f"no recipe {reference!r}" in message
    assert ", ".join(shipped_recipes()) in message


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    assert "no recipe" in refusal(tmp_path)


def test_a_misspelled_built_in_name_is_corrected() -> None:
    assert "Did you mean digits?" in refusal("digit")


def test_a_recipe_is_immutable() -> None:
    recipe = load_recipe("digits")
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_dumped_recipe_loads_unchanged(name: str) -> None:
    recipe = load_recipe(name)
    text = dump_recipe(recipe)
    assert parse_recipe(yaml.safe_load(text), name) == recipe
    layers = [line for line in text.splitlines() if line.startswith(("    - {layer: ", "    - layer: "))]
    assert len(layers) == len(recipe.model.layers)
    assert all(line.count("layer: ") <= 1 for line in text.splitlines())


@settings(max_examples=100, deadline=None)
@given(
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(1, 10**6),
    peak=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    weight_decay=st.floats(min_value=0, allow_infinity=False),
    seed=st.integers(0, 2**32 - 1),
    filters=st.integers(1, 4096),
    licence=st.text(st.characters(codec="utf-8"), max_size=40),
    batch_sizes=st.lists(st.integers(1, 512), min_size=2, max_size=5, unique=True),
)
def test_any_valid_values_are_preserved_in_a_dump(
    epochs: int,
    batch_size: int,
    peak: float,
    weight_decay: float,
    seed: int,
    filters: int,
    licence: str,
    batch_sizes: list[int],
) -> None:
    content = load_recipe("digits").model_dump(mode="json")
    content["training"] |= {
        "epochs": epochs,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        "seed": seed,
    }
    content["training"]["learning_rate"]["peak"] = peak
    content["model"]["layers"][0]["filters"] = filters
    content["export"] |= {"licence": licence, "batch_sizes": batch_sizes}
    recipe = Recipe.model_validate(content)
    assert recipe.training.learning_rate.peak == peak
    dumped = dump_recipe(recipe).encode().decode()
    assert parse_recipe(yaml.safe_load(dumped), "dumped") == recipe


@settings(max_examples=100, deadline=None)
@given(
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(1, 10**6),
    peak=st.floats(min_value=1e-30, max_value=1e30),
)
def test_overrides_accept_any_valid_number(epochs: int, batch_size: int, peak: float) -> None:
    recipe = load_recipe(
        "digits",
        [
            f"training.epochs={epochs}",
            f"training.batch_size={batch_size}",
            f"training.learning_rate.peak={peak!r}",
        ],
    )
    assert (recipe.training.epochs, recipe.training.batch_size) == (epochs, batch_size)
    assert recipe.training.learning_rate.peak == peak


FROM_YAML_1_2 = {
    "010": 10,
    "-010": -10,
    "0o14": 12,
    "0x1F": 31,
    "1e3": 1000.0,
    "1e-3": 0.001,
    ".5": 0.5,
    "~": None,
    "": None,
    "true": True,
    "no": "no",
    "on": "on",
    "y": "y",
    "1:30": "1:30",
    "1_000": "1_000",
    "0b1": "0b1",
    "2026-11-25": "2026-11-25",
    "=": "=",
}


@pytest.mark.parametrize(("text", "value"), FROM_YAML_1_2.items())
def test_plain_values_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(f"key: {text}\n", "a test")["key"]
    assert (type(found), found) == (type(value), value)


# Text for which YAML 1.1 or 1.2 has rules, in addition to any other text.
LIKE_VALUES = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=300),
    st.from_regex(r"[-+]?[0-9_:.oxbeE-]{1,12}", fullmatch=True),
    st.sampled_from(
        [*FROM_YAML_1_2, "yes", "Off", "NULL", "<<", "2026-11-25 10:00:00", ".inf", ".NaN", "!x", "&a"]
    ),
)


@settings(max_examples=200, deadline=None)
@given(LIKE_VALUES)
def test_any_text_is_read_as_written(text: str) -> None:
    for dumped in (dump_yaml({"key": text}), dump_yaml({"key": text}, flow=True)):
        assert parse_yaml(dumped, "a test") == {"key": text}
        assert yaml.safe_load(dumped) == {"key": text}  # Also by those who read YAML 1.1.


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    with suppress(RequestError):
        parse_yaml(text, "a test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: a\n\nimage:\n  width: 8\n  height: 8\n  width: 9\n",
            "the key 'width' twice, on line 4 and on line 6",
        ),
        ("image: {width: 8, width: 8}\n", "the key 'width' twice, on line 1 and on line 1"),
        ("name: a\n'name': b\n", "the key 'name' twice, on line 1 and on line 2"),
        ("name: a\nimage: [\n", "line 3, column 1"),
    ],
)
def test_duplicate_keys_and_syntax_errors_are_reported_with_their_lines(
    text: str, message: str, tmp_path: Path
) -> None:
    assert message in refusal(written(tmp_path, text))


def test_keys_of_an_anchor_may_be_overridden() -> None:
    text = "base: &base {width: 8, height: 8}\nimage: {<<: *base, width: 9}\n"
    assert parse_yaml(text, "a test")["image"] == {"width": 9, "height": 8}


@pytest.mark.parametrize(
    "path",
    ["pets #2", "2026-11-25", "007", "no", "null ", "1e3", "[a, b]", "a: b", "'quoted'", "{x}", "!!int 3"],
)
def test_text_is_used_unchanged(path: str) -> None:
    dataset = load_recipe("folder", [f"dataset.path={path}", f"dataset.test_path={path}"]).dataset
    assert isinstance(dataset, FolderSource)
    assert (dataset.path, dataset.test_path) == (path, path)


def test_optional_fields_can_be_set_to_null() -> None:
    dataset = load_recipe("folder", ["dataset.test_path=there", "dataset.test_path=null"]).dataset
    assert isinstance(dataset, FolderSource)
    assert dataset.test_path is None
    assert load_recipe("digits", ["export.runtime_version=1.20"]).export.runtime_version == "1.20"


def test_text_fields_of_another_dataset_or_layer_are_text() -> None:
    rest = "{layer: flatten}, {layer: dense, units: 10}, {layer: softmax}"
    recipe = load_recipe(
        "digits",
        [
            "dataset={source: folder, path: pets}",
            "dataset.path=2026",
            "image.height=32",
            "image.width=32",
            "image.channels=3",
            f"model.layers=[{{layer: application, name: MobileNetV2}}, {rest}]",
            "model.layers.0.weights=010",
        ],
    )
    assert isinstance(recipe.dataset, FolderSource)
    assert recipe.dataset.path == "2026"
    first = recipe.model.layers[0]
    assert isinstance(first, Application)
    assert first.weights == "010"


@pytest.mark.parametrize(
    ("override", "suggested"),
    [
        ("epochs=3", "training.epochs"),
        ("seed=1", "training.seed"),
        ("path=pets", "dataset.path"),
        ("image.peak=0.1", "training.head.peak or training.learning_rate.peak"),
        ("training.learning_rate.batch_size=8", "training.batch_size"),
    ],
)
def test_a_misplaced_key_is_reported_with_its_right_place(override: str, suggested: str) -> None:
    assert f"Did you mean {suggested}?" in refusal("digits", override)


def test_text_that_looks_like_a_number_must_be_quoted(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe("folder")).replace("path: images", "path: 007")
    message = refusal(written(tmp_path, text))
    assert (
        'dataset.path is 7; expected a valid string. Put text that looks like a number in quotes: "007".'
        in message
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pets", "pets"),
        ("data/My Pets (2026)/", "my-pets-2026"),
        ("/data/Möwen", "mowen"),
        ("pets/train", "pets"),
        ("x" * 200, "x" * 63),
        ("写真", "folder-9c3250"),
        ("s3://bucket/My Pets/train/", "my-pets"),
        ("pets/labels.csv", "pets"),
        ("birds.parquet", "birds"),
        ("tables/birds/*.csv", "birds"),
        ("https://host/birds.tar.gz?download=1", "birds"),
    ],
)
def test_a_model_is_named_after_its_dataset_folder(path: str, name: str) -> None:
    assert load_recipe("folder", [f"dataset.path={path}"]).name == name
    assert load_recipe("folder", [f"dataset.path={path}", "name=mine"]).name == "mine"


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Shells").mkdir()
    monkeypatch.chdir(tmp_path / "Shells")
    assert load_recipe("folder", ["dataset.path=."]).name == "shells"


def test_only_a_folder_names_its_model(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe("digits")).replace("name: digits\n", "")
    assert ": name is missing;" in refusal(written(tmp_path, text))
