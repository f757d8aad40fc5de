"""Training the photographic generator: reading photographs, learning, stopping and resuming."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from neurogym_v.generators import photographs as photos
from neurogym_v.generators.code import Code
from neurogym_v.generators.natural import SHIPPED, Natural
from neurogym_v.generators.train import Trainer, main
from neurogym_v.references import load_references
from neurogym_v.types import NeuroGymError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 pictures of two colours each, some of them in a folder inside."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "inside").mkdir()
    rng = np.random.default_rng(0)
    for k in range(32):
        pixels = np.kron(rng.integers(0, 256, (2, 3, 3), dtype=np.uint8), np.ones((40, 40, 1), dtype=np.uint8))
        Image.fromarray(pixels).save(folder / ("inside" if k % 2 else ".") / f"{k}.jpg")
    return folder


def run(folder: Path, out: Path, *more: str) -> int:
    options = ("--batch", "4", "--warmup", "2", "--every", "4", "--seed", "3", "--device", "cpu", *more)
    return main(["--images", str(folder), "--out", str(out), *options])


def test_a_resumed_run_equals_one_that_was_not_stopped(folder: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    assert run(folder, whole, "--steps", "5") == 0
    assert run(folder, parts, "--steps", "3") == 0
    assert run(folder, parts, "--steps", "5", "--resume") == 0
    one, other = Natural.load(whole).state_dict(), Natural.load(parts).state_dict()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    assert Image.open(whole.with_suffix(".png")).size == (16 * 64, 6 * 64)
    leftovers = {path.suffix for path in tmp_path.iterdir()}
    assert leftovers == {".safetensors", ".png", ".checkpoint"}


def trainer_of(folder: Path, seed: int, warmup: int) -> Trainer:
    images, _ = photos.read([folder], 112)
    trainer = Trainer(images, size=64, seed=seed, batch=4, warmup=warmup, rate=1e-3, device="cpu")
    trainer.look()
    return trainer


def test_decoder_and_critic_learn_and_what_they_look_through_does_not(folder: Path) -> None:
    trainer = trainer_of(folder, seed=0, warmup=0)
    learning = [p for p in (*trainer.decoder.parameters(), *trainer.critic.parameters()) if p.ndim > 1]
    fixed = [*trainer.decoder.buffers(), *(trainer.critic.get_buffer(f"mix{layer}") for layer in range(6))]
    before, fixed_before = ([t.detach().clone() for t in some] for some in (learning, fixed))
    losses = trainer.step()
    assert all(np.isfinite(value) for value in losses.values())
    assert {"psnr", "pixels", "features", "codes", "critic", "fooling"} == losses.keys()
    assert not any(torch.equal(old, new) for old, new in zip(before, learning, strict=True))
    assert all(torch.equal(old, new) for old, new in zip(fixed_before, fixed, strict=True))


def test_the_seed_decides(folder: Path) -> None:
    def start(seed: int) -> torch.Tensor:
        trainer = trainer_of(folder, seed, warmup=1)
        trainer.step()
        return trainer.average["start.weight"]

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_training_brings_reconstructions_nearer(folder: Path) -> None:
    trainer = trainer_of(folder, seed=0, warmup=100)
    distances = [trainer.step()["pixels"] for _ in range(30)]
    assert np.mean(distances[-5:]) < 0.8 * np.mean(distances[:5])


def test_codes_of_photographs_are_uncorrelated_with_variance_one() -> None:
    references = load_references(size=64).images.float() / 255
    code = Code.fit(torch.split(references, 100))
    codes = torch.cat([code(some) for some in torch.split(references, 100)])
    covariance = codes.T @ codes / len(codes)
    torch.testing.assert_close(covariance, torch.eye(256), atol=2e-3, rtol=0)
    assert float(codes.mean(dim=0).abs().max()) < 1e-3


def test_codes_of_few_photographs_are_finite(folder: Path) -> None:
    images = photos.read([folder], 64)[0][:3].float() / 255
    codes = Code.fit([images])(images)
    assert codes.shape == (3, 256)
    assert codes.isfinite().all()


def test_another_decoder_gives_the_start(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurogym_v.generators.train.STARTS", 400)
    earlier = tmp_path / "earlier.safetensors"
    assert run(folder, earlier, "--steps", "2") == 0
    for size in ("64", "128"):
        out = tmp_path / f"later{size}.safetensors"
        assert run(folder, out, "--steps", "1", "--size", size, "--start", str(SHIPPED), "--rate", "1e-9") == 0
        old, new = Natural.load(SHIPPED), Natural.load(out)
        latents = old.sample(4, np.random.default_rng(0))
        wanted = old(latents)
        # the few photographs here give codes of few dimensions, so colours and layout come through, not detail
        drawn = torch.nn.functional.adaptive_avg_pool2d(new(new.encode(wanted)), 8).flatten(1)
        wanted = torch.nn.functional.adaptive_avg_pool2d(wanted, 8).flatten(1)
        distance = torch.cdist(drawn, wanted)
        assert (distance.argmin(dim=1) == torch.arange(4)).all()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    assert run(folder, tmp_path / "no.safetensors", "--steps", "1", "--start", str(damaged)) == 2


def test_resuming_another_run_or_a_damaged_checkpoint_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    assert run(folder, out, "--resume") == 2
    assert "found none" in capsys.readouterr().err
    assert run(folder, out, "--steps", "1") == 0
    assert run(folder, out, "--resume", "--size", "128") == 2
    assert "is of a run with" in capsys.readouterr().err
    checkpoint = out.with_suffix(".checkpoint")
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert run(folder, out, "--resume") == 2
    assert "not a whole checkpoint" in capsys.readouterr().err


def test_folders_without_images_end_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", tmp_path / "a.safetensors") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run(tmp_path / "nowhere", tmp_path / "a.safetensors") == 2
    assert "expected a folder or a .zip file" in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("wrong", [("--batch", "0"), ("--rate", "-1"), ("--steps", "0"), ("--minutes", "nan")])
def test_options_that_make_no_sense_end_with_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[str, str]
) -> None:
    assert run(folder, tmp_path / "a.safetensors", *wrong) == 2
    assert "expected a number above 0" in capsys.readouterr().err
    assert run(folder, tmp_path / "a.png") == 2


def test_a_run_that_diverges_stops_and_keeps_the_last_good_weights(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    assert run(folder, out, "--steps", "2") == 0
    before = out.read_bytes()
    assert run(folder, out, "--steps", "8", "--resume", "--rate", "1e30") == 2
    assert out.read_bytes() == before


def test_broken_and_double_images_are_counted_and_skipped(folder: Path, tmp_path: Path) -> None:
    first, second = (sorted(folder.glob("*.jpg"))[k].read_bytes() for k in (0, 1))
    half = second[: len(second) // 2]
    contents = {"a.jpg": first, "b.jpg": first, "c.jpg": half, "d.jpg": b"text", "e.png": b"", "f.txt": b"text"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    images, counts = photos.read([tmp_path], 112)
    assert images.shape == (1, 3, 112, 112)
    assert images.dtype == torch.uint8
    assert counts == {"read": 1, "duplicate": 1, "broken": 3}


def test_a_zip_file_is_read_like_the_folder(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.jpg")):
            file.write(path, path.relative_to(folder))
    zipped, counts = photos.read([archive], 112)
    assert torch.equal(zipped, photos.read([folder], 112)[0])
    assert counts["read"] == 32
    with pytest.raises(NeuroGymError, match="found neither"):
        photos.read([next(folder.glob("*.jpg"))], 112)


def test_crops_are_squares_of_photographs() -> None:
    images = torch.full((3, 3, 112, 112), 51, dtype=torch.uint8)
    crops = photos.crops(images, 40, 64, torch.Generator().manual_seed(0))
    assert crops.shape == (40, 3, 64, 64)
    torch.testing.assert_close(crops, torch.full_like(crops, 0.2))


def test_augmentation_is_the_same_for_all_batches_and_differentiable() -> None:
    images = torch.rand((6, 3, 64, 64), generator=torch.Generator().manual_seed(0)).requires_grad_()
    first, second = photos.augment((images, images), torch.Generator().manual_seed(1)).chunk(2)
    assert torch.equal(first, second)
    assert not torch.equal(first, images)
    first.sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).any()
