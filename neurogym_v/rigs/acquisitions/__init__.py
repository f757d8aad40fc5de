"""Recording systems: what delivers spikes and the edges of a photodiode or trigger line."""
