"""AGIQA-3K: images that text-to-image models generated, each its own reference."""

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.collect import (
    DatabaseFolder,
    DatabaseKind,
    Label,
    collect,
    row_image_name,
)
from glpi_jax.data.sources.database import Database, Facts
from glpi_jax.data.sources.table_files import Row, Table, read_csv

# Kind → columns' ending, what it is a score of, and the published range.
_SCORES = {
    "agiqa3k": ("quality", "quality", (0.0, 4.49)),
    "agiqa3k_alignment": ("align", "alignment", (0.02, 4.29)),
}


def read_agiqa3k(source: DatabaseFolder) -> Database:
    """Read AGIQA-3K: `data.csv`, and the generated images beside it or in one folder of any name.

    The score is `mos_quality`, the deviation `std_quality`; of the kind agiqa3k_alignment, how an
    image fits its prompt, `mos_align` and `std_align`.

    Raises:
        GlpiError: labelled images are in several places, or what `collect` raises.
    """
    column, meaning, score_range = _SCORES[source.kind]
    table = read_csv(source.label_file("data.csv"), ("name", f"mos_{column}"))
    place = _agiqa3k_place(source, table)

    def parse(row: Row) -> Label:
        return Label(
            (place + row_image_name(row, "name"),),
            row.number_of(f"mos_{column}"),
            sd=row.optional_number_of(f"std_{column}"),
        )

    return collect(source, table, parse).standing_alone(
        label_note=f"AGIQA-3K's MOS of {meaning} (0 to 5, higher is better)",
        facts=Facts(images=2982, references=2982, score_range=score_range),
    )


def _agiqa3k_place(source: DatabaseFolder, table: Table) -> str:
    """Return the folder of the images, "" or "NAME/", since copies name it differently."""
    names = [row.text("name") for row in table.rows if len(row.cells) == len(table.columns)]
    folders = source.files.folders_with(names)
    if len(folders) > 1:
        places = " and ".join(str(source.root / folder) for folder in folders)
        raise GlpiError(
            f"{table.path}: its images are in {places}; keep one copy of them below {source.root}"
        )
    return f"{folders[0]}/" if folders and folders[0] else ""


_LAYOUT = "data.csv, and the images beside it or in one folder"
KINDS = {kind: DatabaseKind(read_agiqa3k, _LAYOUT) for kind in _SCORES}
