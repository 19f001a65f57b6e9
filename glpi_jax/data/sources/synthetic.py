"""Databases of distorted references: LIVE, CSIQ, TID2013, KADID-10k, LIVE-MD.

What an official index number stands for, and the order of images within a reference, follow the
authors' loaders (SYSU-Video/GlintIQA, glintiqa/data/datasets.py).
"""

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.collect import DatabaseFolder, DatabaseKind, Label, collect
from glpi_jax.data.sources.database import Database, Facts
from glpi_jax.data.sources.table_files import Row, read_csv, read_lines, read_mat, read_sheet
from glpi_jax.distortions import DISTORTIONS

# Folders of LIVE release 2 in the order of its label arrays, and how many images each holds.
_LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
_LIVE_IMAGES = [
    (folder, f"{folder}/img{number}.bmp")
    for folder, count in _LIVE_FOLDERS.items()
    for number in range(1, count + 1)
]

_CSIQ_NAME = r"(.+)\.(awgn|jpeg|jpeg2000|fnoise|blur|contrast)\.(\d)\.png"
# The sheet's names of the types → those in file names.
_CSIQ_TYPES = {
    "noise": "AWGN",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
    "fnoise": "fnoise",
    "blur": "BLUR",
    "contrast": "contrast",
}
_CSIQ_COLUMNS = ("image", "dst_type", "dst_lev", "dmos_std", "dmos")

_TID_NAME = r"i(\d\d)_(0[1-9]|1\d|2[0-4])_(\d)\.bmp"
# The 24 types in the order of the TID2013 paper (Ponomarenko et al. 2015, Table 1).
_TID_TYPES = (
    "additive_gaussian_noise",
    "color_component_noise",
    "spatially_correlated_noise",
    "masked_noise",
    "high_frequency_noise",
    "impulse_noise",
    "quantization_noise",
    "gaussian_blur",
    "denoise",
    "jpeg",
    "jpeg2000",
    "jpeg_transmission_errors",
    "jpeg2000_transmission_errors",
    "non_eccentricity_pattern_noise",
    "local_blocks",
    "mean_shift",
    "contrast_change",
    "color_saturation_change",
    "multiplicative_gaussian_noise",
    "comfort_noise",
    "lossy_compression_of_noisy_images",
    "color_quantization_with_dither",
    "chromatic_aberrations",
    "sparse_sampling",
)

_KADID_NAME = r"i(\d\d)_(0[1-9]|1\d|2[0-5])_(\d\d)\.png"


def read_live(source: DatabaseFolder) -> Database:
    """LIVE release 2: `jp2k/img1.bmp` …, `dmos_realigned.mat`, `refnames_all.mat`.

    The arrays hold 982 entries; the 203 originals among them (`orgs`) carry no score. Index
    numbers: names of the references, sorted ascending.
    """
    scores = source.label_file("dmos_realigned.mat")
    names = source.label_file("refnames_all.mat")
    columns = {name: (scores, name) for name in ("dmos_new", "dmos_std", "orgs")}
    table = read_mat({**columns, "reference": (names, "refnames_all")})
    if len(table.rows) != len(_LIVE_IMAGES):
        raise GlpiError(
            f"{scores}: {len(table.rows)} entries, LIVE release 2 has {len(_LIVE_IMAGES)}"
        )
    table.rows = [row for row in table.rows if not row.number_of("orgs")]

    def parse(row: Row) -> Label:
        folder, name = _LIVE_IMAGES[row.number - 1]
        reference = PurePosixPath(row.text("reference")).stem
        sd = row.optional_number_of("dmos_std")
        return Label((name,), row.number_of("dmos_new"), reference, folder, sd=sd)

    return collect(source, table, parse).database(
        score_name="DMOS",
        higher_is_better=False,
        label_note="LIVE's realigned DMOS (dmos_new; -2.64 to 111.77, lower is better)",
        facts=Facts(images=779, references=29, score_range=(-2.64, 111.77)),
    )


def read_csiq(source: DatabaseFolder) -> Database:
    """CSIQ: `dst_imgs/<type>/1600.AWGN.1.png`, or all in one folder (`dst_imgs_all`, …).

    Labels from `csiq.DMOS.xlsx`, or else from `csiq_label.txt` ("name dmos"). Index numbers: names
    of the references, sorted descending.
    """
    path = source.label_file("csiq.DMOS.xlsx", "csiq_label.txt")
    if path.suffix.lower() == ".txt":
        table = read_lines(path, ("name", "dmos"))
    else:
        table = read_sheet(path, _CSIQ_COLUMNS, sheet="all_by_image")

    def parse(row: Row) -> Label:
        name = _csiq_image(row)
        reference, kind, level = _parts_of(row, name, _CSIQ_NAME, "CSIQ name (1600.AWGN.1.png)")
        kind = kind.lower()
        places = (f"dst_imgs/{kind}", "dst_imgs_all", "all_dis_imgs", "dst_imgs")
        candidates = tuple(f"{place}/{name}" for place in places)
        sd = row.optional_number_of("dmos_std")
        return Label(candidates, row.number_of("dmos"), reference, kind, int(level), sd)

    database = collect(source, table, parse).database(
        score_name="DMOS",
        higher_is_better=False,
        label_note="CSIQ's DMOS (0 to 1, lower is better)",
        facts=Facts(images=866, references=30, score_range=(0.0, 1.0)),
    )
    return replace(database, reference_order=database.reference_order[::-1])


