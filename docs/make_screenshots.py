"""Make the pictures in docs/screenshots from real runs: `make screenshots`.

A short demo and the demonstration weights give what is shown; headless Chromium takes the pages.

    .venv/bin/python docs/make_screenshots.py --run runs/demo    # the report of another run
"""

import argparse
import base64
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/screenshots"
SCRATCH = ROOT / "runs/screenshots"
MAX_BYTES, MAX_BYTES_IN_ALL = 250_000, 1_200_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0  # seconds until a page must show something

sys.path.insert(0, str(ROOT))

from glpi_jax.data.demo import photograph_path  # noqa: E402 - found by the line above
from glpi_jax.saqt import distort  # noqa: E402


def main() -> int:
    """Make all pictures; 2 without a browser."""
    parser = argparse.ArgumentParser(description="Make the pictures in docs/screenshots.")
    parser.add_argument("--run", type=Path, help="a finished workdir (default: a short demo)")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(
            "make screenshots needs Chromium or Chrome on the PATH (Debian: apt-get install"
            " chromium)",
            file=sys.stderr,
        )
        return 2
    SCRATCH.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    photograph = write_photographs(SCRATCH)
    if args.run is None:
        glpi("demo", "--short", "--workdir", "runs/demo")
    report = (args.run or SCRATCH / "runs/demo").resolve() / "report.html"
    glpi("rank", "holiday", "--out", "rank.png", "--top", "4", "--cell", "220")
    glpi("map", photograph.name, "--out", "map.png")
    glpi("saqt", "preview", "other.png", "--out", "saqt.png", "--cell", "160")
    for name in ("rank", "map", "saqt"):
        with Image.open(SCRATCH / f"{name}.png") as picture:
            # Of the 25 distortions the first eight: all of them would fill screens.
            height = int(1.08 * picture.width) if name == "saqt" else picture.height
            save(picture.crop((0, 0, picture.width, height)), f"{name}.jpg")
    with Browser(browser) as pages, serving() as address:
        pages.open(report.as_uri(), width=1100)
        save(pages.shot(height=1690), "report.png")
        pages.open(address, width=900)
        pages.choose_file("#file", photograph)
        pages.wait_for("document.querySelector('#map').naturalWidth > 0")
        save(pages.shot(), "serve.jpg")
    sizes = {path.name: path.stat().st_size for path in sorted(PICTURES.iterdir())}
    for name, size in sizes.items():
        print(f"docs/screenshots/{name}: {size / 1000:.0f} kB")
    if max(sizes.values()) > MAX_BYTES or sum(sizes.values()) > MAX_BYTES_IN_ALL:
        print("a picture, or all together, are too large for the repository", file=sys.stderr)
        return 1
    return 0


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


class Browser:
    """Headless Chromium with one page, told what to do over a pipe (Chrome DevTools Protocol)."""

    def __init__(self, program: str):
        """Start it, with a profile of its own."""
        self._profile = tempfile.TemporaryDirectory()
        theirs, self._write = os.pipe()
        self._read, answers = os.pipe()
        options = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--force-color-profile=srgb", f"--user-data-dir={self._profile.name}",
            "--remote-debugging-pipe",
        )  # fmt: skip
        # It reads commands from descriptor 3 and answers on 4.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{theirs} 4>&{answers}', program, *options],
            pass_fds=(theirs, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def __enter__(self) -> "Browser":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        self._profile.cleanup()

    def open(self, address: str, *, width: int) -> None:
        """Load a page in a window of a width in pixels."""
        self._width = width
        self._resize(900)
        self._ask("Page.navigate", url=address)
        self.wait_for(f"document.readyState == 'complete' && location.href == {address!r}")

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input element, as a person would by its dialogue."""
        node = self._ask("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        self._ask("DOM.setFileInputFiles", files=[str(path)], objectId=node["result"]["objectId"])

    def wait_for(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""
        until = time.monotonic() + PATIENCE
        while not self._value(condition):
            if time.monotonic() > until:
                raise TimeoutError(f"no page showed this in {PATIENCE:.0f} s: {condition}")
            time.sleep(0.1)

    def shot(self, height: int | None = None) -> Image.Image:
        """The page from its top, all of it or so many pixels."""
        self._resize(height or 100)  # a page is no lower than its window
        self._resize(height or int(self._value("document.documentElement.scrollHeight")))
        data = self._ask("Page.captureScreenshot", format="png")["data"]
        return Image.open(io.BytesIO(base64.b64decode(data)))

    def _resize(self, height: int) -> None:
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=self._width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def _value(self, expression: str) -> Any:
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._answer(lambda said: said.get("id") == number)

    def _answer(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message that is wanted; events between are passed over."""
        while True:
            while b"\0" not in self._rest:
                more = os.read(self._read, 1 << 16)
                if not more:
                    raise RuntimeError("the browser has ended")
                self._rest += more
            line, _, self._rest = self._rest.partition(b"\0")
            said = json.loads(line)
            if wanted(said):
                if "error" in said:
                    raise RuntimeError(said["error"]["message"])
                result: dict[str, Any] = said["result"]
                return result


if __name__ == "__main__":
    sys.exit(main())
