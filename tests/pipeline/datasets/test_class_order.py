"""No output of a model ever changes its class in silence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelmill.pipeline.datasets.class_order import order_classes
from pixelmill.pipeline.errors import GateRefused, RequestError

NAMES = st.lists(st.text("abc123", min_size=1, max_size=3), unique=True, max_size=6)


def test_without_a_version_classes_are_in_natural_order() -> None:
    assert order_classes(["10", "9", "ant"]) == ("9", "10", "ant")


def test_new_classes_are_appended() -> None:
    assert order_classes(["ant", "bee", "cat", "9"], ["cat", "ant"]) == ("cat", "ant", "9", "bee")


def test_a_class_in_another_unicode_form_is_the_same() -> None:
    assert order_classes(["cafe\u0301"], ["caf\u00e9"]) == ("caf\u00e9",)
    assert order_classes(["caf\u00e9"], [], ["cafe\u0301"]) == ("caf\u00e9",)


@given(NAMES, NAMES, st.booleans())
def test_known_classes_keep_their_places(known: list[str], found: list[str], allow: bool) -> None:
    if set(known) <= set(found) or allow:
        order = order_classes(found, known, allow_removed=allow)
        assert list(order[: len(known)]) == known
        assert sorted(order) == sorted({*known, *found})
    else:
        with pytest.raises(GateRefused):
            order_classes(found, known, allow_removed=allow)


def test_a_class_that_is_gone_is_refused_and_named() -> None:
    with pytest.raises(GateRefused, match=r"no images of 'ant', .*allow_removed_classes"):
        order_classes(["bee"], ["ant", "bee"])
    assert order_classes(["bee", "cat"], ["ant", "bee"], allow_removed=True) == ("ant", "bee", "cat")


def test_the_recipe_lists_the_order() -> None:
    assert order_classes(["a", "b", "c"], [], ["c", "a", "b"]) == ("c", "a", "b")
    assert order_classes(["a", "b", "c"], ["c"], ["c", "b", "a"]) == ("c", "b", "a")
    assert order_classes(["b"], ["a"], ["a", "b"], allow_removed=True) == ("a", "b")


@pytest.mark.parametrize(
    ("known", "listed", "message"),
    [
        ([], ["a", "b", "a"], "has 'a' more than once"),
        (["a", "b"], ["b", "a"], "first the classes of the newest version, in its order: 'a', 'b'"),
        (["a", "b"], ["a"], "first the classes of the newest version"),
        ([], ["a"], "images of 'b', which dataset.classes lacks"),
        ([], ["a", "b", "c"], "no images of 'c', which dataset.classes lists"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(known: list[str], listed: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        order_classes(["a", "b"], known, listed)


def test_a_listed_class_of_the_newest_version_that_is_gone_is_refused() -> None:
    with pytest.raises(GateRefused, match="no images of 'a'"):
        order_classes(["b"], ["a", "b"], ["a", "b"])
