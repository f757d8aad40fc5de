"""NeuroGym-V: a gymnasium environment and benchmark in which a visual neuron is the environment.

`import neurogym_v` registers the environments with gymnasium and imports nothing heavy.
"""

from neurogym_v.registration import register_envs

__version__ = "0.1.0"
__all__ = ["__version__", "register_envs"]

register_envs()
