"""Scores from the journal alone, for a run that was stopped before it wrote its summary.

They rest on the same presentations as those of a finished run: fresh repeats of the recommended image, and a best natural
image that is chosen on one half of its repeats and estimated on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurogym_v.experiment import RunConfig
from neurogym_v.journal import Block
from neurogym_v.report.record import NaturalRecord
from neurogym_v.stats import mean_rate, relative_activation
from neurogym_v.types import Rates
from neurogym_v.validation import FINAL, REPEATS, SPONTANEOUS

SEARCH = ("search", "reference")
"""What the blocks of a search are for; normaliser images stand among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Natural:
    """What natural images did, with the repeats that scores are made of."""

    record: NaturalRecord
    best_rates: Rates
    """(FINAL / 2,) spikes/s"""
    spontaneous_rates: Rates
    """(SPONTANEOUS,)"""


def natural(blocks: Sequence[Block], config: RunConfig) -> Natural | None:
    """None as long as natural images are still shown, or where rates are not the score."""
    spontaneous = _rates(blocks, "spontaneous", config.site)
    screened, final = (_by_name(blocks, kind, config.site) for kind in ("screening", "natural"))
    if config.objective != "stretch" or len(spontaneous) < SPONTANEOUS or not final:
        return None
    if min(len(repeats) for repeats in final.values()) < FINAL:
        return None
    best = max(final, key=lambda name: _mean(np.concatenate([screened[name], final[name][: FINAL // 2]])))
    estimate = final[best][FINAL // 2 :]
    rng = np.random.default_rng([config.entropy, 1])
    record = NaturalRecord(
        best_image=best,
        best=mean_rate(estimate, rng),
        spontaneous=mean_rate(spontaneous, rng),
        screened=np.array([_mean(repeats) for repeats in screened.values()]),
    )
    return Natural(record=record, best_rates=estimate, spontaneous_rates=spontaneous)


def final(blocks: Sequence[Block], config: RunConfig, natural: Natural | None) -> dict[str, Any]:
    """The scores of an agent whose validation is over, as fields of its record; none where the journal cannot tell them.

    It cannot where several images were recommended, or where a site may have been lost: its hash is no response.
    """
    shown = [block for block in blocks if block.kind == "validation" and block.latents is not None]
    if natural is None or not shown or config.recommend > 1 or config.report_at or "dying" in config.noise:
        return {}
    latents = np.concatenate([block.latents for block in shown if block.latents is not None])
    rates = _rates(blocks, "validation", config.site)
    if len(rates) <= REPEATS:
        return {}
    order = np.concatenate([np.zeros(REPEATS, dtype=np.intp), np.arange(1, len(rates) - REPEATS + 1)])
    np.random.default_rng([config.entropy, REPEATS]).shuffle(order)  # as they were shown (see validation.validate)
    mine, rng = order == 0, np.random.default_rng([config.entropy, 2])
    if (latents[mine] != latents[mine][0]).any():
        return {}
    return {
        "recommended": latents[mine][:1],
        "final": mean_rate(rates[mine], rng),
        "first_round": mean_rate(rates[~mine], rng),
        "relative_activation": relative_activation(rates[mine], natural.best_rates, natural.spontaneous_rates, rng),
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
