"""Small databases in the exact layouts of the published ones, for tests.

Names and labels are the real ones where `label_samples/` has them, images are drawn: the worse the
score, the more noise. What is not known from a public file (which reference an image of LIVE has,
KonIQ's MOS_zscore, labels of TID2013, SPAQ, FLIVE) is made up in the real form.
"""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import scipy.io
import xlwt
from PIL import Image

SAMPLES = Path(__file__).parent / "label_samples"

LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
LIVE_REFERENCES = [
    "bikes", "building2", "buildings", "caps", "carnivaldolls", "cemetry", "churchandcapitol",
    "coinsinfountain", "dancers", "flowersonih35", "house", "lighthouse", "lighthouse2",
    "manfishing", "monarch", "ocean", "paintedhouse", "parrots", "plane", "rapids", "sailing1",
    "sailing2", "sailing3", "sailing4", "statue", "stream", "studentsculpture", "woman", "womanhat",
]  # fmt: skip
# With the nine real names first; the other six are made up.
LIVEMD_REFERENCES = [
    "babygirl", "bikerace", "cows", "elephant", "iceroad", "lakebuilding", "lunch", "market",
    "palace2", "scene10", "scene11", "scene12", "scene13", "scene14", "scene15",
]  # fmt: skip
CSIQ_TYPES = {  # folder → the type in the sheet
    "awgn": "noise",
    "jpeg": "jpeg",
    "jpeg2000": "jpeg 2000",
    "fnoise": "fnoise",
    "blur": "blur",
    "contrast": "contrast",
}
SPAQ_COLUMNS = (
    "Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness",
)  # fmt: skip
KONIQ_COLUMNS = ("image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD")
# About 7 : 1 : 2, as published.
KONIQ_SETS = (*["training"] * 7, "validation", "test", "test")


class _Painter:
    """Draws images, or touches empty files for tests that never open them."""

    def __init__(self, draw: bool, size: tuple[int, int]) -> None:
        self.draw = draw
        self.width, self.height = size

    def __call__(self, path: Path, content: str, badness: float) -> None:
        """`content` decides what is shown, `badness` (0 to 1) how much noise lies over it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.draw:
            path.touch()
            return
        shown = np.random.default_rng(list(content.encode()))
        blocks = Image.fromarray(shown.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        pixels = np.asarray(blocks.resize((self.width, self.height)), float)
        noise = np.random.default_rng(list(path.name.encode()))
        pixels += noise.normal(0, 1 + 60 * badness, pixels.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


Builder = Callable[[Path, _Painter, int, int, str | None], None]


def build_miniature(
    kind: str,
    folder: Path,
    *,
    references: int,
    images_per_reference: int = 5,
    variant: str | None = None,
    draw: bool = True,
    size: tuple[int, int] = (48, 40),
) -> Path:
    """Write a small database of a kind into a new folder, and return the folder.

    Args:
        kind: as for `load_database`, without csv, pyiqa and liqe.
        folder: made; must not exist.
        references: number of references; of images where every image stands alone.
        images_per_reference: at most so many; of no meaning where every image stands alone.
        variant: another layout in which copies of the database are about: "flat" and "text" (CSIQ),
            "ref_imgs" (KADID-10k), "1024x768" and "both" (KonIQ-10k), "xls" and "root" (BID),
            "root" (FLIVE), "underscore" (LIVE-MD), "root" and any name of a folder (AGIQA-3K).
        draw: False leaves every image an empty file, which is faster.
        size: width and height of the images in pixels.
    """
    folder.mkdir(parents=True)
    BUILDERS[kind](folder, _Painter(draw, size), references, images_per_reference, variant)
    return folder


def read_sample(name: str) -> list[dict[str, str]]:
    """The rows of a file in `label_samples/`."""
    with (SAMPLES / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def cell_array(texts: Sequence[str], *, column: bool) -> np.ndarray:
    """Strings as MATLAB saves a cell array of them: n×1 or 1×n."""
    cells = np.empty((len(texts), 1) if column else (1, len(texts)), object)
    cells.flat[:] = list(texts)
    return cells


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV table as the databases publish it, with CRLF line ends as Windows writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_xlsx(
    path: Path, sheets: dict[str, list[Sequence[Any]]], *, first_cell: tuple[int, int] = (1, 1)
) -> None:
    """A workbook whose sheets begin at a (row, column)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for row, cells in enumerate(rows, start=first_cell[0]):
            for column, cell in enumerate(cells, start=first_cell[1]):
                sheet.cell(row, column, cell)
    workbook.save(path)


