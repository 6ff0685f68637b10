"""The study that CONTRIBUTING.md shows works when it is pasted."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

import resnet_jax.studies
from configs import digits
from resnet_jax.runs import Recipe
from resnet_jax.studies import study
from resnet_jax.training.run import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def example(tmp_path, monkeypatch) -> str:
    """The example's code, which stands among the studies for the time of a test."""
    [code] = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "weights.py").write_text(code)
    places = [*resnet_jax.studies.__path__, str(tmp_path)]
    monkeypatch.setattr(resnet_jax.studies, "__path__", places)
    yield code
    sys.modules.pop("resnet_jax.studies.weights", None)


@pytest.mark.slow
def test_example_of_a_study_is_short_and_runs_on_a_run(example, tmp_path):
    assert len(example.splitlines()) < 60
    recipe = Recipe.from_config(
        digits.get_config(
            "plain-8,batch_size=8,model.width=4,model.bn_group_size=8,num_steps=1,num_devices=1,"
            "loggers=none,dataset.train=train[:8],dataset.test=test[:8]"
        )
    )
    assert train(recipe, tmp_path / "run") == 0

    folder, finding = study.run("weights", [str(tmp_path / "run")], settings=["relative=True"])

    assert "weights" in study.names()
    table = pd.read_csv(folder / "data.csv")
    assert list(table["block"]) == [1, 2, 3]
    assert table["norm"].between(0.5, 2).all()  # One step moves no block far.
    assert finding.startswith("Mean norm of a block's weights: plain-8, width=4 ")
    assert (folder / "figure.png").stat().st_size > 1000
