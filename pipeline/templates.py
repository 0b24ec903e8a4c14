"""The templates of pages, which lie beside the modules that fill them in."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def open_templates(package: str, autoescape: bool = True) -> "Environment":
    """The templates of a package; a name that a template asks for and nobody gave is an error.

    Args:
        package: Where they lie, such as `pixelmill.pipeline.scoring`.
        autoescape: Whether what is filled in is escaped for HTML.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=autoescape,  # noqa: S701  # A page that is no HTML escapes by its own rules.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
