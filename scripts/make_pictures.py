"""Make the picture of the report that the README shows, from the page of a run, in headless Chromium.

l1ad run quickstart && python scripts/make_pictures.py runs/quickstart
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Largest size of a picture in the repository.
MAX_BYTES = 300_000


def screenshot(page: Path, picture: Path, *, width: int, height: int) -> None:
    """The first `height` pixels of a page in a window of `width`."""
    browser = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", f"--window-size={width},{height}", "--virtual-time-budget=8000",
            f"--screenshot={picture}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=300)


def shrink(picture: Path, target: Path, *, width: int) -> None:
    """Scale to `width` and write with a palette, with as many colours as fit into `MAX_BYTES`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(picture) as image:
        small = image.convert("RGB").resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    for colours in (256, 128, 64, 32):
        small.quantize(colours).save(target, optimize=True)
        if target.stat().st_size <= MAX_BYTES:
            return
    sys.exit(f"{target}: {target.stat().st_size} bytes, more than {MAX_BYTES}")


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with report.html")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "report.png")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "page.png"
        screenshot(given.run / "report.html", picture, width=1200, height=1720)
        shrink(picture, given.out, width=1000)
    sys.stdout.write(f"{given.out}: {given.out.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
