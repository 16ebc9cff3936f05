"""Chromium, where it is installed: pages are drawn as a phone draws them, and measured."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--dump-dom", "--window-size=1400,1000",
    "--hide-scrollbars",
)  # fmt: skip

# The page as it is stands in a frame; the script belongs to the test's own frame around it.
FRAME = """<!doctype html><meta charset="utf-8"><body>
<iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{
  const inside = document.querySelector("iframe").contentDocument, seen = {{}};
  for (const one of inside.querySelectorAll("details")) one.open = true;
  seen.scroll_width = inside.documentElement.scrollWidth;
  seen.broken_images = [...inside.images].filter(image => !image.naturalWidth).length;
  seen.num_images = inside.images.length;
  seen.background = inside.defaultView.getComputedStyle(inside.body).backgroundColor;
  document.body.innerHTML = "<pre>" + JSON.stringify(seen) + "</pre>";
}});
</script>"""

Measure = Callable[..., dict]


@pytest.fixture
def measure_page(tmp_path: Path) -> Measure:
    """Give a function that draws a page in a frame of some width and tells what it measured."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")

    def measure(page: str, *, width: int, dark: bool = False) -> dict:
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.format(width=width, page=html.escape(page)), encoding="utf-8")
        theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        command = [browser, *FLAGS, theme, f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=90, check=True)
        return json.loads(html.unescape(re.findall(r"<pre>(.*?)</pre>", done.stdout)[0]))

    return measure
