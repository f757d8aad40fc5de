"""Train the photographic generator: python -m neurogym_v.generators.train --images DIR --out natural64.safetensors

A VAE/GAN (Larsen et al. 2016, arXiv:1512.09300). An encoder gives every photograph a normal distribution of latents, a
decoder makes images, and a discriminator learns to tell photographs from reconstructions and from images of latents
drawn from the prior. No pretrained network takes part, so any neuron's network stays a fair test of the images.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from neurogym_v import weights
from neurogym_v.files import write_whole
from neurogym_v.generators import photographs
from neurogym_v.generators.natural import KIND, Natural
from neurogym_v.types import NeuroGymError

SIDE = 112
"""Photographs are kept at this side in px; crops of 64 to 112 px are taken from them."""
STRETCHED = 0.25
"""Share of prior latents made up to twice as long, so that latents beyond the prior are held to the same standard."""


def _downward(channels: Sequence[int]) -> nn.Sequential:
    """Convolutions that halve the side at each step."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(nn.Sequential(nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)))
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """(n, 3, 64, 64) in [0, 1] -> mean and log variance of the latents, (n, 256) each."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _downward((3, 48, 96, 192, 384))
        self.head = nn.Linear(384 * 4 * 4, 2 * Natural.latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.trunk((2 * images - 1).contiguous(memory_format=torch.channels_last))
        mean, log_variance = self.head(maps.flatten(1)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 2)


class Discriminator(nn.Module):
    """(n, 3, 64, 64) in [0, 1] -> one logit an image (photograph above 0) and the maps at 16 and 8 px."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _downward((3, 64, 128, 256, 384))
        self.head = nn.Linear(384 * 4 * 4, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        seen = []
        for layer in self.trunk:
            maps = layer(maps)
            seen.append(maps)
        return self.head(maps.flatten(1)).float()[:, 0], (seen[1].float(), seen[2].float())


class Trainer:
    """All that changes during training, and one step of it; `images` are the photographs, (n, 3, 112, 112) uint8.

    The randomness of a step (which crops, which latents, which augmentation) depends on the seed and the number of the
    step alone, so a run that was stopped and resumed goes exactly the way of one that was not.
    """

    def __init__(self, images: Tensor, *, seed: int, batch: int, warmup: int, nats: float, rate: float, device: str) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder, decoder, discriminator = Encoder(), Natural(), Discriminator()
        self.images, self.photographs = images, weights.digest({"photographs": images})
        self.seed, self.batch, self.warmup, self.nats, self.device = seed, batch, warmup, nats, torch.device(device)
        self.step_number, self.seconds, self.log_beta = 0, 0.0, math.log(3e-3)
        self.networks = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.networks.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = discriminator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {name: tensor.detach().clone() for name, tensor in self.networks.state_dict().items()}
        self.adam = torch.optim.Adam(self.networks.parameters(), lr=rate, betas=(0.5, 0.99))
        self.critic_adam = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=(0.5, 0.99))

    def generator(self, purpose: int = 0) -> torch.Generator:
        """The random numbers of this step."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.step_number) * 8 + purpose)

    def step(self) -> dict[str, float]:
        """Learn from one batch; returns PSNR in dB and nats of the photographs, and the losses, by name."""
        rng, adversarial = self.generator(), self.step_number >= self.warmup
        latent_dim = Natural.latent_dim
        real = photographs.crops(self.images, self.batch, Natural.image_size, rng).to(self.device)
        noise = torch.randn((self.batch, latent_dim), generator=rng).to(self.device)
        prior = torch.randn((self.batch, latent_dim), generator=rng)
        prior[: int(self.batch * STRETCHED)] *= 1 + torch.rand((int(self.batch * STRETCHED), 1), generator=rng)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            mean, log_variance = self.networks["encoder"](real)
            latents = mean + torch.exp(log_variance / 2) * noise
            if adversarial:
                made = self.networks["decoder"](torch.cat((latents, prior.to(self.device))))
                rebuilt, dreamt = made.chunk(2)
            else:
                rebuilt = self.networks["decoder"](latents)
        losses = {}
        if adversarial:
            losses["critic"] = self._step_critic(real, rebuilt.detach(), dreamt.detach(), rng)
        nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        pixels = sum(
            weight * F.mse_loss(F.avg_pool2d(rebuilt, pool), F.avg_pool2d(real, pool))
            for pool, weight in ((1, 1.0), (2, 1.0), (4, 2.0), (8, 4.0))
        )
        total = 20 * pixels + math.exp(self.log_beta) * nats
        if adversarial:
            self.discriminator.requires_grad_(False)
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                logits, maps = self.discriminator(photographs.augment((real, rebuilt, dreamt), rng))
            self.discriminator.requires_grad_(True)
            n = self.batch
            features = sum(((m[n : 2 * n] - m[:n].detach()).square().mean() / m[:n].detach().square().mean()) for m in maps)
            fooling = F.softplus(-logits[n:]).mean()
            total = total + features + fooling
            losses |= {"features": float(features.detach()), "fooling": float(fooling.detach())}
        self.adam.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.networks.parameters(), 5.0)
        self.adam.step()
        # The weight of the KL term is steered: a photograph shall take `nats` nats, enough to be found again and few
        # enough that the latents of photographs and the prior overlap.
        self.log_beta += 0.01 * max(-1.0, min(1.0, float(nats.detach()) / self.nats - 1))
        self.step_number += 1
        decay = min(0.997, (1 + self.step_number) / (10 + self.step_number))
        for name, tensor in self.networks.state_dict().items():
            self.average[name].lerp_(tensor, 1 - decay)
        psnr = -10 * math.log10(float(F.mse_loss(rebuilt.detach(), real)) + 1e-9)
        return {"psnr": psnr, "nats": float(nats.detach())} | losses

    def _step_critic(self, real: Tensor, rebuilt: Tensor, dreamt: Tensor, rng: torch.Generator) -> float:
        """One step of the discriminator (non-saturating loss; R1, Mescheder et al. 2018, every 8th step); its loss."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits, _ = self.discriminator(photographs.augment((real, rebuilt, dreamt), rng))
        loss = F.softplus(-logits[: self.batch]).mean() + F.softplus(logits[self.batch :]).mean()
        total = loss
        if self.step_number % 8 == 0:
            shown = photographs.augment((real,), rng).requires_grad_(True)
            logits, _ = self.discriminator(shown)
            (slope,) = torch.autograd.grad(logits.sum(), shown, create_graph=True)
            total = loss + 8 * 0.05 * slope.square().sum(dim=(1, 2, 3)).mean()
        self.critic_adam.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.critic_adam.step()
        return float(loss.detach())

    def averaged(self) -> tuple[Encoder, Natural]:
        """Encoder and decoder with the running mean of their weights: what is looked at, and what is shipped."""
        encoder, decoder = Encoder(), Natural()
        for prefix, network in (("encoder.", encoder), ("decoder.", decoder)):
            network.load_state_dict(
                {name.removeprefix(prefix): t for name, t in self.average.items() if name.startswith(prefix)}
            )
            network.to(self.device).eval().requires_grad_(False)
        return encoder, decoder

    def settings(self) -> dict[str, float | str]:
        """What must be the same for a run to be the same run."""
        same: dict[str, float | str] = {"seed": self.seed, "batch": self.batch, "warmup": self.warmup, "nats": self.nats}
        return same | {"photographs": self.photographs}

    def state_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings(),
            "progress": {"step": self.step_number, "seconds": self.seconds, "log_beta": self.log_beta},
            "networks": self.networks.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average,
            "adam": self.adam.state_dict(),
            "critic_adam": self.critic_adam.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self.adam.load_state_dict(state["adam"])
        self.critic_adam.load_state_dict(state["critic_adam"])
        progress = state["progress"]
        self.step_number, self.seconds, self.log_beta = progress["step"], progress["seconds"], progress["log_beta"]