def _csiq_image(row: Row) -> str:
    """The file name as the text file gives it, or made of the sheet's cells."""
    if "name" in row.table.index:
        return row.image_name("name")
    kind = row.text("dst_type").lower()
    if kind not in _CSIQ_TYPES:
        raise row.bad(f"dst_type {kind!r} is none of {', '.join(_CSIQ_TYPES)}")
    return f"{row.text('image')}.{_CSIQ_TYPES[kind]}.{row.whole_number_of('dst_lev')}.png"


def read_tid2013(source: DatabaseFolder) -> Database:
    """TID2013: `distorted_images/I01_01_1.bmp`, `mos_with_names.txt` ("mos name"), `mos_std.txt`.

    Index numbers: two-digit ids of the references, sorted.
    """
    table = read_lines(source.label_file("mos_with_names.txt"), ("mos", "name"))
    deviations: dict[int, Row] = {}  # by the number of the line that they belong to
    path = source.optional_file("mos_std.txt")
    if path is not None:
        rows = read_lines(path, ("std",)).rows
        if len(rows) != len(table.rows):
            raise GlpiError(
                f"{path}: {len(rows)} lines, but {len(table.rows)} in {table.path.name}"
            )
        deviations = dict(zip((row.number for row in table.rows), rows, strict=True))

    def parse(row: Row) -> Label:
        name = row.image_name("name")
        number, kind, level = _parts_of(row, name, _TID_NAME, "TID2013 name (I01_01_1.bmp)")
        kind = _TID_TYPES[int(kind) - 1]
        sd = deviations[row.number].number_of("std") if deviations else float("nan")
        candidates = (f"distorted_images/{name}",)
        return Label(candidates, row.number_of("mos"), f"I{number}", kind, int(level), sd)

    return collect(source, table, parse).database(
        label_note="TID2013's MOS (0.24 to 7.21, higher is better)",
        facts=Facts(images=3000, references=25, score_range=(0.24, 7.21)),
    )


def read_kadid10k(source: DatabaseFolder) -> Database:
    """KADID-10k: `images/I01_01_01.png`, `dmos.csv` (dist_img, ref_img, dmos, var).

    Index numbers: two-digit ids of the references, sorted.
    """
    table = read_csv(source.label_file("dmos.csv"), ("dist_img", "ref_img", "dmos"))

    def parse(row: Row) -> Label:
        name = row.image_name("dist_img")
        number, kind, level = _parts_of(row, name, _KADID_NAME, "KADID-10k name (I01_01_01.png)")
        reference, kind = f"I{number}", DISTORTIONS[int(kind)].name
        if PurePosixPath(row.text("ref_img")).stem.upper() != reference:
            raise row.bad(f"{name!r} does not belong to {row.text('ref_img')!r}")
        sd = row.optional_number_of("var")
        return Label((f"images/{name}",), row.number_of("dmos"), reference, kind, int(level), sd)

    return collect(source, table, parse).database(
        score_name="DMOS",
        higher_is_better=True,
        label_note="KADID-10k's mean human score (published as dmos; 1 to 5, higher is better)",
        facts=Facts(images=10125, references=81, score_range=(1.0, 4.93)),
    )


def read_livemd(source: DatabaseFolder) -> Database:
    """LIVE-MD: `Part 1/blurjpeg`, `Part 2/blurnoise`, `Imagelists.mat` and `Scores.mat` in each.

    The two parts name some images alike; Part 1 comes first. Index numbers: names of the
    references, sorted ascending.
    """
    places: dict[Path, tuple[str, str]] = {}
    rows: list[Row] = []
    for number, kind in (("1", "blurjpeg"), ("2", "blurnoise")):
        folders = (f"Part {number}", f"Part_{number}", f"Part{number}")  # copies differ
        lists = source.label_file(*(f"{folder}/Imagelists.mat" for folder in folders))
        folder = lists.parent.relative_to(source.root).as_posix()
        scores = source.label_file(f"{folder}/Scores.mat")
        table = read_mat({"dmos": (scores, "DMOSscores"), "name": (lists, "distimgs")})
        places[scores] = (folder, kind)
        rows += table.rows

    def parse(row: Row) -> Label:
        folder, kind = places[row.table.path]
        name = row.image_name("name")
        what = "LIVE-MD name (babygirl_blur1_jpeg1.bmp)"
        (reference,) = _parts_of(row, name, r"([^_]*)_.*", what)
        return Label((f"{folder}/{kind}/{name}",), row.number_of("dmos"), reference, kind)

    table.rows = rows
    return collect(source, table, parse).database(
        score_name="DMOS",
        higher_is_better=False,
        label_note="LIVE-MD's DMOS (0.61 to 84.67, lower is better)",
        facts=Facts(images=450, references=15, score_range=(0.61, 84.67)),
    )


def _parts_of(row: Row, name: str, pattern: str, what: str) -> tuple[str, ...]:
    """The groups of a pattern in an image's name, whatever its case; `what` such a name is."""
    match = re.fullmatch(pattern, name, re.I)
    if match is None:
        raise row.bad(f"{name!r} is not a {what}")
    return match.groups()


KINDS = {
    "live": DatabaseKind(
        read_live, "jp2k/, jpeg/, wn/, gblur/, fastfading/, dmos_realigned.mat, refnames_all.mat"
    ),
    "csiq": DatabaseKind(
        read_csiq, "dst_imgs/ (or dst_imgs_all/, all_dis_imgs/), csiq.DMOS.xlsx or csiq_label.txt"
    ),
    "tid2013": DatabaseKind(read_tid2013, "distorted_images/, mos_with_names.txt"),
    "kadid10k": DatabaseKind(read_kadid10k, "images/, dmos.csv"),
    "livemd": DatabaseKind(
        read_livemd, "Part 1/blurjpeg/, Part 2/blurnoise/, Imagelists.mat and Scores.mat in each"
    ),
}
