"""Dashboards get the rows of metrics.jsonl over every start of a run; no run depends on them."""

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import digits
from resnet_jax import runs
from resnet_jax.errors import STOPPED, InputError
from resnet_jax.runs import Recipe
from resnet_jax.runs.loggers import open_loggers
from resnet_jax.runtime.multihost import StopSignals
from resnet_jax.training.run import train


def tiny(loggers: str) -> Recipe:
    return Recipe.from_config(
        digits.get_config(
            "resnet-8,batch_size=8,model.width=4,model.bn_group_size=8,num_steps=6,log_every=2,"
            "evaluate_every=6,checkpoint_every=2,num_devices=1,dataset.train=train[:40],"
            f"dataset.test=test[:8],loggers={loggers}"
        )
    )


def train_with_a_stop(recipe: Recipe, workdir: Path) -> None:
    asked = iter(range(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignals, "asked", lambda self: next(asked, None) is None)
        assert train(recipe, workdir) == STOPPED
    assert 0 < runs.read_run(workdir).rows[-1]["step"] < 6
    assert train(recipe, workdir) == 0


def rows_of(workdir: Path) -> list[tuple]:
    """(step, "split/loss", value) of metrics.jsonl."""
    found = runs.read_run(workdir).rows
    return sorted((row["step"], f"{row['split']}/loss", row["loss"]) for row in found)


def records_in(file: Path) -> Iterator[bytes]:
    """What a file of Weights & Biases holds: LevelDB's log format after a header of 7 bytes."""
    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # No header begins so near the end of a block.
            at += 32768 - at % 32768
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_stopped_and_resumed_run_continues_its_record_of_weights_and_biases(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra [wandb]")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    train_with_a_stop(tiny("wandb"), tmp_path)

    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    run_id = runs.read_run(tmp_path).info["run_id"]
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}
    logged = []
    for file in files:
        for record in map(Record.FromString, records_in(file)):
            values = {
                item.key or ".".join(item.nested_key): item.value_json
                for item in record.history.item
            }
            logged += [
                (record.history.step.num, name, pytest.approx(float(value)))
                for name, value in values.items()
                if name.endswith("/loss")
            ]
    assert rows_of(tmp_path) == sorted(logged, key=lambda entry: entry[:2])
    assert not (tmp_path / "tensorboard").exists()


def test_no_logger_writes_nothing(tmp_path):
    with open_loggers(tiny("none").logger_names, tmp_path, 0) as opened:
        assert opened == []
    assert not any(tmp_path.iterdir())


def test_missing_weights_and_biases_is_told_before_training(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name)
    )
    with pytest.raises(InputError, match=r"loggers='tensorboard,wandb': wandb is not installed"):
        train(tiny("tensorboard,wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_logger_is_refused_by_name():
    with pytest.raises(InputError, match=r"loggers='wand'.*nearest: wandb"):
        tiny("tensorboard,wand")
