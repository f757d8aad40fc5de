"""A picture with its caption drawn below it, for trackers that show no captions."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from neurogym_v.tracking.record import Picture

LINE = 15
"""Pixels of a caption."""


def captioned(picture: Picture) -> NDArray[np.uint8]:
    """(h + 15, w or wider, 3) uint8: the picture at the upper left, its caption below."""
    height, width = picture.pixels.shape[:2]
    font = _font()
    page = Image.new("RGB", (max(width, int(font.getlength(picture.caption)) + 4), height + LINE), "white")
    page.paste(Image.fromarray(picture.pixels), (0, 0))
    ImageDraw.Draw(page).text((2, height + 1), picture.caption, fill="black", font=font)
    return np.asarray(page)


@cache
def _font() -> Any:
    return ImageFont.load_default(11)  # 5 ms each time


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(h, w, 3) uint8 as a PNG file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
