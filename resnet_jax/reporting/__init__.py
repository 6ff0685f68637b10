"""How results are shown: run folders in, one page, figures and tables out.

Reads what `resnet_jax.runs` writes and loads neither JAX nor Flax, so that a report renders on a
machine without an accelerator stack.
"""

from resnet_jax.reporting.archive import archive
from resnet_jax.reporting.page import Report, write_report
from resnet_jax.reporting.results_md import PaperTable, write_results_md, write_spreads

__all__ = ["PaperTable", "Report", "archive", "write_report", "write_results_md", "write_spreads"]
