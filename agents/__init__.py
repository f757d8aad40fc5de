"""Agents: one algorithm a file. Each imports only `neurogym_v.types`, `agent` and `generators`, none another."""

if __name__ != "neurogym_v.agents":
    raise ImportError(f"import this package as neurogym_v.agents, not as {__name__}")
