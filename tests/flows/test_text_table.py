"""Tables of plain text: aligned, and one line for each row whatever the cells contain."""

from pixelmill.flows.text_table import render_table


def test_cells_are_aligned_by_their_width_on_the_terminal() -> None:
    table = render_table([("猫", "1,234", "x"), ("dog", "5", "")], ("class", "images", "note"), right=(1,))
    assert table == "class  images  note\n猫      1,234  x\ndog         5"


def test_nothing_is_wrapped_truncated_or_taken_for_markup() -> None:
    cell = "[bold]" + "no such engine " * 100 + "end"
    assert render_table([("digits@1", cell), ("a", "b")]) == f"digits@1  {cell}\na         b"
