"""Train the photographic generator: python -m neurogym_v.generators.train --images DIR --out natural64.safetensors

A decoder learns to draw images from their codes (DeePSiM: Dosovitskiy & Brox 2016, arXiv:1602.02644, with a critic after
Projected GAN: Sauer et al. 2021, arXiv:2111.01007). A photograph's code must give an image that is near it in pixels and
in features; a code from the prior must give an image that has this code and that a critic takes for a photograph.
EfficientNet-Lite1 makes the codes, the distances and what the critic sees: no neuron built on it is a fair test.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from neurogym_v import weights
from neurogym_v.files import write_whole
from neurogym_v.generators import photographs, quantise
from neurogym_v.generators.code import DIM, Code
from neurogym_v.generators.critic import Critic, distance
from neurogym_v.generators.natural import CHANNELS, KIND, Natural, bend
from neurogym_v.render import sheet
from neurogym_v.types import NeuroGymError

SIDE = 112
"""Photographs are kept at this side in px; crops are taken from them."""
STRETCHED = 0.25
"""Share of prior latents made up to twice as long, so that latents beyond the prior are held to the same standard."""
MIXED = 0.5
"""Share of prior latents that lie between the codes of two photographs: the prior has their spread, not their structure."""
PIXELS, FEATURES, CODES, CRITIC = 5.0, 1.0, 1.0, 1.0
"""Weights of the losses of the decoder."""
DECAY = 0.998
"""Of the running mean of the weights, which is what is shipped."""
STARTS = 6400
"""Images of an earlier decoder that the latents are matched over."""
VIEWS = 4
"""Crops of each photograph that the code is fitted to."""


class Trainer:
    """All that changes during training, and one step of it; `images` are the photographs, (n, 3, 112, 112) uint8.

    The randomness of a step (which crops, which latents, which augmentation) depends on the seed and the number of the
    step alone, so a run that was stopped and resumed goes exactly the way of one that was not.
    """

    def __init__(self, images: Tensor, *, size: int, seed: int, batch: int, warmup: int, rate: float, device: str) -> None:
        self.images, self.photographs = images, weights.digest({"photographs": images})
        self.size, self.seed, self.batch, self.warmup, self.device = size, seed, batch, warmup, torch.device(device)
        self.step_number, self.seconds = 0, 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            decoder, critic = Natural(size), Critic(size)
        self.decoder = decoder.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critic = critic.to(self.device)
        self.average = {name: tensor.detach().clone() for name, tensor in self.decoder.state_dict().items()}
        self.adam = torch.optim.Adam(self.decoder.parameters(), lr=rate, betas=(0.5, 0.99))
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=rate, betas=(0.5, 0.99))

    @torch.no_grad()
    def look(self) -> None:
        """See the photographs once, before the first step: what their codes and the critic's features are like."""
        self.decoder.code = Code.fit(self._batches(purpose=2, views=VIEWS)).to(self.device)
        self.critic.calibrate(self._batches(purpose=3, views=1))
        self.average |= {name: t.clone() for name, t in self.decoder.state_dict().items() if name.startswith("code.")}

    @torch.no_grad()
    def begin_from(self, path: Path) -> None:
        """Begin with the convolutions of an earlier decoder, whatever its latents meant: ours are mapped to its own.

        The map is the least-squares one over images that the earlier decoder draws: their codes to the latents that drew
        them. It is folded into the weights that see latents. Blocks that the earlier decoder lacks begin anew.
        """
        tensors = {name: t for name, t in weights.load(path, kind=KIND)[0].items() if not name.startswith("code.")}
        old = Natural(64)
        weights.check(path, tensors, {n: tuple(t.shape) for n, t in old.state_dict().items() if not n.startswith("code.")})
        old.load_state_dict(tensors, strict=False)
        old.to(self.device)
        latents = old.sample(STARTS, np.random.default_rng(self.seed))
        codes = torch.cat([self.decoder.encode(old(some)) for some in torch.split(latents, 64)])
        codes = torch.cat((codes, torch.ones_like(codes[:, :1])), dim=1)
        gram = codes.T @ codes
        gram.diagonal().add_(1e-3 * gram.diagonal().mean())
        to_old = torch.linalg.solve(gram, codes.T @ latents)
        for name in [name for name in tensors if name == "start.weight" or name.endswith("style.weight")]:
            weight, bias = tensors[name].to(self.device), name.replace("weight", "bias")
            tensors[bias] = tensors[bias].to(self.device) + weight @ to_old[-1]
            tensors[name] = weight @ to_old[:-1].T
        for block in self.decoder.blocks[len(old.blocks) :]:
            nn.init.zeros_(block.rgb.weight)  # an image of the size before, until it learns more
            nn.init.zeros_(block.rgb.bias)
        self.decoder.load_state_dict(tensors, strict=False)
        self.average = {name: tensor.detach().clone() for name, tensor in self.decoder.state_dict().items()}

    def _batches(self, *, purpose: int, views: int) -> Iterator[Tensor]:
        rng = self.generator(purpose)
        for _ in range(-(-views * len(self.images) // 64)):
            yield photographs.crops(self.images, 64, self.size, rng).to(self.device)

    def generator(self, purpose: int = 0) -> torch.Generator:
        """The random numbers of this step."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.step_number) * 8 + purpose)

    def step(self) -> dict[str, float]:
        """Learn from one batch; returns the PSNR in dB and the losses, by name."""
        rng = self.generator()
        real = photographs.crops(self.images, self.batch, self.size, rng).to(self.device)
        with torch.no_grad():
            codes = self.decoder.encode(real)
        prior = self._prior(codes.cpu(), rng).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            rebuilt, dreamt = self.decoder(torch.cat((codes, prior))).chunk(2)
        shown = photographs.augment((real, rebuilt, dreamt), rng)
        with torch.no_grad():
            seen = self.critic.features(shown[: self.batch])
        made = self.critic.features(shown[self.batch :])
        losses = {
            "pixels": _pixel_distance(rebuilt, real),
            "features": distance([maps[: self.batch] for maps in made], seen),
            # of the code that the latent stands for, not of the latent: the decoder bends long ones
            "codes": F.mse_loss(self.decoder.encode(dreamt), bend(prior)),
        }
        total = PIXELS * losses["pixels"] + FEATURES * losses["features"] + CODES * losses["codes"]
        if self.step_number >= self.warmup:
            losses["critic"] = self._step_critic(seen, [maps.detach() for maps in made])
            self.critic.requires_grad_(False)
            losses["fooling"] = -self.critic.logits(made).mean()
            self.critic.requires_grad_(True)
            total = total + CRITIC * losses["fooling"]
        self.adam.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 5.0)
        self.adam.step()
        self.step_number += 1
        decay = min(DECAY, (1 + self.step_number) / (10 + self.step_number))
        for name, tensor in self.decoder.state_dict().items():
            self.average[name].lerp_(tensor, 1 - decay)
        psnr = -10 * math.log10(float(F.mse_loss(rebuilt.detach(), real)) + 1e-9)
        return {"psnr": psnr} | {name: float(loss.detach()) for name, loss in losses.items()}

    def _prior(self, codes: Tensor, rng: torch.Generator) -> Tensor:
        """(batch, 256) latents as a search meets them."""
        prior = torch.randn((self.batch, DIM), generator=rng)
        mixed, stretched = int(self.batch * MIXED), int(self.batch * STRETCHED)
        angle = torch.rand((mixed, 1), generator=rng) * math.pi / 2
        order = torch.randperm(self.batch, generator=rng)
        # a rotation from one code to another keeps the variance of a code
        prior[:mixed] = codes[order[:mixed]] * angle.cos() + codes[order.flip(0)[:mixed]] * angle.sin()
        prior[self.batch - stretched :] *= 1 + torch.rand((stretched, 1), generator=rng)
        return prior

    def _step_critic(self, seen: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
        """One step of the critic on features of photographs and of made images (hinge loss); its loss."""
        loss = F.relu(1 - self.critic.logits(seen)).mean() + F.relu(1 + self.critic.logits(made)).mean()
        self.critic_adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_adam.step()
        return loss

    def averaged(self) -> Natural:
        """The decoder with the running mean of its weights: what is looked at, and what is shipped."""
        decoder = Natural(self.size)
        decoder.load_state_dict(self.average)
        return decoder.to(self.device).eval().requires_grad_(False)

    def settings(self) -> dict[str, float | str]:
        """What must be the same for a run to be the same run."""
        numbers: dict[str, float | str] = {"size": self.size, "seed": self.seed, "batch": self.batch, "warmup": self.warmup}
        return numbers | {"photographs": self.photographs}

    def state_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings(),
            "progress": {"step": self.step_number, "seconds": self.seconds},
            "decoder": self.decoder.state_dict(),
            "critic": self.critic.state_dict(),
            "average": self.average,
            "adam": self.adam.state_dict(),
            "critic_adam": self.critic_adam.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.decoder.load_state_dict(state["decoder"])
        self.critic.load_state_dict(state["critic"])
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self.adam.load_state_dict(state["adam"])
        self.critic_adam.load_state_dict(state["critic_adam"])
        self.step_number, self.seconds = state["progress"]["step"], state["progress"]["seconds"]


def _pixel_distance(images: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference at 64, 32, 16 and 8 px, the coarser ones weighing more."""
    finest = images.shape[-1] // 64
    scales = ((1, 1.0), (2, 1.0), (4, 2.0), (8, 4.0))
    return torch.stack(
        [weight * F.mse_loss(F.avg_pool2d(images, k * finest), F.avg_pool2d(target, k * finest)) for k, weight in scales]
    ).sum()


def reconstruct(decoder: Natural, kept: Tensor) -> tuple[Tensor, Tensor]:
    """`kept` (n, 3, s, s) uint8 at the decoder's size in [0, 1], and what it draws of their codes."""
    size = decoder.image_size
    real = F.interpolate(kept.float() / 255, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
    real = real.to(next(decoder.parameters()).device)
    with torch.no_grad():
        return real, decoder(decoder.encode(real))


def reconstruction_psnr(decoder: Natural, kept: Tensor) -> float:
    """Mean PSNR in dB over `kept` (uint8 photographs) of what is drawn of their codes; nan without any."""
    pairs = [reconstruct(decoder, some) for some in torch.split(kept, 50)]
    values = [-10 * torch.log10((made - real).square().mean(dim=(1, 2, 3)) + 1e-9) for real, made in pairs]
    return float(torch.cat(values).mean()) if len(kept) else math.nan


def _publish(trainer: Trainer, kept: Tensor, counts: Mapping[str, int], out: Path) -> tuple[str, float]:
    """Write weights, checkpoint and sample grid; returns the digest of the weights and the PSNR of kept photographs."""
    decoder = trainer.averaged()
    psnr = reconstruction_psnr(decoder, kept)
    card = {"steps": trainer.step_number, "minutes": round(trainer.seconds / 60, 1), "held_out_psnr_db": round(psnr, 2)}
    tensors = {name: tensor.contiguous() for name, tensor in decoder.state_dict().items()}
    sha = weights.save(out, tensors, kind=KIND, card=card | trainer.settings() | dict(counts))
    with torch.no_grad():
        latents = decoder.sample(96, np.random.default_rng(trainer.seed))
        drawn = [decoder(latents[:80]), decoder(2 * latents[80:])]
    if len(kept) >= 16:
        drawn += reconstruct(decoder, kept[:16])
    picture = sheet({"": quantise(torch.cat(drawn))}, columns=16)
    write_whole(out.with_suffix(".png"), lambda file: picture.save(file, format="PNG"))
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
    add("--size", type=int, choices=tuple(CHANNELS), default=64, help="pixels a side [64]")
    add("--batch", type=int, default=16, help="photographs a step; as many images of the prior are made [16]")
    add("--warmup", type=int, default=150, help="first steps without the critic [150]")
    add("--rate", type=float, default=4e-4, help="learning rate of Adam; may change when resuming [4e-4]")
    add("--hold-out", type=int, default=300, help="photographs never trained on, to measure reconstruction [300]")
    add("--every", type=int, default=200, help="steps between checkpoints and sample grids [200]")
    add("--seed", type=int, default=0, help="of weights, order, latents and augmentation [0]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda where there is one [auto]")
    add("--start", type=Path, metavar="FILE", help="begin with an earlier decoder, of any latents and 64 px [random weights]")
    add("--resume", action="store_true", help="continue from OUT.checkpoint")
    return parser


def train(options: argparse.Namespace, console: Console) -> Trainer:
    """Run what the command line asks for."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    for name in ("minutes", "steps", "batch", "rate", "every"):
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
        size=options.size,
        seed=options.seed,
        batch=options.batch,
        warmup=options.warmup,
        rate=options.rate,
        device=device,
    )
    if options.resume:
        _resume(trainer, options.out.with_suffix(".checkpoint"))
    else:
        trainer.look()
        if options.start:
            trainer.begin_from(options.start)
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
