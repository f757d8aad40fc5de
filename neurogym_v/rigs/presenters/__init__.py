"""Presenters: what puts images before an animal, as a rig file names it."""
