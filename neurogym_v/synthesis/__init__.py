"""Model-driven synthesis: a model of the neuron, fitted to what was shown, is asked which image it would like best.

`surrogate` is that model, differentiable in the image; `ascent` climbs it through a generator's latents; `driven` is what
agents that do so have in common.
"""