def write_xls(path: Path, rows: list[Sequence[Any]]) -> None:
    """A workbook of Excel 97 with one sheet."""
    workbook = xlwt.Workbook()
    sheet = workbook.add_sheet("Sheet1")
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            sheet.write(row, column, cell)
    workbook.save(str(path))


def _live(folder: Path, paint: _Painter, references: int, images: int, variant: str | None) -> None:
    """Always all 982 entries, since their place tells the image; those not wanted are originals."""
    published = {
        row["image"]: (111.774694 - float(row["score"]), float(row["std"]))
        for row in read_sample("live")
    }
    names = [
        f"{kind}/img{n}.bmp" for kind, count in LIVE_FOLDERS.items() for n in range(1, count + 1)
    ]
    shown = [LIVE_REFERENCES[place % len(LIVE_REFERENCES)] for place in range(len(names))]
    used = dict.fromkeys(LIVE_REFERENCES[:references], 0)
    scores, deviations, originals = [], [], []
    for name, reference in zip(names, shown, strict=True):
        wanted = name in published and used.get(reference, images) < images
        if wanted:
            used[reference] += 1
            paint(folder / name, reference, (published[name][0] + 3) / 115)
        score, deviation = published[name] if wanted else (0.0, 0.0)
        scores.append(round(score, 6))
        deviations.append(deviation)
        originals.append(0 if wanted else 1)
    for reference in LIVE_REFERENCES[:references]:
        paint(folder / f"refimgs/{reference}.bmp", reference, 0)
    scipy.io.savemat(
        folder / "dmos_realigned.mat",
        {
            "dmos_new": np.array([scores]),
            "dmos_std": np.array([deviations]),
            "orgs": np.array([originals], np.uint8),
        },
    )
    scipy.io.savemat(
        folder / "refnames_all.mat",
        {"refnames_all": cell_array([f"{name}.bmp" for name in shown], column=False)},
    )


def _csiq(folder: Path, paint: _Painter, references: int, images: int, variant: str | None) -> None:
    rows: dict[str, list[tuple[str, str, int, float, float]]] = {}
    for row in read_sample("csiq"):
        _, kind, name = row["image"].split("/")
        reference, level = name.split(".")[0], int(name.split(".")[2])
        rows.setdefault(reference, []).append(
            (name, kind, level, float(row["std"]), round(1 - float(row["score"]), 3))
        )
    flat = variant in ("flat", "text")
    for name in sorted(rows)[references:]:
        del rows[name]
    for reference in rows:
        rows[reference] = sorted(rows[reference], key=lambda row: list(CSIQ_TYPES).index(row[1]))
        rows[reference] = rows[reference][:images]
        paint(folder / f"src_imgs/{reference}.png", reference, 0)
        for name, kind, _, _, score in rows[reference]:
            place = {"flat": "dst_imgs_all", "text": "all_dis_imgs"}.get(variant or "")
            paint(folder / (place or f"dst_imgs/{kind}") / name, reference, score)
    if flat:
        # By type first, as the list that goes with the flat folder is.
        by_type = sorted(
            (row for group in rows.values() for row in group),
            key=lambda row: list(CSIQ_TYPES).index(row[1]),
        )
        lines = [f"{name} {score:f}\n" for name, _, _, _, score in by_type]
        (folder / "csiq_label.txt").write_text("".join(lines))
        return
    sheet: list[Sequence[Any]] = [("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")]
    for reference, group in rows.items():
        image = int(reference) if reference.isdecimal() else reference
        for _, kind, level, deviation, score in group:
            place = list(CSIQ_TYPES).index(kind) + 1
            sheet.append((image, place, CSIQ_TYPES[kind], level, deviation, score))
    write_xlsx(
        folder / "csiq.DMOS.xlsx",
        {"all_by_type": [("not", "this", "one")], "all_by_image": sheet},
        first_cell=(4, 4),
    )


