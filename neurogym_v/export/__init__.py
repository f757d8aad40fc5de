"""A run as a file that other programs read: Neurodata Without Borders."""

from neurogym_v.export.nwb import write_nwb

__all__ = ["write_nwb"]
