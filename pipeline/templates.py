"""Loading of the page templates in a package."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def open_templates(package: str, autoescape: bool = True) -> "Environment":
    """The templates of a package; rendering one with an undefined variable is an error.

    Args:
        package: The package, such as `pixelmill.pipeline.scoring`.
        autoescape: Whether values are escaped for HTML.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=autoescape,  # noqa: S701  # A template for another format does its own escaping.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
