"""Scores that no search could bend: fresh repeats of what was recommended, against natural images with repeats of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurogym_v.env import NeuronEnv
from neurogym_v.neurons.simulated import GREY, SimulatedNeuron
from neurogym_v.normaliser import Usual
from neurogym_v.objectives import Stretch
from neurogym_v.stats import Estimate, mean_rate, relative_activation
from neurogym_v.types import Images, Latents, Rates, References

SPONTANEOUS = 80
"""Repeats of a grey screen."""
SCREENING = 10
"""Repeats of every natural image."""
FINALISTS, FINAL = 12, 160
"""How many of them go on, and their further repeats: half to choose the best, half to estimate it."""
REPEATS = 80
"""Fresh repeats of a recommended image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Natural:
    """What natural images and a grey screen do to a site: the measure for every agent. Scores are the objective's, spikes/s by
    default."""

    best_image: str
    best: Estimate
    """Of the best natural image, which was chosen on other repeats than these."""
    spontaneous: Estimate
    """At a grey screen. For scores that are no rates, where a grey screen is not the least there is, 0."""
    best_scores: Rates
    """(FINAL / 2,) what `best` is the mean of."""
    spontaneous_scores: Rates
    """(SPONTANEOUS,)"""
    screened: Rates
    """(images,) mean score of each natural image in the screening."""
    expected_best: float
    """Noise-free score of the best natural image; NaN where no one can know it."""
    expected_spontaneous: float
    presentations: int
    usual: Usual | None = None
    """Responses to the normaliser images, so that all sessions have one scale."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Natural:
        """As `files.as_json` writes it; null stands for a number that no one knows."""
        usual = stored["usual"] and Usual(*(np.array(stored["usual"][key], dtype=float) for key in ("rates", "gains")))
        arrays = {key: np.array(stored[key], dtype=float) for key in ("best_scores", "spontaneous_scores", "screened")}
        numbers = {key: np.nan if stored[key] is None else stored[key] for key in ("expected_best", "expected_spontaneous")}
        estimates = {key: Estimate(**stored[key]) for key in ("best", "spontaneous")}
        return cls(**{**stored, **arrays, **numbers, **estimates, "usual": usual})

    def activation(self, expected: float) -> float:
        """A noise-free score as a relative activation; NaN where natural images do not drive the site."""
        drive = self.expected_best - self.expected_spontaneous
        return (expected - self.expected_spontaneous) / drive if drive > 0 else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """What an agent recommended at one point of its search, and what fresh presentations said of it."""

    presentations: int
    """That it may have used."""
    spent: int
    """That it had used."""
    recommended: Latents
    """(k, d), the one it believes best first."""
    scores: Rates
    """(k, REPEATS) fresh ones."""
    score: Estimate
    """Of the first."""
    relative_activation: Estimate
    best_relative_activation: Estimate
    """Of the best of the k, chosen on one half of its repeats and estimated on the other."""
    contrast_matched: Estimate
    """Relative activation of the first image with the brightness and contrast of the best natural one."""
    expected: Rates
    """(k,) noise-free scores; NaN where no one can know them."""


def measure_natural(env: NeuronEnv, references: References, rng: np.random.Generator) -> Natural:
    """Find the best natural image for the site of a session and estimate its score, without the luck that made it the best.

    All images are screened with a few repeats; the most promising are shown again; the best of them is chosen on the
    screening and the first half of those repeats, and estimated on the second half.
    """
    size = references.images.shape[-1]
    grey = torch.full((1, 3, size, size), GREY, dtype=torch.uint8)
    shown = env.live.show_images(grey, ["grey"], np.zeros(SPONTANEOUS, dtype=np.intp), kind="spontaneous")
    is_rate = env.objective is not None and env.objective.unit == Stretch.unit
    spontaneous = env.score(shown) if is_rate else np.zeros(SPONTANEOUS)
    images, names = references.images, references.names
    screening = _repeats(env, images, names, SCREENING, "screening")
    means = _means(screening)
    finalists = np.argsort(np.nan_to_num(means, nan=-np.inf))[::-1][:FINALISTS]
    final = _repeats(env, images[finalists.copy()], [names[i] for i in finalists], FINAL, "natural")
    choose, estimate = final[:, : FINAL // 2], final[:, FINAL // 2 :]
    best = int(np.argmax(np.nan_to_num(_means(np.hstack([screening[finalists], choose])), nan=-np.inf)))
    at = int(finalists[best])
    return Natural(
        best_image=names[at],
        best=mean_rate(estimate[best], rng),
        spontaneous=mean_rate(spontaneous, rng),
        best_scores=estimate[best],
        spontaneous_scores=spontaneous,
        screened=means,
        expected_best=float(expected_scores(env, images[at : at + 1])[0]),
        expected_spontaneous=float(expected_scores(env, grey)[0]) if is_rate else 0.0,
        presentations=env.spent,
        usual=env.live.slow_gain.after().usual if env.live.slow_gain else None,
    )


def validate(
    env: NeuronEnv,
    milestones: Sequence[tuple[int, int, Latents]],
    first_round: Latents,
    natural: Natural,
    best_natural: Images,
    rng: np.random.Generator,
) -> tuple[tuple[Milestone, ...], Rates]:
    """Show what was recommended REPEATS times, mixed with the images of the first round (n, d) once each.

    Args:
        milestones: presentations allowed, presentations used, and the (k, d) latents that were recommended then.
        best_natural: (1, 3, s, s), which contrasts are matched to; these images come after all others.

    Returns:
        The milestones with their scores, and the (n,) scores of the first round.
    """
    recommended = np.concatenate([latents for *_, latents in milestones])
    latents = np.concatenate([recommended, first_round])
    order = np.concatenate([np.repeat(np.arange(len(recommended)), REPEATS), np.arange(len(recommended), len(latents))])
    np.random.default_rng([env.live.seed, REPEATS]).shuffle(order)
    scores = env.score(env.live.show_latents(latents, kind="validation", order=order)[1])
    repeats = np.stack([scores[order == i] for i in range(len(recommended))])
    expected = expected_scores(env, env.live.draw(recommended))
    matched = match_contrast(env.live.draw(np.stack([latents[0] for *_, latents in milestones])), best_natural[0])
    names = [f"contrast matched {allowed}" for allowed, *_ in milestones]
    fixed = _repeats(env, matched, names, REPEATS, "contrast")

    def activation(fresh: Rates) -> Estimate:
        return relative_activation(fresh, natural.best_scores, natural.spontaneous_scores, rng)

    found, at = [], 0
    for (allowed, spent, asked), same in zip(milestones, fixed, strict=True):
        mine = repeats[at : at + len(asked)]
        best = int(np.argmax(np.nan_to_num(_means(mine[:, : REPEATS // 2]), nan=-np.inf)))
        first = activation(mine[0])
        milestone = Milestone(
            presentations=allowed,
            spent=spent,
            recommended=asked,
            scores=mine,
            score=mean_rate(mine[0], rng),
            relative_activation=first,
            best_relative_activation=activation(mine[best, REPEATS // 2 :]) if len(asked) > 1 else first,
            contrast_matched=activation(same),
            expected=expected[at : at + len(asked)],
        )
        found.append(milestone)
        at += len(asked)
    return tuple(found), scores[order >= len(recommended)]


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


def _repeats(env: NeuronEnv, images: Images, names: Sequence[str], repeats: int, kind: str) -> Rates:
    """(n, repeats) scores of n images shown in blocks of one repeat each, shuffled within the block."""
    rng = np.random.default_rng([env.live.seed, repeats])
    order: NDArray[np.intp] = np.concatenate([rng.permutation(len(images)) for _ in range(repeats)])
    shown = env.score(env.live.show_images(images, names, order, kind=kind))
    return shown[np.argsort(order, kind="stable")].reshape(len(images), repeats)


def _means(scores: Rates) -> Rates:
    """(n,) means of (n, repeats), NaN where every repeat was lost."""
    valid = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        means: Rates = np.where(valid, scores, 0).sum(axis=1) / valid.sum(axis=1)
    return means
