"""Scores from the journal alone, for a run that was stopped before it wrote its summary.

They rest on the same presentations as those of a finished run: fresh repeats of the recommended image, in turn with the best
natural one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neurogym_v.experiment import RunConfig
from neurogym_v.journal import Block
from neurogym_v.report.record import NaturalRecord
from neurogym_v.stats import mean_rate
from neurogym_v.types import Rates
from neurogym_v.validation import FIRST, Rounds, named

SEARCH = ("search", "reference")
"""What the blocks of a search are for; normaliser images stand among them."""


def natural(blocks: Sequence[Block], config: RunConfig) -> NaturalRecord | None:
    """None as long as natural images are still shown, or where rates are not the score."""
    plan, spontaneous = config.plan, _rates(blocks, "spontaneous", config.site)
    screened, final = (_by_name(blocks, kind, config.site) for kind in ("screening", "natural"))
    if config.objective != "stretch" or len(spontaneous) < plan.spontaneous or not final:
        return None
    if min(len(repeats) for repeats in final.values()) < plan.final:
        return None
    best = max(final, key=lambda name: _mean(np.concatenate([screened[name], final[name][: plan.final // 2]])))
    estimate = final[best][plan.final // 2 :]
    rng = np.random.default_rng([config.entropy, 1])
    return NaturalRecord(
        best_image=best,
        best=mean_rate(estimate, rng),
        spontaneous=mean_rate(spontaneous, rng),
        screened=np.array([_mean(repeats) for repeats in screened.values()]),
    )


def final(blocks: Sequence[Block], config: RunConfig, natural: NaturalRecord | None) -> dict[str, Any]:
    """The scores of an agent whose validation is over, as fields of its record; none where the journal cannot tell them.

    It cannot where rates are not the score, or where a site may have been lost: its hash is no response.
    """
    own = named(config.budget, 0)
    shown = _by_name(blocks, "validation", config.site)
    if natural is None or "dying" in config.noise or len(shown.get(own, ())) < config.plan.repeats:
        return {}
    best, grey = (shown[f"{own}: {name}"] for name in (natural.best_image, "grey"))
    rounds = Rounds(image=shown[own], natural=best, spontaneous=grey)
    again = [block for block in blocks if block.kind == FIRST and block.latents is not None]
    latents = np.concatenate([block.latents for block in again if block.latents is not None])
    first = len(latents) - config.recommend * len({*config.report_at, config.budget})
    rng = np.random.default_rng([config.entropy, 2])
    return {
        "recommended": latents[-config.recommend :],
        "final": mean_rate(rounds.image, rng),
        "first_round": mean_rate(_rates(blocks, FIRST, config.site)[:first], rng),
        "relative_activation": rounds.activation(rng),
    }


def _rates(blocks: Sequence[Block], kind: str, site: int) -> Rates:
    found = [block.rates[:, site] for block in blocks if block.kind == kind]
    return np.concatenate(found) if found else np.empty(0)


def _by_name(blocks: Sequence[Block], kind: str, site: int) -> dict[str, Rates]:
    """Image -> its repeats, in the order in which they were shown."""
    found: dict[str, list[float]] = {}
    for block in blocks:
        for name, rate in zip(block.images or (), block.rates[:, site], strict=False) if block.kind == kind else ():
            found.setdefault(name, []).append(float(rate))
    return {name: np.array(rates) for name, rates in found.items()}


def _mean(rates: Rates) -> float:
    valid = rates[np.isfinite(rates)]
    return float(valid.mean()) if len(valid) else -np.inf
