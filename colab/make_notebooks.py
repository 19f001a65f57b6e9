"""Write each notebook from the text beside it: `make notebooks-sync`.

The `.py` files (jupytext's percent format) are edited, the `.ipynb` files are made. These hold no
outputs, and cells are numbered, so that the same text always gives the same bytes.
"""

from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).parent
_INDENT = 1  # as Jupyter writes


def texts() -> list[Path]:
    """The texts of all notebooks, in order."""
    return sorted(FOLDER.glob("0*.py"))


def notebook_of(text: Path) -> nbformat.NotebookNode:
    """The notebook of a text, without outputs."""
    notebook = jupytext.read(text, fmt="py:percent")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata.pop("lines_to_next_cell", None)
    notebook.metadata.pop("jupytext", None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["colab"] = {"provenance": [], "toc_visible": True}
    return notebook


def content_of(text: Path) -> str:
    """What the `.ipynb` file of a text holds."""
    written = nbformat.writes(notebook_of(text), indent=_INDENT)
    return written.rstrip("\n") + "\n"


if __name__ == "__main__":
    for path in texts():
        path.with_suffix(".ipynb").write_text(content_of(path), encoding="utf-8")
        print(path.with_suffix(".ipynb").name)
