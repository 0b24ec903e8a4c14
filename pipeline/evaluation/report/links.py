"""The links from the report to other pages of the same folder, which are written later or not at all."""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from pixelmill.pipeline.bundles import REPORT_FILE
from pixelmill.pipeline.storage import replacing

_START, _END = "<!-- pages -->", "<!-- end of pages -->"
NO_LINKS = _START + _END
"""The place of the links in the page."""
_INDEX = Path(REPORT_FILE).name
_TITLES = {
    "gate.html": "The gate",
    "inside.html": "What the network sees",
    "export.html": "The proof of the ONNX file",
}


def link_pages(folder: Path, elsewhere: Mapping[str, str] = MappingProxyType({})) -> None:
    """Update the links of a report after pages were added to its folder, or taken from it.

    Nothing is done in a folder without a report.

    Args:
        folder: The folder of the report.
        elsewhere: The titles of pages outside of the folder, by relative URL.
    """
    index = folder / _INDEX
    if index.is_file():
        page = with_links(index.read_text(encoding="utf-8"), _names_in(folder), elsewhere)
        with replacing(index) as temporary:
            temporary.write_text(page, encoding="utf-8")


def with_links(page: str, names: Collection[str], elsewhere: Mapping[str, str] = MappingProxyType({})) -> str:
    """A report with links to the pages beside it; unchanged if it has no place for links.

    Args:
        page: The report.
        names: The names of the files in its folder.
        elsewhere: The titles of pages outside of the folder, by relative URL.
    """
    before, start, rest = page.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        return page
    here = {name: title for name, title in _TITLES.items() if name in names}
    links = "".join(f'<a href="{url}">{title}</a>' for url, title in {**here, **elsewhere}.items())
    return f"{before}{_START}{links}{_END}{after}"


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
