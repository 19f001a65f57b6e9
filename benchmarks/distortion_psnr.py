"""PSNR of each KADID type and level against the images of the original generator.

    GLPI_GOLDENS=FOLDER python benchmarks/distortion_psnr.py

Prints a Markdown table: for each type and level the lowest PSNR in dB over all golden images, with
the draws of the original; "=" where all are equal. Without GLPI_GOLDENS the small set in
tests/goldens is used.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "distortions"))

from conftest import CASE_KINDS, draw_of, golden_of, load_manifest, psnr, reference_of

from glpi_jax.distortions import DISTORTIONS, distort

EQUAL = 99.0  # what `psnr` says of equal images


def lowest_psnr() -> dict[tuple[int, int], tuple[float, int]]:
    """For each type and level with goldens: the lowest PSNR and the number of images."""
    table: dict[tuple[int, int], tuple[float, int]] = {}
    for case in load_manifest()["cases"]:
        if not CASE_KINDS["golden_case"](case):
            continue
        # The thresholds of quantization are searched here, not given.
        draw = None if "thresholds_255" in case else draw_of(case)
        made = distort(reference_of(case), case["type"], case["level"], draw=draw)
        reached = psnr(made, golden_of(case))
        key = (case["type"], case["level"])
        lowest, count = table.get(key, (EQUAL, 0))
        table[key] = (min(lowest, reached), count + 1)
    return table


def cell(lowest: float | None) -> str:
    """A PSNR as it stands in the table."""
    if lowest is None:
        return ""
    return "=" if lowest == EQUAL else f"{lowest:.1f}"


def main() -> None:
    """Print the table."""
    table = lowest_psnr()
    print("| type | L1 | L2 | L3 | L4 | L5 | images |\n|---|---|---|---|---|---|---|")
    for number, distortion in DISTORTIONS.items():
        found = [table.get((number, level), (None, 0)) for level in range(1, 6)]
        images = sum(count for _, count in found)
        if images:
            cells = " | ".join(cell(lowest) for lowest, _ in found)
            print(f"| {number} {distortion.name} | {cells} | {images} |")
    measured = [lowest for lowest, _ in table.values() if lowest < EQUAL]
    print(f"\nLowest of all: {min(measured):.1f} dB, over {len(table)} pairs of type and level.")


if __name__ == "__main__":
    main()
