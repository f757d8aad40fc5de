"""The benchmarks start, say what they measured, and continue where they stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from neurogym_v.benchmarks.gallery import between, figures
from neurogym_v.benchmarks.sites import by_site, choose_sites
from neurogym_v.experiment import RunConfig


def start(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"neurogym_v.benchmarks.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_sites(tmp_path: Path) -> None:
    options = "--neuron gabor --sites 0 5 --agent cma_es --agent random --seeds 3 --out".split()
    run = start("sites", *options, str(tmp_path), "--budget", "80")
    assert run.returncode == 0, run.stderr
    for word in ("cma_es", "above 1", "above random"):
        assert word in run.stdout
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [(row["site"], row["agent"]) for row in rows] == [(0, "cma_es"), (0, "random"), (5, "cma_es"), (5, "random")]
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.sqlite")}
    again = start("sites", *options, str(tmp_path), "--budget", "80")
    assert again.returncode == 0, again.stderr
    assert {path.name: path.stat().st_size for path in tmp_path.glob("*.sqlite")} == sizes
    other = start("sites", *options, str(tmp_path), "--budget", "120")
    assert other.returncode == 2
    assert "choose another --out" in other.stderr


def test_sites_are_spread_over_the_neuron() -> None:
    assert choose_sites("gabor", 4) == [0, 4, 7, 11]
    assert choose_sites("gabor", 12) == list(range(12))


def test_seeds_are_averaged_within_their_site() -> None:
    results = [SimpleNamespace(config=RunConfig(site=site, seed=seed)) for site in (4, 9) for seed in (0, 1)]
    np.testing.assert_allclose(by_site(results, [[1, 0], [3, 0], [10, 5], [20, 7]]), [[2, 0], [15, 6]])


def test_speed() -> None:
    run = start("speed", *"--neuron gabor --rounds 2 --dims 16 --seconds 0.05".split())
    assert run.returncode == 0, run.stderr
    for word in ("bare generator + network", "env.step, journaled", "cma_es", "pycma, full", "cmaes SepCMA"):
        assert word in run.stdout


def test_gallery_draws_a_sheet_and_counts_what_is_alike(tmp_path: Path) -> None:
    run = start("gallery", "--generator", "fourier", "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert "closest" in run.stdout and "images/s" in run.stdout
    assert Image.open(tmp_path / "sheet.jpg").size == (20 * 64, 2 * 18 + (10 + 6) * 64)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["prior"]["typical"] > found["prior"]["closest"] > 0
    assert start("gallery", "--generator", "fuorier").returncode == 2


def test_two_equal_images_are_found_among_many() -> None:
    images = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[7] = images[2]
    assert figures(images).closest == 0
    assert figures(images[:7]).closest > 0.01
    assert figures(torch.full_like(images, 255)).at_the_ends == 1


def test_interpolations_keep_the_norm_of_the_prior() -> None:
    one, other = np.random.default_rng(0).standard_normal((2, 256)).astype(np.float32)
    path = between(one, other, 9)
    np.testing.assert_allclose(path[[0, -1]], [one, other], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 16, rtol=0.15)
