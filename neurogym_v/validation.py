"""Scores that no search could bend: fresh repeats of what was recommended and, in turn with them, of the best natural image.

Each recommended image is shown in rounds of its own, in which the best natural image, a grey screen and some other natural
images come as often as it does. So a cell that adapts, drifts or changes its gain does so for all of them, and an image is
never judged by how many others of a kind were shown beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurogym_v.env import NeuronEnv
from neurogym_v.neurons.simulated import GREY, SimulatedNeuron
from neurogym_v.normaliser import Usual
from neurogym_v.objectives import Stretch
from neurogym_v.references import photograph
from neurogym_v.stats import Estimate, mean_rate, relative_activation
from neurogym_v.types import Images, Latents, Rates, References

SPONTANEOUS = 80
"""Repeats of a grey screen."""
SCREENING = 10
"""Repeats of every natural image."""
FINALISTS, FINAL = 12, 160
"""How many of them go on, and their further repeats: half to choose the best, half to estimate it."""
REPEATS = 80
"""Rounds in which a recommended image is shown again."""
FILLERS = 3
"""Other natural images in each round, of other photographs than the best one."""
FIRST = "first round"
"""What its images are shown again for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is shown for the sake of scores."""

    spontaneous: int = SPONTANEOUS
    screening: int = SCREENING
    finalists: int = FINALISTS
    final: int = FINAL
    repeats: int = REPEATS
    references: int | None = None
    """Natural images that are screened; None: all."""


FULL = Plan()
SHORT = Plan(spontaneous=24, screening=3, finalists=6, final=16, repeats=24, references=40)
"""For a live neuron: minutes instead of hours, and intervals twice as wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Natural:
    """What natural images and a grey screen do to a site: the measure for every agent. Scores are the objective's, spikes/s by
    default."""

    best_image: str
    best: Estimate
    """Of the best natural image, which was chosen on other repeats than these."""
    spontaneous: Estimate
    """At a grey screen. For scores that are no rates, where a grey screen is not the least there is, 0."""
    screened: Rates
    """(images,) mean score of each natural image in the screening."""
    expected_best: float
    """The highest noise-free score of any natural image, be it the one that was found or not; NaN where no one can know it."""
    expected_spontaneous: float
    presentations: int
    usual: Usual | None = None
    """Responses to the normaliser images, so that all sessions have one scale."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Natural:
        """As `files.as_json` writes it; null stands for a number that no one knows."""
        usual = stored["usual"] and Usual(*(np.array(stored["usual"][key], dtype=float) for key in ("rates", "gains")))
        arrays = {key: np.array(stored[key], dtype=float) for key in ("screened",)}
        numbers = {key: np.nan if stored[key] is None else stored[key] for key in ("expected_best", "expected_spontaneous")}
        estimates = {key: Estimate(**stored[key]) for key in ("best", "spontaneous")}
        return cls(**{**stored, **arrays, **numbers, **estimates, "usual": usual})

    def activation(self, expected: float) -> float:
        """A noise-free score as a relative activation; NaN where natural images do not drive the site."""
        drive = self.expected_best - self.expected_spontaneous
        return (expected - self.expected_spontaneous) / drive if drive > 0 else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """Scores of an image and of what was shown in turn with it."""

    image: Rates
    """(repeats,) NaN where the trial was lost, in all of them."""
    natural: Rates
    """(repeats,) of the best natural image."""
    spontaneous: Rates
    """(repeats,) at a grey screen; 0 for scores that are no rates."""

    @property
    def means(self) -> dict[str, float]:
        """Over the rounds in which each was answered; NaN where none was."""
        return {field.name: float(_means(getattr(self, field.name)[None])[0]) for field in fields(self)}

    def activation(self, rng: np.random.Generator, rounds: slice = slice(None)) -> Estimate:
        """Relative activation of the image, from all rounds or some."""
        return relative_activation(self.image[rounds], self.natural[rounds], self.spontaneous[rounds], rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """What an agent recommended at one point of its search, and what fresh presentations said of it."""

    presentations: int
    """That it may have used."""
    spent: int
    """That it had used."""
    recommended: Latents
    """(k, d), the one it believes best first."""
    shown: tuple[Rounds, ...]
    """k, of each."""
    score: Estimate
    """Of the first."""
    relative_activation: Estimate
    best_relative_activation: Estimate
    """Of the best of the k, chosen on one half of the rounds and estimated on the other."""
    contrast_matched: Estimate
    """Relative activation of the first image with the brightness and contrast of the best natural one."""
    expected: Rates
    """(k,) noise-free scores; NaN where no one can know them."""


def measure_natural(env: NeuronEnv, references: References, rng: np.random.Generator, plan: Plan = FULL) -> Natural:
    """Find the best natural image for the site of a session and estimate its score, without the luck that made it the best.

    All images are screened with a few repeats; the most promising are shown again; the best of them is chosen on the
    screening and the first half of those repeats, and estimated on the second half.
    """
    grey = grey_screen(references)
    shown = env.live.show_images(grey, ["grey"], np.zeros(plan.spontaneous, dtype=np.intp), kind="spontaneous")
    spontaneous = env.score(shown) if is_rate(env) else np.zeros(plan.spontaneous)
    images, names = references.images, references.names
    screening = _repeats(env, images, names, plan.screening, "screening")
    means = _means(screening)
    finalists = np.argsort(np.nan_to_num(means, nan=-np.inf))[::-1][: plan.finalists]
    final = _repeats(env, images[finalists.copy()], [names[i] for i in finalists], plan.final, "natural")
    choose, estimate = final[:, : plan.final // 2], final[:, plan.final // 2 :]
    best = int(np.argmax(np.nan_to_num(_means(np.hstack([screening[finalists], choose])), nan=-np.inf)))
    at = int(finalists[best])
    return Natural(
        best_image=names[at],
        best=mean_rate(estimate[best], rng),
        spontaneous=mean_rate(spontaneous, rng),
        screened=means,
        expected_best=float(expected_scores(env, images).max()),
        expected_spontaneous=float(expected_scores(env, grey)[0]) if is_rate(env) else 0.0,
        presentations=env.spent,
        usual=env.live.slow_gain.after().usual if env.live.slow_gain else None,
    )


def validate(
    env: NeuronEnv,
    milestones: Sequence[tuple[int, int, Latents]],
    first_round: Latents,
    best_natural: str,
    references: References,
    rng: np.random.Generator,
    plan: Plan = FULL,
) -> tuple[tuple[Milestone, ...], Rates]:
    """Show the images of the first round (n, d) again, once, and everything that was recommended in rounds of its own.

    Args:
        milestones: presentations allowed, presentations used, and the (k, d) latents that were recommended then.
        best_natural: the name among the references.

    Returns:
        The milestones with their scores, and the (n,) scores of the first round.
    """
    recommended = np.concatenate([latents for *_, latents in milestones])
    # with what was recommended behind them, so that the journal alone tells all latents that are scored
    again = env.score(env.live.show_latents(np.concatenate([first_round, recommended]), kind=FIRST)[1])[: len(first_round)]
    beside, found = company(references, best_natural), []
    choose, estimate = slice(0, plan.repeats // 2), slice(plan.repeats // 2, None)
    for allowed, spent, latents in milestones:
        images = env.live.draw(latents)
        shown = tuple(_rounds(env, image, beside, named(allowed, i), "validation", plan) for i, image in enumerate(images))
        matched = match_contrast(images[:1], beside.images[0])[0]
        best = int(np.argmax([np.nan_to_num(one.activation(rng, choose).value, nan=-np.inf) for one in shown]))
        first = shown[0].activation(rng)
        milestone = Milestone(
            presentations=allowed,
            spent=spent,
            recommended=latents,
            shown=shown,
            score=mean_rate(shown[0].image, rng),
            relative_activation=first,
            best_relative_activation=shown[best].activation(rng, estimate) if len(shown) > 1 else first,
            contrast_matched=_rounds(env, matched, beside, named(allowed, 0), "contrast", plan).activation(rng),
            expected=expected_scores(env, images),
        )
        found.append(milestone)
    return tuple(found), again


def named(allowed: int, place: int) -> str:
    """What a recommended image is called in the journal: after how many presentations, and which of the k, from 1."""
    return f"recommended {allowed} {place + 1}"


def company(references: References, best: str) -> References:
    """What is shown in turn with a recommended image: the best natural image, and FILLERS from other photographs."""
    others = [i for i, name in enumerate(references.names) if photograph(name) != photograph(best)]
    others = others or [i for i, name in enumerate(references.names) if name != best]
    places = np.linspace(0, len(others) - 1, min(FILLERS, len(others))).round().astype(int)
    chosen = [references.names.index(best), *(others[place] for place in places)]
    return References(references.images[chosen], tuple(references.names[i] for i in chosen))


def grey_screen(references: References) -> Images:
    """(1, 3, s, s)"""
    size = references.images.shape[-1]
    return torch.full((1, 3, size, size), GREY, dtype=torch.uint8)


def is_rate(env: NeuronEnv) -> bool:
    """Whether scores are rates, of which the spontaneous one is the least there is."""
    return env.objective is not None and env.objective.unit == Stretch.unit


def expected_scores(env: NeuronEnv, images: Images) -> Rates:
    """(n,) noise-free scores of images, for scoring only; NaN for a live neuron."""
    if not isinstance(env.neuron, SimulatedNeuron):
        return np.full(len(images), np.nan)
    return env.score(env.neuron.expected_rate(images))


def match_contrast(images: Images, like: Images) -> Images:
    """(n, 3, s, s) images with the mean and the s.d. of the pixels of `like` (3, s, s), as far as 8 bits allow.

    Clipping takes contrast away; some steps give back what it took.
    """
    mean, sd = like.float().mean(), like.float().std()
    pixels = images.float()
    for _ in range(8):
        own = pixels.mean(dim=(1, 2, 3), keepdim=True), pixels.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
        pixels = ((pixels - own[0]) * (sd / own[1]) + mean).clamp(0, 255)
    return pixels.round().to(torch.uint8)


def _rounds(env: NeuronEnv, image: Images, beside: References, name: str, kind: str, plan: Plan) -> Rounds:
    """Rounds of an image (3, s, s), in turn with others."""
    device = beside.images.device
    images = torch.cat([image[None].to(device), beside.images[:1], grey_screen(beside).to(device), beside.images[1:]])
    names = [name, *(f"{name}: {other}" for other in (beside.names[0], "grey", *beside.names[1:]))]
    rng, rows = np.random.default_rng([env.live.seed, plan.repeats]), balanced(len(images))
    cycles = [rows[rng.permutation(len(rows))] for _ in range(-(-plan.repeats // len(rows)))]
    order: NDArray[np.intp] = np.concatenate(cycles)[: plan.repeats].ravel()
    own, natural, grey, *_ = _by_image(env, images, names, order, kind)
    return Rounds(image=own, natural=natural, spontaneous=grey if is_rate(env) else np.zeros(plan.repeats))


def balanced(n: int) -> NDArray[np.intp]:
    """(n or 2n, n) orders of n things in which each stands once in every place and follows each other one as often as any
    (Williams 1949): of what one leaves behind for the next, all get the same."""
    zigzag = np.array([(place + 1) // 2 if place % 2 else -(place // 2) for place in range(n)])
    rows = (zigzag + np.arange(n)[:, None]) % n
    return rows if n % 2 == 0 else np.concatenate([rows, rows[:, ::-1]])


def _repeats(env: NeuronEnv, images: Images, names: Sequence[str], repeats: int, kind: str) -> Rates:
    """(n, repeats) scores of n images shown in blocks of one repeat each, shuffled within the block."""
    rng = np.random.default_rng([env.live.seed, repeats])
    order: NDArray[np.intp] = np.concatenate([rng.permutation(len(images)) for _ in range(repeats)])
    return _by_image(env, images, names, order, kind)


def _by_image(env: NeuronEnv, images: Images, names: Sequence[str], order: NDArray[np.intp], kind: str) -> Rates:
    """(n, repeats) scores of n images that stand equally often in an order."""
    shown = env.score(env.live.show_images(images, names, order, kind=kind))
    return shown[np.argsort(order, kind="stable")].reshape(len(images), -1)


def _means(scores: Rates) -> Rates:
    """(n,) means of (n, repeats), NaN where every repeat was lost."""
    valid = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        means: Rates = np.where(valid, scores, 0).sum(axis=1) / valid.sum(axis=1)
    return means
