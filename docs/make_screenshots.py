"""Make the pictures in docs/screenshots from real runs: `make screenshots`.

A short demo and the weights of the package give what is shown; headless Chromium takes the pages.

    .venv/bin/python docs/make_screenshots.py --run runs/demo    # the report of another run
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from browser import NoBrowserError, headless_browser
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/screenshots"
SCRATCH = ROOT / "runs/screenshots"
MAX_BYTES, MAX_BYTES_IN_ALL = 250_000, 1_200_000
PATIENCE_MS = 60_000  # until a page must show something
KODAK = ROOT / "tests/photographs"
# What is ranked: photographs that the weights never saw in training, each untouched and spoiled.
# Name, file, what was done to the copy, and by which of KADID-10k's distortions at which level.
RANKED = (
    ("hats", KODAK / "kodak_03.jpg", "defocused", "lens_blur", 4),
    ("houses", KODAK / "kodak_08.jpg", "shaken", "motion_blur", 5),
    ("lighthouse", KODAK / "kodak_19.jpg", "noisy", "white_noise", 5),
    ("parrots", KODAK / "kodak_23.jpg", "strong_jpeg", "jpeg", 4),
    ("motorcycle", None, "dark", "darken", 5),
)
SIDE = 640  # longer side of a photograph in the pictures, in pixels

sys.path.insert(0, str(ROOT))

from glpi_jax.data.demo_database import photograph_path  # noqa: E402 - found by the line above
from glpi_jax.distortions import distort  # noqa: E402


def main() -> int:
    """Make all pictures; 2 without a browser."""
    parser = argparse.ArgumentParser(description="Make the pictures in docs/screenshots.")
    parser.add_argument("--run", type=Path, help="a finished workdir (default: a short demo)")
    args = parser.parse_args()
    shutil.rmtree(SCRATCH, ignore_errors=True)  # what another version has written
    SCRATCH.mkdir(parents=True)
    PICTURES.mkdir(exist_ok=True)
    try:
        make_pictures(args.run)
    except NoBrowserError as error:
        print(error, file=sys.stderr)
        return 2
    sizes = {path.name: path.stat().st_size for path in sorted(PICTURES.iterdir())}
    for name, size in sizes.items():
        print(f"docs/screenshots/{name}: {size / 1000:.0f} kB")
    if max(sizes.values()) > MAX_BYTES or sum(sizes.values()) > MAX_BYTES_IN_ALL:
        print("a picture, or all together, are too large for the repository", file=sys.stderr)
        return 1
    return 0


def make_pictures(run: Path | None) -> None:
    """Write docs/screenshots, the report's of this run or of a short demo."""
    with headless_browser() as browser:
        photograph = write_photographs(SCRATCH)
        if run is None:
            glpi("demo", "--short", "--workdir", "runs/demo")
        report = (run or SCRATCH / "runs/demo").resolve() / "report.html"
        glpi("rank", "holiday", "--out", "rank.png", "--top", "5", "--cell", "220")
        glpi("map", photograph.name, "--out", "map.png", "--stride", "16")
        glpi("saqt", "preview", "other.png", "--out", "saqt.png", "--cell", "160")
        for name in ("rank", "map", "saqt"):
            with Image.open(SCRATCH / f"{name}.png") as picture:
                # Of the 25 distortions the first eight: all of them would fill screens.
                height = int(1.053 * picture.width) if name == "saqt" else picture.height
                save(picture.crop((0, 0, picture.width, height)), f"{name}.jpg")

        page = browser.new_page(viewport={"width": 1100, "height": 1690})
        page.goto(report.as_uri())
        save(Image.open(io.BytesIO(page.screenshot())), "report.png")
        with serving() as address:
            page = browser.new_page(viewport={"width": 900, "height": 100})
            page.goto(address)
            page.set_input_files("#file", photograph)
            page.locator("#map").wait_for(timeout=PATIENCE_MS)
            save(Image.open(io.BytesIO(page.screenshot(full_page=True))), "serve.jpg")


def write_photographs(folder: Path) -> Path:
    """Write all photographs of the pictures; return the one whose right half is blurred."""
    (folder / "holiday").mkdir(exist_ok=True)
    for name, path, done, kind, level in RANKED:
        image = read_small(path or photograph_path(name))
        spoiled = distort(image, kind, level, rng=np.random.default_rng(0))
        Image.fromarray(image).save(folder / f"holiday/{name}.png")
        Image.fromarray(spoiled).save(folder / f"holiday/{name}_{done}.png")
    Image.fromarray(read_small(photograph_path("coffee"))).save(folder / "other.png")
    half = read_small(photograph_path("motorcycle"))
    middle = half.shape[1] // 2
    half[:, middle:] = distort(half, "gaussian_blur", 4)[:, middle:]
    Image.fromarray(half).save(folder / "photo.png")
    return folder / "photo.png"


def read_small(path: Path) -> np.ndarray:
    """Return a photograph at the size of the pictures: (H, W, 3) uint8."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.array(small)


def glpi(*arguments: str) -> None:
    """Run the command in the scratch folder, whose paths the pictures show."""
    print("glpi", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "glpi_jax", *arguments], cwd=SCRATCH, check=True)


def save(picture: Image.Image, name: str, width: int = 1200) -> None:
    """Write a picture as small as it can be without looking worse on a page."""
    picture = picture.convert("RGB")
    if picture.width > width:
        size = (width, round(picture.height * width / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    if name.endswith(".png"):
        picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
            PICTURES / name, optimize=True
        )
        return
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85, optimize=True, progressive=True)
    if content.tell() > MAX_BYTES:
        save(picture, name, width=int(0.85 * picture.width))
        return
    (PICTURES / name).write_bytes(content.getvalue())


@contextmanager
def serving() -> Iterator[str]:
    """`glpi serve` on a free port; gives its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "glpi_jax", "serve", "--port", "0"],
        cwd=SCRATCH,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            found = re.search(r"http://\S+", line)
            if found:
                yield found[0]
                return
        raise RuntimeError("glpi serve ended before it said its address")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
