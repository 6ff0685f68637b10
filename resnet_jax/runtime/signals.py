"""SIGTERM and Ctrl-C ask a run to save and stop."""

import signal
from types import FrameType


class StopSignals:
    """While entered, notes SIGTERM and SIGINT; a second SIGINT interrupts at once."""

    def __init__(self):
        self._asked = False

    def asked(self) -> bool:
        """Whether the run should save and stop."""
        return self._asked

    def __enter__(self) -> "StopSignals":
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
