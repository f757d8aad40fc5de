"""The mathematics of fitting sites to recordings: ridge regression with exact leave-one-out, calibration, reliability.

Everything is for all neurons of a session at once: features are (n, p), rates (n, neurons).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neurogym_v.types import NeuroGymError

Array = NDArray[np.float64]

FOLDS = 5
FLOOR_PERCENTILE = 5.0
"""Of a site's recorded rates: below it the model does not go, and a grey screen is taken to be there."""
GREY_WEIGHT = 10.0
"""A grey screen joins the fit as this many images."""
MOST_REPEATS = 60
"""The most repeats of one image that are looked for."""
PENALTIES = 10.0 ** np.arange(-2.0, 2.01, 0.25)
"""Ridge penalties, in units of the mean eigenvalue of the images' kernel."""


def ridge(x: Array, y: Array, grey: Array) -> tuple[Array, Array, Array]:
    """(p, neurons) slope, (neurons,) intercept and leave-one-out share of variance explained, of (n, neurons) rates
    on (n, p) features, p > n. `grey` (p,) is the screen that joins with its weight.

    All penalties share one eigendecomposition of the (n + 1, n + 1) kernel; the leave-one-out error of each is exact.
    """
    root = np.sqrt(np.append(np.ones(len(x)), GREY_WEIGHT))[:, None]
    x, y = np.vstack([x, grey]), np.vstack([y, np.percentile(y, FLOOR_PERCENTILE, axis=0)])
    mean_x, mean_y = np.average(x, axis=0, weights=root[:, 0] ** 2), np.average(y, axis=0, weights=root[:, 0] ** 2)
    a, z = root * (x - mean_x), root * (y - mean_y)
    values, vectors = np.linalg.eigh(a @ a.T)
    constant = int(np.argmax(np.abs(vectors.T @ root)))  # the direction of the intercept, which is not penalised
    turned = vectors.T @ z
    dual, least = np.zeros_like(z), np.full(y.shape[1], np.inf)
    for penalty in PENALTIES:
        inverse = 1.0 / (np.maximum(values, 0.0) + penalty * values.mean())
        inverse[constant] = 0.0
        candidate = vectors @ (inverse[:, None] * turned)
        error = (((candidate / (vectors**2 @ inverse)[:, None])[:-1]) ** 2).sum(axis=0)
        better = error < least
        dual[:, better], least[better] = candidate[:, better], error[better]
    slope = a.T @ dual
    return slope, mean_y - mean_x @ slope, 1.0 - least / np.maximum((z[:-1] ** 2).sum(axis=0), 1e-12)


def calibrate(drive: Array, mean: Array, sd: Array) -> tuple[Array, Array]:
    """(gain, offset) for which max(0, gain * drive + offset) has this mean and s.d. over the (n, neurons) drives."""
    centre = drive.mean(axis=0)
    gain, offset = sd / drive.std(axis=0), mean.copy()
    for _ in range(300):  # a contraction: one step is exact where nothing is rectified
        gain = gain * sd / np.maximum(0.0, gain * (drive - centre) + offset).std(axis=0)
        offset = offset + mean - np.maximum(0.0, gain * (drive - centre) + offset).mean(axis=0)
    return gain, offset - gain * centre


def cross_validate(x: Array, y: Array, grey: Array) -> tuple[Array, Array]:
    """(neurons,) Pearson r over five folds, and the share of variance that leave-one-out inside the folds explained."""
    order = np.random.default_rng(0).permutation(len(x))
    predicted, inner = np.empty_like(y), []
    for test in np.array_split(order, FOLDS):
        train = np.setdiff1d(order, test)
        slope, intercept, explained = ridge(x[train], y[train], grey)
        predicted[test] = x[test] @ slope + intercept
        inner.append(explained)
    return pearson(predicted, y), np.asarray(np.mean(inner, axis=0))


def pearson(a: Array, b: Array) -> Array:
    """(columns,) correlations of the columns of two (n, columns) arrays; 0 where one of them is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return np.asarray((a * b).sum(axis=0) / np.maximum(np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0)), 1e-12))


def reliability(trials: Array, splits: int = 20) -> Array:
    """(neurons,) r that a perfect model would reach: square root of the Spearman-Brown corrected split-half r.

    Trials are (neurons, n, repeats), NaN where there is no such repeat (the same for all neurons).
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(splits):
        # A random order with missing trials last, so that both halves are filled alike.
        order = np.argsort(np.where(np.isnan(trials[:1]), 2.0, rng.random(trials[:1].shape)), axis=2)
        mixed = np.take_along_axis(trials, np.broadcast_to(order, trials.shape), axis=2)
        found.append(pearson(np.nanmean(mixed[:, :, ::2], axis=2).T, np.nanmean(mixed[:, :, 1::2], axis=2).T))
    half = np.maximum(np.mean(found, axis=0), 0.0)
    ceiling: Array = np.sqrt(2 * half / (1 + half))
    return ceiling


def count_repeats(counts: Array) -> Array:
    """(n,) presentations behind (neurons, n) mean counts: the fewest that make every neuron's sum a whole number.

    The release gives means only. Where it gives trials too (session 210325), this finds the true number for all images.
    """
    tries = np.arange(1, MOST_REPEATS + 1)
    sums = counts[None] * tries[:, None, None]
    whole = (np.abs(sums - np.round(sums)) < 1e-6).all(axis=1)
    if not whole.any(axis=0).all():
        raise NeuroGymError(f"mean counts: expected whole spikes over 1 to {MOST_REPEATS} repeats, found other means")
    return np.asarray(tries[whole.argmax(axis=0)], dtype=np.float64)
