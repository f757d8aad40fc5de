"""Fitting: a made-up recording whose truth is known, folders that must be refused, the real recordings if present."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from neurogym_v.neurons import fit
from neurogym_v.neurons.fitted import FittedNeuron, features
from neurogym_v.neurons.mapping import calibrate, count_repeats, pearson, reliability

RECORDINGS = Path(os.environ.get("NEUROGYM_V_RECORDINGS", Path(__file__).parents[2] / "shared" / "recordings"))
REPEATS = 20


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_images(folder: Path, images: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number, data in enumerate(images, start=1):
            archive.writestr(f"image{number}.jpg", data)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three neurons that are linear in the network's features, counted over 20 repeats; 200 smooth colour images."""
    folder = tmp_path_factory.mktemp("recordings") / "made_up"
    rng = np.random.default_rng(0)
    seeds = torch.from_numpy(rng.uniform(0, 255, (200, 3, 2, 2)).astype(np.float32))
    smooth = functional.interpolate(seeds, (48, 48), mode="bilinear").to(torch.uint8).permute(0, 2, 3, 1).numpy()
    write_images(folder, [jpeg(image) for image in smooth])
    seen = features(fit.read_images(folder / "images.zip"), block=7, size=112, device="cpu").double().numpy()
    axes = np.linalg.svd(seen - seen.mean(axis=0), full_matrices=False)[0][:, :3] * np.sqrt(200)
    rates = np.maximum(0.0, 40.0 + 12.0 * axes)
    counts = rng.poisson(rates.T[:, :, None] / fit.HZ, (3, 200, REPEATS)).astype(np.float64)
    np.save(folder / "mean_counts.npy", counts.mean(axis=2))
    np.save(folder / "trial_counts.npy", counts)
    return folder.parent


def test_a_linear_neuron_is_recovered(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made.safetensors"
    assert fit.main(["--recordings", str(recording), "--out", str(out)]) == 0
    assert "200 images, 3 neurons" in capsys.readouterr().out
    neuron = FittedNeuron.load(out)
    assert neuron.sites == 3 and neuron.name == "made"
    truth = fit.read(recording / "made_up")
    modelled = neuron.expected_rate(truth.images)
    for site, card in enumerate(neuron.cards):
        assert card.r > 0.85 and card.repeats == REPEATS and card.session == card.animal == "made_up"
        assert card.ceiling == pytest.approx(0.95, abs=0.05)
        assert modelled[:, site].mean() == pytest.approx(card.recorded_mean_hz, rel=0.01)
        assert modelled[:, site].std() == pytest.approx(card.signal_sd_hz, rel=0.01)
        assert modelled[:, site].max() == pytest.approx(card.best_recorded_model_hz, rel=0.001)
        assert modelled[:, site].min() >= card.floor_hz - 0.001


def test_without_out_nothing_is_written(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fit.main(["--recordings", str(recording), "--block", "2", "--size", "64"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_fitted_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(expected: str) -> None:
        assert fit.main(["--recordings", str(tmp_path), "--out", str(tmp_path / "v4.safetensors")]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert expected in message and not (tmp_path / "v4.safetensors").exists()

    refused("found none")
    grey = jpeg(np.full((16, 16, 3), 90, dtype=np.uint8))
    write_images(tmp_path / "a", [grey] * 4)
    np.save(tmp_path / "a" / "mean_counts.npy", np.ones((2, 5)))
    refused("expected finite counts (neurons, 4 images), got (2, 5)")
    np.save(tmp_path / "a" / "mean_counts.npy", np.full((2, 4), np.pi))
    refused("expected whole spikes")
    write_images(tmp_path / "a", [grey, grey[:40], grey, grey])
    refused("image2.jpg: expected a JPEG")
    write_images(tmp_path / "a", [grey, jpeg(np.zeros((8, 8, 3), dtype=np.uint8))])
    refused("expected images of one size")
    (tmp_path / "a" / "images.zip").unlink()
    refused("expected images.zip and mean_counts.npy")


def test_an_image_shown_under_two_names_counts_once(tmp_path: Path) -> None:
    first, second = (jpeg(np.full((16, 16, 3), level, dtype=np.uint8)) for level in (60, 200))
    write_images(tmp_path, [first, second, first])
    np.save(tmp_path / "mean_counts.npy", np.array([[1 / 3, 0.6, 1.0]]))
    found = fit.read(tmp_path)
    np.testing.assert_array_equal(found.repeats, [4, 5])
    np.testing.assert_allclose(found.rates, [[5.0], [6.0]])


def test_repeats_follow_from_means_and_calibration_meets_its_targets() -> None:
    rng = np.random.default_rng(1)
    repeats = rng.integers(6, 14, 50)
    counts = np.array([[rng.poisson(3.0, m).mean() for m in repeats] for _ in range(30)])
    np.testing.assert_array_equal(count_repeats(counts), repeats)
    drive, mean, sd = rng.standard_normal((400, 2)) * [1.0, 7.0], np.array([20.0, 6.0]), np.array([5.0, 8.0])
    gain, offset = calibrate(drive, mean, sd)
    rates = np.maximum(0.0, gain * drive + offset)
    np.testing.assert_allclose([rates.mean(axis=0), rates.std(axis=0)], [mean, sd], rtol=1e-6)
    assert pearson(drive, rates)[0] > 0.99 and pearson(np.ones((5, 1)), np.ones((5, 1)))[0] == 0


def test_reliability_is_the_r_of_a_perfect_model() -> None:
    rng = np.random.default_rng(2)
    rates = rng.uniform(0, 6, (1, 2000, 1))
    trials = rng.poisson(rates, (1, 2000, 10)).astype(np.float64)
    trials[:, ::3, 8:] = np.nan
    perfect = pearson(np.nanmean(trials, axis=2).T, rates[:, :, 0].T)[0]
    assert reliability(trials)[0] == pytest.approx(perfect, abs=0.01)


@pytest.mark.skipif(not (RECORDINGS / "macaque_v4").is_dir(), reason="recordings absent: set NEUROGYM_V_RECORDINGS")
def test_the_shipped_r_is_that_of_the_recordings() -> None:
    neuron = FittedNeuron.load()
    fitted = fit.model(fit.read(RECORDINGS / "macaque_v4" / "210325"), neuron.block, neuron.size)
    shipped = [card for card in neuron.cards if card.session == "210325"]
    assert len(shipped) >= 3
    for card in shipped:
        again = fitted.cards[card.neuron]
        assert again.r == pytest.approx(card.r, abs=0.005)
        assert again.best_recorded_model_hz == pytest.approx(card.best_recorded_model_hz, rel=0.01)
