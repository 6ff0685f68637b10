"""What the tests of preparing data sets share."""

import pytest
from originals_on_disk import SIZES

from resnet_jax.data import raw_readers


@pytest.fixture
def few_examples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of a handful of examples, everything else as published; in weekly tests whole ones."""
    if "weekly" not in request.keywords:
        for name, sizes in SIZES.items():
            monkeypatch.setitem(raw_readers.NUM_EXAMPLES, name, sizes)