def _tid2013(
    folder: Path, paint: _Painter, references: int, images: int, variant: str | None
) -> None:
    lines, deviations = [], []
    for reference in range(1, references + 1):
        # The disk says i25, the label file I25.
        letter = "i" if reference == 25 else "I"
        paint(folder / f"reference_images/{letter}{reference:02d}.BMP", str(reference), 0)
        for place in range(images):
            kind, level = place // 5 + 1, place % 5 + 1
            score = 7.2 - 1.3 * level - 0.01 * kind - 0.001 * reference
            name = f"{reference:02d}_{kind:02d}_{level}.bmp"
            paint(folder / f"distorted_images/{letter}{name}", str(reference), level / 5)
            lines.append(f"{score:.5f} I{name}\n")
            deviations.append(f"{0.13 + 0.01 * level:.5f}\n")
    (folder / "mos_with_names.txt").write_text("".join(lines))
    (folder / "mos_std.txt").write_text("".join(deviations))


def _kadid10k(
    folder: Path, paint: _Painter, references: int, images: int, variant: str | None
) -> None:
    by_reference: dict[str, list[dict[str, str]]] = {}
    for row in read_sample("kadid10k"):
        by_reference.setdefault(row["ref_img"], []).append(row)
    place = "ref_imgs" if variant == "ref_imgs" else "images"
    rows = []
    for reference in list(by_reference)[:references]:
        paint(folder / place / reference, reference, 0)
        for row in by_reference[reference][:images]:
            paint(folder / "images" / row["dist_img"], reference, (5 - float(row["dmos"])) / 4)
            rows.append(list(row.values()))
    write_csv(folder / "dmos.csv", ("dist_img", "ref_img", "dmos", "var"), rows)


def _livemd(
    folder: Path, paint: _Painter, references: int, images: int, variant: str | None
) -> None:
    for part, second in ((1, "jpeg"), (2, "noise")):
        place = folder / (f"Part_{part}" if variant == "underscore" else f"Part {part}")
        endings = [
            *(f"blur{level}" for level in (1, 2, 3)),
            *(f"{second}{level}" for level in (1, 2, 3)),
            *(f"blur{blur}_{second}{other}" for blur in (1, 2, 3) for other in (1, 2, 3)),
        ][:images]
        names = [f"{name}_{end}.bmp" for name in LIVEMD_REFERENCES[:references] for end in endings]
        scores = [
            round(84.67 - (84.67 - 0.61) * (place_in_part % 17) / 16, 4)
            for place_in_part in range(len(names))
        ]
        for name, score in zip(names, scores, strict=True):
            paint(place / f"blur{second}" / name, name.split("_")[0], score / 85)
        scipy.io.savemat(place / "Imagelists.mat", {"distimgs": cell_array(names, column=True)})
        scipy.io.savemat(place / "Scores.mat", {"DMOSscores": np.array([scores])})


def _clive(
    folder: Path, paint: _Painter, references: int, images: int, variant: str | None
) -> None:
    sample = read_sample("clive")[:references]
    names = [f"t{number}.bmp" for number in range(1, 8)]
    names += [row["image"].removeprefix("Images/") for row in sample]
    scores = [50.0] * 7 + [float(row["score"]) for row in sample]
    deviations = [20.0] * 7 + [float(row["std"]) for row in sample]
    for place, (name, score) in enumerate(zip(names, scores, strict=True)):
        below = "Images/trainingImages" if place < 7 else "Images"
        paint(folder / below / name, name, 1 - score / 100)
    for variable, value in (
        ("AllImages_release", cell_array(names, column=True)),
        ("AllMOS_release", np.array([scores])),
        ("AllStdDev_release", np.array([deviations])),
    ):
        (folder / "Data").mkdir(exist_ok=True)
        scipy.io.savemat(folder / f"Data/{variable}.mat", {variable: value})


