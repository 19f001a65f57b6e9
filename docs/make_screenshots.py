"""Make the pictures in docs/screenshots from real runs: `make screenshots`.

A short demo and the demonstration weights give what is shown; headless Chromium takes the pages.

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

sys.path.insert(0, str(ROOT))

from glpi_jax.data.demo import photograph_path  # noqa: E402 - found by the line above
from glpi_jax.saqt import distort  # noqa: E402


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
        glpi("rank", "holiday", "--out", "rank.png", "--top", "4", "--cell", "220")
        glpi("map", photograph.name, "--out", "map.png")
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
    """Photographs of scikit-image, some distorted; one whose right half is blurred, returned."""
    (folder / "holiday").mkdir(exist_ok=True)
    images = {}
    for scene in ("astronaut", "cat", "coffee", "rocket", "motorcycle"):
        with Image.open(photograph_path(scene)) as picture:
            picture.thumbnail((640, 640))
            images[scene] = np.asarray(picture.convert("RGB"))
    kinds = (("gaussian_blur", 4), ("white_noise", 4), ("jpeg", 5), ("high_sharpen", 3))
    for scene, image in images.items():
        Image.fromarray(image).save(folder / f"holiday/{scene}.png")
    for (scene, image), (kind, level) in zip(images.items(), kinds, strict=False):
        made = distort(image, kind, level, rng=np.random.default_rng(0))
        Image.fromarray(made).save(folder / f"holiday/{scene}_{kind}.png")
    Image.fromarray(images["coffee"]).save(folder / "other.png")
    half = images["motorcycle"].copy()
    middle = half.shape[1] // 2
    half[:, middle:] = distort(half, "gaussian_blur", 4)[:, middle:]
    Image.fromarray(half).save(folder / "photo.png")
    return folder / "photo.png"


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
