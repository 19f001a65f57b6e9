"""Templates: what is escaped, and what a value that is missing does."""

import sys

import pytest
from jinja2 import UndefinedError

from glpi_jax.core.templates import template_environment


@pytest.fixture
def render(tmp_path, monkeypatch):
    """Render a text as a template of this name, in a package made for it."""
    folder = tmp_path / "package_of_templates" / "templates"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write(template, text, **values):
        (folder / template).write_text(text, encoding="utf-8")
        environment = template_environment("package_of_templates", double=lambda text: 2 * text)
        return environment.get_template(template).render(values)

    yield write
    del sys.modules["package_of_templates"]


def test_template_values_in_html_only_are_escaped(render):
    assert render("a.html", "<p>{{ name }}</p>", name='<b> & "c"') == (
        "<p>&lt;b&gt; &amp; &#34;c&#34;</p>"
    )
    assert render("a.md", "{{ name }}", name="<b> & c") == "<b> & c"


def test_template_filter_result_is_escaped(render):
    assert render("a.html", "{{ name | double }}", name="<") == "&lt;&lt;"


@pytest.mark.parametrize("text", ["{{ name }}", "{{ part.name }}", "{% if name %}x{% endif %}"])
def test_template_missing_value_raises(render, text):
    with pytest.raises(UndefinedError, match="name"):
        render("a.html", text, part={})
