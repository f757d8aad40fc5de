"""A run as one page: HTML that needs no server, no network and no other file."""

from neurogym_v.report.page import PAGE, write_report

__all__ = ["PAGE", "write_report"]
