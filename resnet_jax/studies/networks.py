"""The networks that a study asks: of trained runs and of configs."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import runs
from resnet_jax.data import datasets, device_dataset, pictures, records, streaming
from resnet_jax.errors import InputError, check_choice
from resnet_jax.models import zoo
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting import naming
from resnet_jax.runs import recipe
from resnet_jax.runtime import parallel
from resnet_jax.training import streams, trainer
from resnet_jax.training.checkpoints import Checkpoints
from resnet_jax.training.state import Window
from resnet_jax.training.weights import load_weights

_SPLITS = ("train", "validation", "test")

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network under study.

    Attributes:
      config: of the run, or as given.
      path: the run's folder; None for an untrained network.
      label: its name in figures and sentences; networks that differ in the seed alone share it.
    """

    config: ConfigDict
    path: Path | None
    label: str

    @functools.cached_property
    def model(self) -> ResNet:
        """Batch norm in training uses the statistics of the whole batch that it is given."""
        model = zoo.create(
            self.config.model.name,
            num_classes=len(self._source("train").class_names),
            dtype=self.config.model.dtype,
            **recipe.model_overrides(self.config),
        )
        return model.clone(architecture=dataclasses.replace(model.architecture, bn_group_size=None))

    @property
    def is_plain(self) -> bool:
        return self.model.architecture.shortcut == "none"

    def initial(self) -> Variables:
        """The weights before the first step that the config's seed gives."""
        key, _ = trainer.keys(self.config.seed)
        size = self.config.dataset.image_size
        shape = (size, size, 3) if self._is_streamed else self._source("train").images.shape[1:]
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        fresh = self.model.lazy_init(key, image, train=False)
        return _anew({"batch_stats": {}, **fresh})

    @functools.cached_property
    def steps(self) -> list[int]:
        """Of the checkpoints, at least one; none for an untrained network.

        Raises:
          InputError: a run's checkpoints are gone: initial weights never stand in for trained ones.
        """
        if self.path is None:
            return []
        steps = []
        if (self.path / "checkpoints").is_dir():
            with Checkpoints(self.path / "checkpoints", read_only=True) as checkpoints:
                steps = checkpoints.steps
        if not steps:
            raise InputError(
                f"workdir={str(self.path)!r}: no checkpoint of this run is there, so its trained "
                "weights are lost; --untrained asks the network as it was before training"
            )
        return steps

    def at(self, step: int) -> Variables:
        """The weights after `step` steps, 0 or a checkpoint's.

        Raises:
          InputError: there are none.
        """
        if step == 0 and 0 not in self.steps:
            if self.config.init_from:
                raise InputError(
                    f"workdir={str(self.path)!r}: its first weights were those of "
                    f"{self.config.init_from!r} and are no longer kept"
                )
            return self.initial()
        return _anew(load_weights(self.path / "checkpoints", step).variables)

    @property
    def last_step(self) -> int:
        return self.steps[-1] if self.steps else 0

    def last(self) -> Variables:
        return self.at(self.last_step)

    def ready(self, images: np.ndarray) -> Variables:
        """The last weights; an untrained network's batch-norm statistics are those of `images`."""
        if self.steps:
            return self.last()
        return with_statistics_of(self.model, self.initial(), images)

    def require_trained(self, study: str) -> None:
        if not self.steps:
            raise InputError(f"study={study!r}: {self.label} is not trained; give --workdir=RUN")

    def images(self, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` examples of a split, as the network sees them in evaluation.

        Returns:
          Images, float32 [count, height, width, channels], and labels, int32 [count].

        Raises:
          InputError: there is no such split, or it has fewer examples.
        """
        dataset = self.config.dataset
        check_choice("split", split, [name for name in _SPLITS if getattr(dataset, name)])
        source = self._source(split)
        there = len(source) if self._is_streamed else len(source.images)
        if not 1 <= count <= there:
            raise InputError(
                f"examples={count}: {split} of {dataset.name} has {there}; give 1 to so many"
            )
        if self._is_streamed:  # Only these are read, and what the normalisation needs.
            images, labels = _centres(source, streams.framing(self.config), count)
        else:
            images, labels = source.images[:count], source.labels[:count]
        how = self._normalization
        return (images.astype(np.float32) / 255 - how.mean) / how.std, labels

    def about(self, step: int | None = None) -> dict[str, Any]:
        """The columns that every row of this network has."""
        family, depth = naming.family_and_depth(
            self.config.model.name, recipe.architecture(self.config)
        )
        step = self.last_step if step is None else step
        return {"network": self.label, "family": family, "depth": depth, "seed": self.config.seed,
                "step": step}  # fmt: skip

    def variant(self, **fields: Any) -> "Network":
        """The same network, untrained, with other values of the config's model section."""
        config = _replaced(self.config, {f"model.{name}": value for name, value in fields.items()})
        return Network(config, None, label(config))

    def with_seeds(self, count: int) -> "list[Network]":
        """This network, or an untrained one with as many seeds, from its own on."""
        if self.path is not None:
            return [self]
        seeds = range(self.config.seed, self.config.seed + max(count, 1))
        return [
            dataclasses.replace(self, config=_replaced(self.config, {"seed": seed}))
            for seed in seeds
        ]

    def for_steps(self, steps: int) -> ConfigDict:
        """The config with another length, its schedule fitted to that."""
        return _replaced(self.config, {"num_steps": steps, "num_devices": None})

    @property
    def _is_streamed(self) -> bool:
        return getattr(self.config, "streaming", None) is not None

    def _source(self, split: str) -> Any:
        """The split's examples, or, of a streamed run, its records."""
        dataset = self.config.dataset
        if self._is_streamed:
            return records.open(dataset.name, getattr(dataset, split), dataset.data_dir)
        return _load(dataset.name, getattr(dataset, split), dataset.data_dir, dataset.image_size)

    @property
    def _normalization(self) -> device_dataset.Normalization:
        dataset = self.config.dataset
        framing = streams.framing(self.config) if self._is_streamed else None
        source = (dataset.name, dataset.train, dataset.data_dir, dataset.image_size)
        return _statistics(*source, dataset.mean, dataset.std, framing)


def collect(
    workdirs: Sequence[str],
    configs: Sequence[ConfigDict] = (),
    data_dir: str | None = None,
    untrained: bool = False,
) -> list[Network]:
    """Networks of runs' folders and of configs.

    Runs that differ in the seed alone have one label, and are seeds of one network; others that
    would share a label have their folder's name in it.

    Args:
      workdirs: folders of runs.
      configs: of untrained networks.
      data_dir: where the data set is now, if it has moved.
      untrained: take the runs' networks as they were before training.

    Raises:
      InputError: none is given, one is wrong, or two are one seed of one network.
    """
    paths = {path.resolve(): path for path in map(Path, workdirs)}.values()
    found = [(recipe.load_config(path), path) for path in paths]
    found += [(config, None) for config in configs]
    if not found:
        raise InputError("give networks: --workdir=RUN, or --config=configs/digits.py:plain-56")
    for config, _ in found:
        if data_dir:
            config.dataset.data_dir = data_dir
        recipe.check(config)
    if untrained:
        found = [(config, None) for config, _ in found]
    networks = [Network(config, path, _distinct(config, path, found)) for config, path in found]
    _refuse_one_seed_twice(networks)
    return networks


def _distinct(config: ConfigDict, path: Path | None, found: list[tuple]) -> str:
    own = label(config)
    runs_alike = [other for other, folder in found if folder and label(other) == own]
    if path is None:
        return f"{own}, untrained" if runs_alike else own
    if all(_differ_in_seed_alone(config, other) for other in runs_alike):
        return own
    return f"{own} ({path.name})"


def _refuse_one_seed_twice(networks: Iterable[Network]) -> None:
    seen: dict[tuple[str, int], Network] = {}
    for network in networks:
        first = seen.setdefault((network.label, network.config.seed), network)
        if first is not network:
            places = f"{first.path} and {network.path}" if network.path else "the same config twice"
            raise InputError(
                f"{places}: one seed ({network.config.seed}) of {network.label}; give each seed "
                "of a network once"
            )


def _differ_in_seed_alone(config: ConfigDict, other: ConfigDict) -> bool:
    old, new = (runs.as_json(each.to_dict()) for each in (config, other))
    return not recipe.differences({**old, "seed": None}, {**new, "seed": None})


def _replaced(config: ConfigDict, fields: dict[str, Any]) -> ConfigDict:
    """A copy with other values of some fields, named by their paths."""
    changed = ConfigDict(config.to_dict())
    with changed.unlocked():
        for path, value in fields.items():
            *sections, name = path.split(".")
            setattr(functools.reduce(getattr, sections, changed), name, value)
    return changed


def train_on(
    network: Network, variables: Variables, steps: int, every: int, track: Any = iter
) -> tuple[Variables, list[dict[str, Any]]]:
    """Trains on from `variables` under the config's recipe, its schedule fitted to `steps`.

    Returns:
      The weights, and rows of `at_step`, `loss` and `error`, as the optimiser saw them: means over
      `every` so many steps, counted back from the end, and over what is left at the beginning.
    """
    run = trainer.build(network.for_steps(steps))
    advance, data, place = run.make_advance(), run.splits["train"], parallel.replicated(run.mesh)
    state = run.initial_state().replace(
        params=jax.device_put(variables["params"], place),
        batch_stats=jax.device_put(variables["batch_stats"], place),
    )
    rows = []
    for step in track(range(steps)):
        state = advance(state, data, step, step + 1)
        if (steps - step - 1) % every == 0:
            window = jax.device_get(state.window)
            count = int(window.num_steps)
            rows.append(
                {"at_step": step + 1, "loss": float(window.loss) / count,
                 "error": float(window.error) / count}
            )  # fmt: skip
            state = state.replace(window=jax.device_put(Window.empty(), place))
    return jax.device_get(state.variables), rows


def label(config: ConfigDict) -> str:
    """E.g. "plain-56, activation=sigmoid, norm=none"."""
    return ", ".join(filter(None, (config.model.name, settings(config))))


def settings(config: ConfigDict) -> str:
    """What the config changes of the network that its name says: "activation=sigmoid"."""
    fields = {
        f"model.{name}": value
        for name, value in recipe.model_overrides(config).items()
        if name != "bn_group_size"
    }
    return naming.describe_settings(fields, sorted(fields))


def _anew(variables: Variables) -> Variables:
    """Wherever they come from they are alike to `jit`, which then compiles a network once."""
    return jax.device_put(jax.device_get(variables))


def _centres(source: Any, framing: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The centre crops of the first records, uint8, and their labels."""
    first = np.arange(count)
    batches = pictures.Batches(
        source,
        lambda _: pictures.Order(first, None),
        augmentation="centre",
        framing=framing,
        seed=0,
        rows=first,
        length=1,
    )
    return batches[0]


@functools.lru_cache(maxsize=4)
def _load(name: str, split: str, data_dir: str | None, size: int | None) -> datasets.Examples:
    return datasets.load(name, split, data_dir=data_dir, image_size=size)


@functools.lru_cache(maxsize=4)
def _statistics(name, split, data_dir, size, mean, std, framing) -> device_dataset.Normalization:
    """Of the training split; of a streamed one's centre crops, where there is a framing."""
    if framing is None:
        return device_dataset.normalization(_load(name, split, data_dir, size).images, mean, std)
    return streaming.normalization(records.open(name, split, data_dir), framing, mean, std)
