"""The statistics of benchmark and leaderboard: aggregates over sites with intervals, comparisons, profiles, run times."""

from neurogym_v.scoring.aggregate import Counted, Scores, Statistic, counted, iqm, mean, median, optimality_gap, site_means
from neurogym_v.scoring.alike import alike
from neurogym_v.scoring.bootstrap import cluster_bootstrap, stratified_bootstrap, studentized_bootstrap
from neurogym_v.scoring.compare import (
    Friedman,
    Pair,
    friedman,
    holm,
    improvement_by_site,
    improvement_interval,
    paired_difference,
    probability_of_improvement,
    wilcoxon_holm,
)
from neurogym_v.scoring.profiles import Band, ecdf, performance_profile
from neurogym_v.scoring.runtime import area_under, expected_running_time, first_hits
from neurogym_v.scoring.stretch import SiteTest, Stretch, bootstrap_test, paired, share, stretched, welch

__all__ = [
    "Band",
    "Counted",
    "Friedman",
    "Pair",
    "Scores",
    "SiteTest",
    "Statistic",
    "Stretch",
    "alike",
    "area_under",
    "bootstrap_test",
    "cluster_bootstrap",
    "counted",
    "ecdf",
    "expected_running_time",
    "first_hits",
    "friedman",
    "holm",
    "improvement_by_site",
    "improvement_interval",
    "iqm",
    "mean",
    "median",
    "optimality_gap",
    "paired",
    "paired_difference",
    "performance_profile",
    "probability_of_improvement",
    "share",
    "site_means",
    "stratified_bootstrap",
    "stretched",
    "studentized_bootstrap",
    "welch",
    "wilcoxon_holm",
]
