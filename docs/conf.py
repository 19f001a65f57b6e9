"""How Sphinx builds these pages: `make docs`."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from glpi_jax import __version__  # noqa: E402 - found by the line above

project = "glpi_jax"
author = "the glpi_jax authors"
copyright = "the glpi_jax authors, MIT licence"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings are short Markdown: `name` is code, and their own words give types and shapes.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": False}
python_maximum_signature_line_length = 80
add_module_names = False

# Names of other packages have no page here, and `glpi_jax` types that no page shows have none.
nitpick_ignore_regex = [(r"py:.*", r".*")]

html_theme = "furo"
html_title = f"glpi_jax {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True


# Pages whose text is a file elsewhere in the checkout; in docs/ each is a link to it.
ELSEWHERE = {
    "launch": "launch/README.md",
    "shipped_weights": "glpi_jax/hub/shipped/README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
}


def setup(app: Sphinx) -> None:
    """Have the text of `ELSEWHERE` read in place of the links."""
    app.connect("source-read", _read_elsewhere)


def _read_elsewhere(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname not in ELSEWHERE:
        return
    path = Path(ELSEWHERE[docname])
    app.env.note_dependency(str(ROOT / path))
    text = (ROOT / path).read_text(encoding="utf-8")
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # a model card's facts
    # Links start from docs/ now.
    content[0] = re.sub(r"\]\((?!https?:|#)", f"](../{path.parent.as_posix()}/", text)
