"""Photographs for training a generator: read from folders and .zip files, cropped at random, augmented."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from neurogym_v.types import NeuroGymError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SMALLEST = 96
"""Of a crop, in px: an image larger than that is enlarged from it."""


def _files(source: Path) -> Iterator[bytes]:
    """The bytes of every image file in a folder (and the folders in it) or a .zip file, by name."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path.read_bytes()
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if name.lower().endswith(SUFFIXES):
                    try:
                        yield archive.read(name)
                    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
                        yield b""  # a damaged, encrypted or exotic member: counted with the images that cannot be read
    else:
        raise NeuroGymError(f"--images {source}: expected a folder or a .zip file, found neither")


def read(sources: Sequence[Path], side: int) -> tuple[Tensor, dict[str, int]]:
    """All different photographs of `sources` as (n, 3, side, side) uint8 (the centre square), and what was counted.

    The counts are 'read', 'duplicate' (same bytes as one before) and 'broken' (no image; skipped).

    Raises:
        NeuroGymError: a source is neither folder nor .zip, or no image was found in any.
    """
    counts = {"read": 0, "duplicate": 0, "broken": 0}
    seen: set[bytes] = set()
    photographs: list[Tensor] = []
    for source in sources:
        for content in _files(source):
            key = hashlib.sha256(content).digest()
            if key in seen and content:
                counts["duplicate"] += 1
                continue
            seen.add(key)
            try:
                with Image.open(io.BytesIO(content)) as file:
                    image = file.convert("RGB")
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                counts["broken"] += 1
                continue
            short = min(image.size)
            left, top = (image.width - short) // 2, (image.height - short) // 2
            square = image.resize((side, side), Image.Resampling.LANCZOS, box=(left, top, left + short, top + short))
            photographs.append(torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1))
            counts["read"] += 1
    if not photographs:
        where = ", ".join(str(source) for source in sources)
        raise NeuroGymError(f"--images {where}: expected photographs ({' '.join(SUFFIXES)}), found none that can be read")
    return torch.stack(photographs), counts


def crops(photographs: Tensor, n: int, size: int, generator: torch.Generator) -> Tensor:
    """(n, 3, size, size) float32 in [0, 1]: random squares of random photographs, half of them mirrored.

    The squares are between `size` (or `SMALLEST`, if that is less) and the whole side wide, so a texture and the scene
    that it is part of both occur.
    """
    side = photographs.shape[-1]
    which = torch.randint(len(photographs), (n,), generator=generator).tolist()
    draws = torch.rand((n, 4), generator=generator).tolist()
    squares, least = [], min(size, SMALLEST, side)
    for index, (width, x, y, mirror) in zip(which, draws, strict=True):
        crop = min(side, least + int(width * (side - least + 1)))
        left, top = int(x * (side - crop + 1)), int(y * (side - crop + 1))
        square = photographs[index, :, top : top + crop, left : left + crop].float()[None] / 255
        if crop != size:
            square = F.interpolate(square, (size, size), mode="bilinear", antialias=True)
        squares.append(square.flip(-1) if mirror < 0.5 else square)
    return torch.cat(squares).clamp(0, 1)


def augment(images: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Concatenate batches of equal shape (n, 3, s, s), each shifted, recoloured and cut out in the same random way.

    Differentiable, applied to whatever a discriminator sees, so that it cannot learn a small data set by heart (Zhao et
    al. 2020, arXiv:2006.10738). The same draw for all batches keeps an image and its reconstruction comparable.
    """
    first = images[0]
    n, _, size, _ = first.shape
    draws = torch.rand((n, 7), generator=generator).to(first.device)[:, :, None, None, None]
    brightness, saturation, contrast = draws[:, 0] - 0.5, 2 * draws[:, 1], draws[:, 2] + 0.5
    shift = ((draws[:, 3:5, 0, 0, 0] - 0.5) * (size // 4)).round().long()
    centre = (draws[:, 5:7, 0, 0, 0] * size).long()
    grid = torch.arange(size, device=first.device)
    rows, columns = grid[None, :] - shift[:, :1], grid[None, :] - shift[:, 1:]
    inside = ((rows >= 0) & (rows < size))[:, None, :, None] & ((columns >= 0) & (columns < size))[:, None, None, :]
    hole = [((grid[None, :] - centre[:, axis : axis + 1]).abs() < size // 6) for axis in (0, 1)]
    mask = inside & ~(hole[0][:, None, :, None] & hole[1][:, None, None, :])
    pick = rows.clamp(0, size - 1)[:, :, None] * size + columns.clamp(0, size - 1)[:, None, :]
    pick = pick.reshape(n, 1, -1).expand(-1, 3, -1)
    out = []
    for batch in images:
        batch = batch + 0.5 * brightness
        grey = batch.mean(dim=1, keepdim=True)
        batch = grey + saturation * (batch - grey)
        mean = batch.mean(dim=(1, 2, 3), keepdim=True)
        batch = mean + contrast * (batch - mean)
        out.append(batch.flatten(2).gather(2, pick).view_as(batch) * mask)
    return torch.cat(out)
