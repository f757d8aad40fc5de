"""Neurons: images to firing rates. `simulated` says what a neuron is; `gabor` and `fitted` are two; `noise` wraps them."""
