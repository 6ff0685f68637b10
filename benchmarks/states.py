"""Training states of a run, read and written from outside its processes."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from resnet_jax.runs import load_recipe
from resnet_jax.training.checkpoints import Checkpoints
from resnet_jax.training.trainer import build


def poison(workdir: Path) -> int:
    """Makes the first parameter of the newest checkpoint NaN; returns that checkpoint's step."""
    template = build(load_recipe(workdir)).state_template()
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(template)
    leaves, tree = jax.tree.flatten(state.params)
    leaves[0] = jax.device_put(jnp.full_like(leaves[0], jnp.nan), leaves[0].sharding)
    step = int(state.step)
    shutil.rmtree(workdir / "checkpoints" / str(step))
    with Checkpoints(workdir / "checkpoints", keep=100) as checkpoints:
        checkpoints.save(state.replace(params=tree.unflatten(leaves)))
    return step


def final(workdir: Path) -> dict[str, Any]:
    """The last state by names: parameters, batch statistics, momentum and all else."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return ocp.tree.to_flat_dict(checkpoints.restore(), sep=".")


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of the values that are not the same bit for bit."""
    return [
        name
        for name in sorted({*a, *b})
        if np.asarray(a.get(name)).tobytes() != np.asarray(b.get(name)).tobytes()
    ]