def _grid(rows: Tensor, columns: int, path: Path) -> None:
    """Write images (n, 3, s, s) in [0, 1] as one PNG."""
    n, channels, size, _ = rows.shape
    sheet = rows.reshape(n // columns, columns, channels, size, size).permute(0, 3, 1, 4, 2)
    pixels = sheet.reshape(n // columns * size, columns * size, channels).mul(255).round().byte().cpu().numpy()
    write_whole(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def reconstruction_psnr(encoder: Encoder, decoder: Natural, kept: Tensor) -> float:
    """Mean PSNR in dB over `kept` (uint8 photographs) of decoding the mean that the encoder gives; nan without any."""
    values = []
    device = next(encoder.parameters()).device
    for some in torch.split(kept, 50):
        real = F.interpolate(some.float() / 255, (64, 64), mode="bilinear", antialias=True).clamp(0, 1).to(device)
        with torch.no_grad():
            error = (decoder(encoder(real)[0]) - real).square().mean(dim=(1, 2, 3))
        values.append(-10 * torch.log10(error + 1e-9))
    return float(torch.cat(values).mean()) if values else math.nan


def _publish(trainer: Trainer, kept: Tensor, counts: Mapping[str, int], out: Path) -> tuple[str, float]:
    """Write weights, checkpoint and sample grid; returns the digest of the weights and the PSNR of kept photographs."""
    encoder, decoder = trainer.averaged()
    psnr = reconstruction_psnr(encoder, decoder, kept)
    card = {"steps": trainer.step_number, "minutes": round(trainer.seconds / 60, 1), "held_out_psnr_db": round(psnr, 2)}
    tensors = {name: tensor.contiguous() for name, tensor in decoder.state_dict().items()}
    sha = weights.save(out, tensors, kind=KIND, card=card | trainer.settings() | dict(counts))
    with torch.no_grad():
        latents = decoder.sample(96, np.random.default_rng(trainer.seed))
        sheet = [decoder(latents[:80]), decoder(2 * latents[80:])]
        if len(kept) >= 16:
            real = F.interpolate(kept[:16].float() / 255, (64, 64), mode="bilinear", antialias=True).to(latents.device)
            sheet += [real, decoder(encoder(real)[0])]
    _grid(torch.cat(sheet).clamp(0, 1), 16, out.with_suffix(".png"))
    write_whole(out.with_suffix(".checkpoint"), lambda file: torch.save(trainer.state_dict(), file))
    return sha, psnr


def _resume(trainer: Trainer, path: Path) -> None:
    """Continue from the checkpoint at `path`."""
    if not path.is_file():
        raise NeuroGymError(f"--resume: expected a checkpoint at {path}, found none")
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        found = state["settings"]
    except Exception as error:  # torch.load names no closed set of errors for a damaged file
        raise NeuroGymError(f"--resume: {path} is not a whole checkpoint ({type(error).__name__})") from None
    if found != trainer.settings():
        raise NeuroGymError(f"--resume: {path} is of a run with {found}, expected {trainer.settings()}")
    trainer.load_state_dict(state)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m neurogym_v.generators.train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog=(
            "beside OUT it keeps OUT.checkpoint (for --resume) and OUT.png: five rows of images of the prior, one of\n"
            "latents twice as long, then photographs kept aside and their reconstructions. Look at it while it trains.\n"
            "A killed run goes on with the same command and --resume, as if it had not been stopped."
        ),
    )
    add = parser.add_argument
    add("--images", type=Path, nargs="+", required=True, metavar="DIR", help="folders or .zip files of photographs")
    add("--out", type=Path, required=True, metavar="FILE", help="weights to write, a .safetensors file")
    add("--minutes", type=float, default=60.0, help="stop after this long, earlier parts of a resumed run included [60]")
    add("--steps", type=int, default=None, help="stop after this many steps [no limit]")
    add("--batch", type=int, default=24, help="photographs a step; as many images of the prior are made [24]")
    add("--warmup", type=int, default=300, help="first steps without the discriminator: a plain autoencoder [300]")
    add("--nats", type=float, default=200.0, help="information a latent holds of its photograph; more is sharper [200]")
    add("--rate", type=float, default=4e-4, help="learning rate of Adam; may change when resuming [4e-4]")
    add("--hold-out", type=int, default=300, help="photographs never trained on, to measure reconstruction [300]")
    add("--every", type=int, default=200, help="steps between checkpoints and sample grids [200]")
    add("--seed", type=int, default=0, help="of weights, order, latents and augmentation [0]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda where there is one [auto]")
    add("--resume", action="store_true", help="continue from OUT.checkpoint")
    return parser


def train(options: argparse.Namespace, console: Console) -> Trainer:
    """Run what the command line asks for."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    for name in ("minutes", "steps", "batch", "nats", "rate", "every"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise NeuroGymError(f"--{name}: expected a number above 0, found {value}")
    if device == "cuda" and not torch.cuda.is_available():
        raise NeuroGymError("--device cuda: expected a GPU that PyTorch can use, found none")
    if options.out.suffix != ".safetensors":
        raise NeuroGymError(f"--out {options.out}: expected a name that ends in .safetensors, found {options.out.suffix!r}")
    images, counts = photographs.read(options.images, SIDE)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(options.seed))
    aside = min(options.hold_out, len(images) // 4)
    kept, images = images[order[:aside]], images[order[aside:]]
    counts |= {"held_out": aside}
    console.print("photographs: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    trainer = Trainer(
        images,
        seed=options.seed,
        batch=options.batch,
        warmup=options.warmup,
        nats=options.nats,
        rate=options.rate,
        device=device,
    )
    if options.resume:
        _resume(trainer, options.out.with_suffix(".checkpoint"))
    for group in (*trainer.adam.param_groups, *trainer.critic_adam.param_groups):
        group["lr"] = options.rate
    options.out.parent.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("step {task.fields[step]}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[losses]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=options.minutes * 60, step=trainer.step_number, losses="")
        while trainer.seconds < options.minutes * 60 and trainer.step_number < (options.steps or math.inf):
            began = time.monotonic()
            losses = trainer.step()
            trainer.seconds += time.monotonic() - began
            if not all(map(math.isfinite, losses.values())):
                raise NeuroGymError(f"step {trainer.step_number}: the losses are not finite; --resume with a lower --rate")
            words = "  ".join(f"{name} {value:.2f}" for name, value in losses.items())
            progress.update(task, completed=trainer.seconds, step=trainer.step_number, losses=words)
            if trainer.step_number % options.every == 0:
                _, psnr = _publish(trainer, kept, counts, options.out)
                minutes = trainer.seconds / 60
                console.print(f"step {trainer.step_number}  {minutes:.1f} min  {words}  held-out psnr {psnr:.2f} dB")
    sha, psnr = _publish(trainer, kept, counts, options.out)
    console.print(f"{options.out}: {trainer.step_number} steps, held-out psnr {psnr:.2f} dB, sha256 {sha}")
    return trainer


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        train(options, console)
    except NeuroGymError as error:
        console.print(str(error), style="red", highlight=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
