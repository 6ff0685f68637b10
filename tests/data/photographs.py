"""Real photographs for tests, where they lie beside the checkout."""

from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "imagenet-sample"


def sample(count: int | None = None) -> list[Path]:
    """ImageNet photographs, one a class, whose id leads the file name; skips without them."""
    photographs = sorted(SAMPLE.glob("*.JPEG"))
    if not photographs:
        pytest.skip(f"needs {SAMPLE}")
    return photographs[:count]
