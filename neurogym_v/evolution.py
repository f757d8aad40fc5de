"""What evolution strategies share: ranks whose ties are broken at random, weights of the better half, the means so far."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurogym_v.types import Latents, Rates

KEPT = 16
"""Means that are remembered."""


def best_first(rates: Rates, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of the valid ones of (n,) rates, the highest first, equal ones in random order.

    Sorted by index instead, a silent site would be taken for one that prefers whatever was asked first.
    """
    valid = rng.permutation(np.flatnonzero(~np.isnan(rates)))
    return valid[np.argsort(-rates[valid], kind="stable")]


def rank_weights(n: int) -> NDArray[np.float64]:
    """Weights of the better half of n ranked samples, best first: log(n/2 + 1/2) - log(rank), with a sum of 1."""
    w = np.log(n / 2 + 1 / 2) - np.log(np.arange(1, n // 2 + 1))
    return np.asarray(w / w.sum())


class Means:
    """The means of the last rounds, which are what such a strategy recommends: a sample is liked for its luck as well."""

    def __init__(self, first: NDArray[np.floating[Any]]) -> None:
        self._means: deque[NDArray[np.floating[Any]]] = deque([first.copy()], maxlen=KEPT)

    def append(self, mean: NDArray[np.floating[Any]]) -> None:
        """(d,) mean after another round."""
        self._means.append(mean.copy())

    def latest(self, k: int) -> Latents:
        """(k, d), newest first; beyond those remembered, the oldest is repeated."""
        means = list(self._means)[::-1]
        return np.stack([means[min(i, len(means) - 1)] for i in range(k)]).astype(np.float32)
