"""A page in headless Chromium: opened as a reader does, with whether its text can be read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
TEXTS = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const apart = element.closest("script, style, title, dialog, caption, option, optgroup");
    if (!node.data.trim() || apart || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    let behind = element;
    while (behind && /, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    found.push({
      text: node.data.trim(),
      size: parseFloat(style.fontSize),
      right: element.closest(".wide") ? 0 : element.getBoundingClientRect().right,
      colour: element instanceof SVGElement ? style.fill : style.color,
      behind: getComputedStyle(behind || document.documentElement).backgroundColor,
    });
  }
  return found;
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's or the user's, without a window; a test that has none is skipped."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs the package playwright: pip install 'neurogym-v[dev]'"
    )
    found = os.environ.get("NEUROGYM_V_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs chromium or chrome on PATH, or NEUROGYM_V_CHROMIUM=FILE")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def opening(browser: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page as a browser with given settings does; nothing may fail in it, and nothing else may be fetched."""
    contexts, said, asked = [], [], []

    def load(*, width: int = 1280, at: str = "", **settings: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
        page.goto(file.as_uri() + at)
        return page

    yield load
    for context in contexts:
        context.close()
    assert said == []
    fetched = [url.partition("#")[0] for url in asked if not url.startswith("data:")]
    assert fetched == [file.as_uri()] * len(contexts)


def luminance(colour: str) -> float:
    """Of `rgb(r, g, b)`, as WCAG has it."""
    channels = np.array([float(part) for part in colour.strip("rgba()").split(",")[:3]]) / 255
    return float(
        np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
    )


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG has it: 4.5 and more can be read."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
