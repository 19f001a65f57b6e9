"""Pages and texts from the Jinja templates that a package holds."""

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def template_environment(package: str, **filters: Callable[..., object]) -> Environment:
    """Make what renders the templates in a package's folder `templates`.

    Values are escaped in templates called *.html, and in no others. A value that is missing raises
    `jinja2.UndefinedError`; none becomes an empty text.

    Args:
        package: its full name.
        filters: functions for the templates, by name.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment
