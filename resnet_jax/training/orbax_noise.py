"""Keeps what Orbax says of failures off the screen: hundreds of lines for one cause.

Orbax raises the cause in the thread that saves or restores, where it is told in one line. Besides
it logs it with tracebacks, and closes its event loop while TensorStore's threads are still at work
on other arrays. Each of those then complains in its own way, sooner or later, that the loop is
gone or that nobody asked for its error.
"""

import functools
import inspect
import logging
import sys
import warnings
from pathlib import Path

import orbax.checkpoint
from absl import logging as absl_logging

_ORBAX = str(Path(orbax.checkpoint.__file__).parent)


@functools.cache
def silence() -> None:
    """From now on and in the whole process, drops the complaints of this module's docstring."""
    absl_logging.get_absl_logger().addFilter(lambda record: not record.pathname.startswith(_ORBAX))
    logging.getLogger("asyncio").addFilter(
        lambda record: "exception was never retrieved" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    show = sys.unraisablehook

    def show_others(unraisable):
        abandoned = inspect.iscoroutine(unraisable.object)
        if not abandoned and str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = show_others
