"""Draw docs/storeys.svg: which package imports which, from the imports themselves.

    .venv/bin/python docs/make_storeys.py

Rows and columns are the storeys of the contract in pyproject.toml, from the roof down. A cell
counts the modules of its row that import from its column. As imports go one way, everything below
the diagonal is empty.
"""

import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/storeys.svg"
LEFT, TOP, CELL = 240, 130, 40  # pixels: the names of rows and columns, and a cell
INK, SOFT, LINE = "#1c2430", "#46515f", "#d0d7de"


def storeys() -> list[list[str]]:
    """Return the packages by storey, from the roof down, as the contract has them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.split(" | ") for layer in layers]


def importing_modules(names: list[str]) -> dict[tuple[str, str], int]:
    """Count, for each pair of packages, the modules of the first that import from the second."""
    graph = grimp.build_graph("glpi_jax", exclude_type_checking_imports=True, cache_dir=None)
    pairs: dict[tuple[str, str], set[str]] = {}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            ends = tuple(module.split(".")[1:2] for module in (importer, imported))
            (above, below) = (end[0] if end else "" for end in ends)
            if above in names and below in names and above != below:
                pairs.setdefault((above, below), set()).add(importer)
    return {pair: len(modules) for pair, modules in pairs.items()}


def lines_of(name: str) -> int:
    """Return the lines of Python of a package or module."""
    path = ROOT / "glpi_jax" / name
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def draw() -> str:
    """Return the picture as SVG."""
    rows = storeys()
    names = [name for row in rows for name in row]
    counts = importing_modules(names)
    side = CELL * len(names)
    width, height = LEFT + side + 24, TOP + side + 24
    most = max(counts.values())
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" aria-labelledby="title">',
        '<title id="title">Which package of glpi_jax imports which</title>',
        "<style>text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, Arial,"
        f" sans-serif; font-size: 14px; fill: {INK}; }} .s {{ font-size: 12px; fill: {SOFT}; }}"
        "</style>",
        f'<rect x=".75" y=".75" width="{width - 1.5}" height="{height - 1.5}" rx="16"'
        f' fill="#ffffff" stroke="{LINE}" stroke-width="1.5"/>',
        '<text x="24" y="40" font-weight="650">Modules of a row</text>',
        '<text x="24" y="60" font-weight="650">that import from a column</text>',
        f'<text x="24" y="{TOP - 12}" class="s">package, lines of Python</text>',
    ]
    for index, name in enumerate(names):
        middle = TOP + index * CELL + CELL / 2
        out.append(f'<text x="24" y="{middle + 5}">{escape(name)}</text>')
        out.append(
            f'<text x="{LEFT - 14}" y="{middle + 5}" class="s" text-anchor="end">'
            f"{lines_of(name):,}</text>"
        )
        across = LEFT + index * CELL + CELL / 2
        out.append(
            f'<text transform="translate({across + 5} {TOP - 10}) rotate(-60)">'
            f"{escape(name)}</text>"
        )
        out.append(
            f'<rect x="{LEFT + index * CELL}" y="{TOP + index * CELL}" width="{CELL}"'
            f' height="{CELL}" fill="#e6e9ee"/>'
        )
    for (above, below), count in sorted(counts.items()):
        x, y = LEFT + names.index(below) * CELL, TOP + names.index(above) * CELL
        shade = 0.15 + 0.6 * (count / most) ** 0.5
        out.append(
            f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="#0072b2"'
            f' fill-opacity="{shade:.2f}"/>'
        )
        out.append(f'<text x="{x + CELL / 2}" y="{y + 25}" text-anchor="middle">{count}</text>')
    place = 0
    for row in [*rows, []]:  # a stronger line where a storey ends
        at = place * CELL
        out.append(
            f'<path d="M24 {TOP + at}H{LEFT + side}M{LEFT + at} {TOP}V{TOP + side}" fill="none"'
            f' stroke="{LINE}"/>'
        )
        place += len(row)
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
