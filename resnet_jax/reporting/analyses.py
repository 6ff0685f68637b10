"""What analyses of the runs have found: `analysis/<name>/finding.md` beside a figure."""

import base64
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from resnet_jax.reporting.load import Collection


@dataclasses.dataclass(frozen=True)
class Analysis:
    """`folder` holds it; `paragraphs` are plain text; `picture` is a data URL or None."""

    folder: Path
    name: str
    paragraphs: list[str]
    picture: str | None


def read_analyses(collection: Collection) -> list[Analysis]:
    """All analyses under the work folders and under their runs, in the order of these."""
    folders = [(sweep.path, "") for sweep in collection.sweeps]
    folders += [(result.run.path, f"{result.name}: ") for result in collection.results]
    seen: dict[Path, Analysis] = {}
    for folder, prefix in folders:
        for path in sorted(folder.glob("analysis/*/finding.md")):
            name = path.parent.name.replace("_", " ")
            seen.setdefault(path.resolve(), _read(path, f"{prefix}{name}"))
    return list(seen.values())


def _read(path: Path, name: str) -> Analysis:
    text = path.read_text(encoding="utf-8", errors="replace")
    name = name[:1].upper() + name[1:]
    return Analysis(path.parent, name, list(_paragraphs(text)), _picture(path.parent))


def _paragraphs(text: str) -> Iterable[str]:
    for block in text.split("\n\n"):
        words = " ".join(block.split()).lstrip("# ")
        if words:
            yield words


def _picture(folder: Path) -> str | None:
    """The figure as an image, in which a script of an SVG would not run."""
    path = folder / "figure.svg"
    if not path.is_file():
        return None
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
