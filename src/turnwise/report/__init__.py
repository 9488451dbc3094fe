"""Shows a run: the table with standard errors, the curves of the paper's figure 3, and episodes turn by turn."""

from turnwise.report.write import write_report

__all__ = ["write_report"]
