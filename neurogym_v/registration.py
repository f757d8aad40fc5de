"""The environments by name, for gymnasium.

They are there after `import neurogym_v`, as `gymnasium.make("neurogym_v:neurogym_v/V4-v0")` without that import, and through
the entry-point group `gymnasium.envs`: gymnasium before 1.0 loaded it by itself, tools that list environments still read
it. Such a loader runs while gymnasium is being imported, so this module imports nothing at its top.
"""

from __future__ import annotations

ENVIRONMENTS = {
    "neurogym_v/V4-v0": {"neuron": "v4"},
    "neurogym_v/Gabor-v0": {"neuron": "gabor"},
}
"""Name -> what differs from the defaults of `neurogym_v.env.NeuronEnv`. The version grows when the numbers change."""


def register_envs() -> None:
    """Register every environment once; calling it again changes nothing."""
    from gymnasium.envs.registration import register, registry

    for name, kwargs in ENVIRONMENTS.items():
        if name not in registry:
            register(
                id=name,
                entry_point="neurogym_v.env:NeuronEnv",
                vector_entry_point="neurogym_v.vector:NeuronVectorEnv",
                kwargs=kwargs,
            )
