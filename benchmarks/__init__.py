"""Benchmarks anyone can start: `python -m neurogym_v.benchmarks.NAME --help`."""

if __name__ != "neurogym_v.benchmarks":
    raise ImportError(f"import this package as neurogym_v.benchmarks, not as {__name__}")
