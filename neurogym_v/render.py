"""A round as a picture: the images that were shown, each under its rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from neurogym_v.types import Images, Rates

CELL, LABEL, GAP = 96, 14, 4
TITLE = 18
"""Pixels above a part of a sheet."""
INK, PAPER, LOST, BEST = (225, 225, 225), (24, 24, 27), (150, 90, 90), (250, 204, 21)


def to_pil(image: Images, size: int | None = None) -> Image.Image:
    """(3, s, s) uint8 as a picture, enlarged to `size` pixels where given."""
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    return picture if size is None else picture.resize((size, size), Image.Resampling.LANCZOS)


def sheet(parts: Mapping[str, Images], *, columns: int) -> Image.Image:
    """(n, 3, s, s) uint8 images of one size in rows, part under part, each under its title; no line for an empty title."""
    side = next(iter(parts.values())).shape[-1]
    heads = [TITLE if title else 0 for title in parts]
    heights = [head + -(-len(images) // columns) * side for head, images in zip(heads, parts.values(), strict=True)]
    page = Image.new("RGB", (columns * side, sum(heights)), "white")
    pen, top = ImageDraw.Draw(page), 0
    for (title, images), head, height in zip(parts.items(), heads, heights, strict=True):
        pen.text((3, top + 3), title, fill="black")
        for at, image in enumerate(images):
            page.paste(to_pil(image), (at % columns * side, top + head + at // columns * side))
        top += height
    return page


def grid(images: Images, rates: Rates, title: str) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: n images with their (n,) rates in spikes/s below; the best is framed, lost ones are dimmed."""
    n = len(images)
    columns = min(10, max(4, math.ceil(math.sqrt(n))))
    rows = max(1, math.ceil(n / columns))
    width, height = columns * (CELL + GAP) + GAP, rows * (CELL + LABEL + GAP) + GAP + LABEL + 4
    canvas = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    draw.text((GAP, 2), title, fill=INK, font=font)
    best = int(np.nanargmax(rates)) if np.isfinite(rates).any() else -1
    for i, rate in enumerate(rates):
        x, y = GAP + (i % columns) * (CELL + GAP), LABEL + 4 + GAP + (i // columns) * (CELL + LABEL + GAP)
        picture = to_pil(images[i], CELL)
        lost = bool(np.isnan(rate))
        canvas.paste(picture.point(lambda v: v // 3) if lost else picture, (x, y))
        if i == best:
            draw.rectangle((x - 2, y - 2, x + CELL + 1, y + CELL + 1), outline=BEST, width=2)
        draw.text((x + 2, y + CELL), "lost" if lost else f"{rate:.0f} sp/s", fill=LOST if lost else INK, font=font)
    return np.asarray(canvas)
