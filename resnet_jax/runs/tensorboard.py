"""The figures of `metrics.jsonl` once more, as TensorBoard's events."""

import contextlib
import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class Events:
    """Appends rows to a new file of events.

    They are written at once, not by tensorboardX's thread: when that thread dies, of a full disk,
    whoever gives it more waits for ever. An event that cannot be written is left out; it is a copy.

    Args:
      folder: of the files, one for each start of the run.
      step: TensorBoard forgets what earlier files say of this step and later ones.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, row: dict[str, Any]) -> None:
        """Writes the finite figures of a row as `split/name`."""
        for name, value in row.items():
            if name not in ("step", "split") and value is not None:
                summary = scalar(f"{row['split']}/{name}", value)
                self._write(Event(step=row["step"], wall_time=time.time(), summary=summary))
        with contextlib.suppress(OSError):
            self._writer.flush()

    def _write(self, event: Event) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_event(event)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()
