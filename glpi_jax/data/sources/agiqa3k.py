"""AGIQA-3K: images that text-to-image models generated, each its own reference."""

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.collect import (
    DatabaseFolder,
    DatabaseKind,
    Label,
    collect,
    optional_number,
    row_image_name,
    standing_alone,
)
from glpi_jax.data.sources.database import Database, Facts
from glpi_jax.data.sources.table_files import Row, Table, read_csv


def read_agiqa3k(source: DatabaseFolder) -> Database:
    """Read AGIQA-3K: `data.csv`, and the generated images beside it or in one folder of any name.

    The score is `mos_quality`, the deviation `std_quality`.

    Raises:
        GlpiError: labelled images are in several places, or what `collect` raises.
    """
    return _agiqa3k(source, "agiqa3k", "quality", "quality", (0.0, 4.49))


def read_agiqa3k_alignment(source: DatabaseFolder) -> Database:
    """Read AGIQA-3K as `read_agiqa3k` does, with the scores of how an image fits its prompt.

    The score is `mos_align`, the deviation `std_align`.

    Raises:
        GlpiError: labelled images are in several places, or what `collect` raises.
    """
    return _agiqa3k(source, "agiqa3k_alignment", "align", "alignment", (0.02, 4.29))


def _agiqa3k(
    source: DatabaseFolder, name: str, column: str, meaning: str, score_range: tuple[float, float]
) -> Database:
    table = read_csv(source.label_file("data.csv"))
    table.check_columns(("name", f"mos_{column}"))
    place = _agiqa3k_place(source, table)

    def parse(row: Row) -> Label:
        return Label(
            (place + row_image_name(row, "name"),),
            row.number_of(f"mos_{column}"),
            sd=optional_number(row, f"std_{column}"),
        )

    return standing_alone(
        source,
        collect(source, table, parse),
        name=name,
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
KINDS = {
    "agiqa3k": DatabaseKind(read_agiqa3k, _LAYOUT),
    "agiqa3k_alignment": DatabaseKind(read_agiqa3k_alignment, _LAYOUT),
}
