"""What a generator draws: `python -m neurogym_v.benchmarks.gallery`.

A contact sheet of 200 images of the prior, with interpolations between latents below, and the numbers beside it: how
alike the two most alike images are (photographs beside them), contrast, values at the ends of the range, images/s.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from neurogym_v.generators import Generator, draw
from neurogym_v.references import load_references
from neurogym_v.registry import device_of, load_generator
from neurogym_v.render import sheet
from neurogym_v.types import Images, NeuroGymError

SAMPLES, COLUMNS = 200, 20
INTERPOLATIONS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """About a set of images; distances are RMS over 16 px thumbnails, of a range of 1."""

    closest: float
    """Distance of the two images most alike."""
    typical: float
    """Median distance of two images."""
    contrast: float
    """Standard deviation of all values, of a range of 1."""
    at_the_ends: float
    """Share of values at 0 to 2 or 253 to 255."""


def figures(images: Images) -> Figures:
    """Of (n, 3, s, s) uint8 images, n of 2 or more."""
    values = images.float() / 255
    thumbnails = torch.nn.functional.adaptive_avg_pool2d(values, 16).flatten(1)
    apart = torch.pdist(thumbnails) / thumbnails.shape[1] ** 0.5
    return Figures(
        closest=float(apart.min()),
        typical=float(apart.median()),
        contrast=float(values.std()),
        at_the_ends=float(((images <= 2) | (images >= 253)).float().mean()),
    )


def between(one: NDArray[np.float32], other: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """(steps, d) latents from one to the other, along the great circle: the norm stays that of the prior."""
    angle = np.linspace(0, np.pi / 2, steps)[:, None]
    return np.asarray(np.cos(angle) * one + np.sin(angle) * other, dtype=np.float32)


def images_per_s(generator: Generator, batch: int = 40, seconds: float = 3.0) -> float:
    """Median over batches."""
    latents = generator.sample(batch, np.random.default_rng(0)).cpu().numpy()
    draw(generator, latents)
    took: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(took) < 3:
        began = time.perf_counter()
        draw(generator, latents).cpu()
        took.append(time.perf_counter() - began)
    return batch / float(np.median(took))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m neurogym_v.benchmarks.gallery", description=__doc__)
    parser.add_argument("--generator", default="natural64", help="a name, or a weights file [natural64]")
    parser.add_argument("--seed", type=int, default=0, help="of the latents [0]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/gallery"), help="sheet.jpg and figures.json [runs/gallery]")
    chosen = parser.parse_args()
    try:
        generator = load_generator(chosen.generator, device=device_of(chosen.device))
    except NeuroGymError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    rng = np.random.default_rng(chosen.seed)
    latents = generator.sample(SAMPLES, rng).cpu().numpy()
    ends = generator.sample(2 * INTERPOLATIONS, rng).cpu().numpy()
    paths = np.concatenate([between(ends[2 * i], ends[2 * i + 1], COLUMNS) for i in range(INTERPOLATIONS)])
    of_prior, photographs = draw(generator, latents).cpu(), load_references(size=generator.image_size).images[:SAMPLES]
    found = {"prior": figures(of_prior), "photographs": figures(photographs)}
    speed = {}
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        speed[f"{threads} thread{'s' * (threads > 1)}"] = images_per_s(generator)
    table = Table(title=f"{chosen.generator}: {SAMPLES} images of the prior, {len(photographs)} photographs", box=None)
    for heading in ("", *found):
        table.add_column(heading, justify="right")
    for name in Figures.__dataclass_fields__:
        table.add_row(name.replace("_", " "), *(f"{getattr(one, name):.3f}" for one in found.values()))
    for how, rate in speed.items():
        table.add_row(f"images/s, {how}", f"{rate:.0f}", "")
    Console().print(table)
    chosen.out.mkdir(parents=True, exist_ok=True)
    parts = {f"{chosen.generator}: {SAMPLES} samples of the prior": of_prior}
    parts["from one latent to another, along the sphere"] = draw(generator, paths).cpu()
    sheet(parts, columns=COLUMNS).save(chosen.out / "sheet.jpg", quality=90)
    numbers = {name: asdict(one) for name, one in found.items()} | {"images_per_s": speed}
    (chosen.out / "figures.json").write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
