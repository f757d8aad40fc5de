"""Whether searches of one site, begun anew, come to like images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurogym_v.scoring.aggregate import mean
from neurogym_v.scoring.bootstrap import RESAMPLES, cluster_bootstrap
from neurogym_v.stats import Estimate
from neurogym_v.types import NeuroGymError


def alike(features: ArrayLike, rng: np.random.Generator, *, resamples: int = RESAMPLES) -> Estimate:
    """How often two images of one site are more alike than an image of it and one of another site; 0.5 is chance.

    Mean over sites of P(S > D) + P(S = D) / 2, where S is the correlation of the features of two images of the site, and D
    that of one of them with an image of any other site; with the interval of `cluster_bootstrap` over sites.

    Args:
        features: (sites, seeds, features) of the images; NaN where there is no image. A feature counts as far as images
            differ in it: each is centred on its mean over sites.

    Raises:
        NeuroGymError: another shape.
    """
    made = np.asarray(features, dtype=np.float64)
    if made.ndim != 3:
        raise NeuroGymError(f"features: expected (sites, seeds, features), got an array of shape {made.shape}")
    sites, seeds, _ = made.shape
    here = np.isfinite(made).all(axis=2).ravel()
    flat = np.where(here[:, None], made.reshape(sites * seeds, -1), 0.0)
    of_site = np.repeat(np.arange(sites), seeds)
    centre = np.mean([flat[here & (of_site == site)].mean(axis=0) for site in np.unique(of_site[here])] or [0.0], axis=0)
    flat = flat - centre
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = np.divide(flat, norms, out=np.zeros_like(flat), where=norms > 0)
    similar = flat @ flat.T
    return cluster_bootstrap(
        np.array([[_of_site(similar, here & (of_site == site), here & (of_site != site))] for site in range(sites)]),
        mean,
        rng,
        resamples=resamples,
    )


def _of_site(similar: NDArray[np.float64], own: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    same = similar[np.ix_(own, own)][np.triu_indices(int(own.sum()), 1)]
    different = similar[np.ix_(own, others)].ravel()
    if not len(same) or not len(different):
        return float("nan")
    a, b = same[:, None], different[None, :]
    return float(((a > b) + 0.5 * (a == b)).mean())
