"""Natural images to compare with: crops of the photographs inside installed packages, or of a folder the user names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from neurogym_v.types import NeuroGymError, References

PHOTOGRAPHS = {
    "skimage.data": [
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "moon.png",
        "motorcycle_left.png",
        "rocket.jpg",
    ],
    "sklearn.datasets.images": ["china.jpg", "flower.jpg"],
}
"""Natural photographs in the wheels of scikit-image (CC0 or public domain) and scikit-learn (CC-BY)."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
ALIKE = 0.95
"""Two crops whose 16 px thumbnails correlate more than this are one image to us."""
FLAT = 0.04
"""Crops with a lower s.d. of their pixels (of 1) show nothing."""


def load_references(*, count: int | None = None, size: int = 64, folder: Path | None = None) -> References:
    """Distinct natural images, always the same ones in the same order; the first `count` of them where given.

    Args:
        size: pixels a side.
        folder: images of the user's; each gives its centre square. Without it: several hundred crops of the photographs
            inside installed packages.

    Raises:
        NeuroGymError: the folder is missing, has no images, or one of them cannot be read; or there are fewer than `count`.
    """
    images, names = _from_folder(folder, size) if folder else _from_packages(size)
    if count is not None and count > len(images):
        raise NeuroGymError(f"references: expected {count} images, there are {len(images)}")
    return References(images[:count], names[:count])


def photograph(name: str) -> str:
    """What a reference was cropped from, so that no crop of a photograph judges a fit to its neighbours: `PHOTOGRAPH@WHERE`;
    a name without `@` is a photograph of its own."""
    return name.partition("@")[0]


def _from_folder(folder: Path, size: int) -> tuple[torch.Tensor, tuple[str, ...]]:
    if not folder.is_dir():
        raise NeuroGymError(f"reference folder {folder}: expected a folder of images, found none")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise NeuroGymError(f"reference folder {folder}: expected images ({', '.join(sorted(SUFFIXES))}), found none")
    squares = [_resize(_centre(_open(path)), size) for path in paths]
    return _stack(squares), tuple(str(path.relative_to(folder)) for path in paths)


@cache
def _from_packages(size: int) -> tuple[torch.Tensor, tuple[str, ...]]:
    crops, names, thumbnails = [], [], np.empty((0, 16 * 16))
    for package, photographs in PHOTOGRAPHS.items():
        for photograph in photographs:
            for where, crop in _crops(_open(Path(str(files(package) / photograph)))):
                thumbnail = np.asarray(crop.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=float).ravel()
                thumbnail -= thumbnail.mean()
                norm = np.linalg.norm(thumbnail)
                flat = np.asarray(crop, dtype=float).std() < FLAT * 255 or norm == 0
                if flat or (len(thumbnails) and (thumbnails @ thumbnail / norm).max() > ALIKE):
                    continue
                thumbnails = np.vstack([thumbnails, thumbnail / norm])
                crops.append(_resize(crop, size))
                names.append(f"{photograph}@{where}")
    order = np.random.default_rng(0).permutation(len(crops))
    return _stack([crops[i] for i in order]), tuple(names[i] for i in order)


def _crops(photograph: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """The centre square, then windows of 1/2, 1/3 and 1/5 of the shorter side (64 px at least), half overlapping."""
    yield "whole", _centre(photograph)
    for parts in (2, 3, 5):
        side = min(photograph.size) // parts
        if side < 64:
            return
        for top in range(0, photograph.height - side + 1, side // 2 if parts == 2 else side):
            for left in range(0, photograph.width - side + 1, side // 2 if parts == 2 else side):
                yield f"{left},{top},{side}", photograph.crop((left, top, left + side, top + side))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise NeuroGymError(f"image {path}: expected a readable picture, got: {error}") from None


def _centre(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _resize(image: Image.Image, size: int) -> NDArray[np.uint8]:
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def _stack(images: list[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
