"""How results are shown: run folders in, one page, a figure and tables out.

Reads what `resnet_jax.runs` writes and loads neither JAX nor Flax, so that a report renders on a
machine without an accelerator stack.
"""

from resnet_jax.reporting.archive import archive
from resnet_jax.reporting.record import PaperTable, write_record
from resnet_jax.reporting.report import Report, write_report

__all__ = ["PaperTable", "Report", "archive", "write_record", "write_report"]