def _koniq10k(
    folder: Path, paint: _Painter, references: int, images: int, variant: str | None
) -> None:
    sample = read_sample("koniq10k")[:references]
    sizes = {"1024x768": ["1024x768"], "both": ["512x384", "1024x768"]}.get(
        variant or "", ["512x384"]
    )
    scores, sets = [], []
    for place, row in enumerate(sample):
        name, mos = row["image"].split("/")[1], float(row["score"])
        for size in sizes:
            paint(folder / size / name, name, (5 - mos) / 4)
        common = [name, 0, 5, 50, 45, 5, 105, row["score"], row["std"]]
        scores.append([*common, round((mos - 1) * 25, 6)])
        sets.append([*common, KONIQ_SETS[place % len(KONIQ_SETS)]])
    write_csv(
        folder / "koniq10k_scores_and_distributions.csv", (*KONIQ_COLUMNS, "MOS_zscore"), scores
    )
    # In another order, as nothing says that the two files agree in theirs.
    write_csv(folder / "koniq10k_distributions_sets.csv", (*KONIQ_COLUMNS, "set"), sets[::-1])


def _bid(folder: Path, paint: _Painter, references: int, images: int, variant: str | None) -> None:
    rows: list[Sequence[Any]] = [("Image Number", "Average Subjective Grade", "", "Grade 1")]
    for row in read_sample("bid")[:references]:
        name, score = row["image"].split("/")[1], float(row["score"])
        number = re.sub(r"\D", "", name)
        rows.append((int(number), score, "", round(score)))
        paint(folder / ("" if variant == "root" else "ImageDatabase") / name, name, 1 - score / 5)
    if variant == "xls":
        write_xls(folder / "DatabaseGrades.xls", rows)
    else:
        write_xlsx(folder / "DatabaseGrades.xlsx", {"Sheet1": rows})


def _spaq(folder: Path, paint: _Painter, references: int, images: int, variant: str | None) -> None:
    rows: list[Sequence[Any]] = [SPAQ_COLUMNS]
    for number in range(1, references + 1):
        name, score = f"{number:05d}.jpg", 2 + 94 * (number * 7 % 31) / 30
        rows.append((name, score, 50, 50, 50, 50, 50))
        paint(folder / "TestImage" / name, name, 1 - score / 100)
    path = folder / "Annotations/MOS and Image attribute scores.xlsx"
    write_xlsx(path, {"Sheet1": rows})


def _flive(
    folder: Path, paint: _Painter, references: int, images: int, variant: str | None
) -> None:
    sets = ("blur_dataset/motion{:04d}.jpg", "voc_emotic_ava/AVA__{}.jpg", "EE371R/rq{}.jpg")
    labels = folder if variant == "root" else folder / "database"
    rows = []
    for number in range(references):
        name = sets[number % 3].format(number)
        score = 94.33 * (number * 7 % 31) / 30
        rows.append((name, score))
        paint(labels / name, name, 1 - score / 100)
    write_csv(folder / "labels_image.csv", ("name", "mos"), rows)
    names = [name for name, _ in rows]
    write_csv(
        folder / "labels640.csv",
        ("mos_patch_1", "mos_image", "name_image"),
        [(70.5, 60.5, name) for name in names[::5]],
    )
    write_csv(
        folder / "labels=640_padded.csv",
        ("name_image", "mos_image", "is_valid"),
        [(name, 60.5, str(place % 4 == 0)) for place, name in enumerate(names) if place % 5],
    )


def _agiqa3k(
    folder: Path, paint: _Painter, references: int, images: int, variant: str | None
) -> None:
    sample = read_sample("agiqa3k")[:references]
    place = folder if variant == "root" else folder / (variant or "AGIQA-3K")
    for row in sample:
        paint(place / row["name"], row["prompt"], 1 - float(row["mos_quality"]) / 5)
    write_csv(folder / "data.csv", tuple(sample[0]), [list(row.values()) for row in sample])


BUILDERS: dict[str, Builder] = {
    "live": _live,
    "csiq": _csiq,
    "tid2013": _tid2013,
    "kadid10k": _kadid10k,
    "livemd": _livemd,
    "clive": _clive,
    "koniq10k": _koniq10k,
    "bid": _bid,
    "spaq": _spaq,
    "flive": _flive,
    "agiqa3k": _agiqa3k,
    "agiqa3k_alignment": _agiqa3k,
}
