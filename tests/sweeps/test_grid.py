"""A sweep's file that is wrong is told in one line, and one that never ends is told apart."""

from pathlib import Path

import pytest

from resnet_jax.errors import InputError
from resnet_jax.sweeps import grid

REPOSITORY = Path(__file__).parents[2]
HEADER = 'TITLE = "t"\nPAPER = None\nRECIPE = "other"\nCONFIG = "configs/digits.py"\n'


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(REPOSITORY)

    def from_text(text: str) -> grid.Sweep:
        path = tmp_path / "tiny.py"
        path.write_text(HEADER + text)
        return grid.load(str(path))

    return from_text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    pass", r"get_sweep\(\) returns nothing; it should yield each run"),
        ('    yield ["plain-8"]', r"\['plain-8'\]: expected a dictionary"),
        ("    return [3]", "3: expected a dictionary"),
        ("    yield {1: 2}", "expected a dictionary of fields"),
        ("    yield {'lr': 0.1, 'schedule.learning_rate': 1}", "learning_rate is given twice"),
        ("    yield {'seed': 1 / 0}", "line 6: ZeroDivisionError"),
        ("    return 3", "'int' object is not iterable"),
        ("    yield {'schedule.learning_rate': float('nan')}", "learning_rate=nan: must be finite"),
    ],
)
def test_runs_that_are_none_are_named(load, body: str, message: str):
    with pytest.raises(InputError, match=message) as raised:
        load(f"def get_sweep():\n{body}\n")
    assert "\n" not in str(raised.value)


def test_sweep_that_never_ends_is_refused(load):
    text = "import itertools\ndef get_sweep():\n    for seed in itertools.count():\n"
    with pytest.raises(InputError, match=r"yields over 10,000 runs; does it ever end\?"):
        load(f"{text}        yield {{'model.name': 'plain-8', 'seed': seed}}\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CONFIG = 3", "CONFIG=3: expected text"),
        ("TITLE = None", "TITLE=None: expected text"),
        ("COMMON = ['seed']", r"COMMON: \['seed'\]: expected a dictionary"),
        ("COMMON = {'label_smoothing': float('inf')}", "label_smoothing=inf: must be finite"),
        ("get_sweep = []", "get_sweep is no function"),
    ],
)
def test_wrong_value_in_a_sweeps_file_is_named(load, line: str, message: str):
    with pytest.raises(InputError, match=message):
        load(f"def get_sweep():\n    yield {{'model.name': 'plain-8'}}\n{line}\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def get_config(argument=None):\n    return {}['oops']", "c.py, line 2: KeyError: 'oops'"),
        (
            "from configs import digits\n\ndef get_config(argument=None):\n"
            "    return digits.get_config().sed",
            "c.py, line 4: AttributeError: ",
        ),
        ("def get_config(argument=None):\n    pass", "get_config returned None, not a ConfigDict"),
        ("get_config = 3", "get_config is no function"),
        ("def get_config():\n    pass", r"c\.py: TypeError: get_config\(\) takes 0 positional"),
    ],
)
def test_config_that_is_none_is_named(tmp_path: Path, body: str, message: str):
    path = tmp_path / "c.py"
    path.write_text(f"{body}\n")
    with pytest.raises(InputError, match=message) as raised:
        grid.load_config_file("config", str(path))("plain-8")
    assert str(path) in str(raised.value)


def test_short_name_of_a_field_is_the_field(load):
    found = load("def get_sweep():\n    yield {'model.name': 'plain-8', 'lr': 0.1}\n")
    assert found.overrides == ({"model.name": "plain-8", "schedule.learning_rate": 0.1},)
