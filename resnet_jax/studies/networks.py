"""The nets that a study asks: trained runs and untrained configs."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from resnet_jax.data import datasets, device_dataset
from resnet_jax.errors import InputError, check_choice
from resnet_jax.models import zoo
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting import naming
from resnet_jax.runs import recipe
from resnet_jax.training import trainer
from resnet_jax.training.checkpoints import Checkpoints
from resnet_jax.training.weights import load_weights

_SPLITS = ("train", "validation", "test")

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A net under study.

    Attributes:
      config: of the run, or as given.
      path: the run's folder; None for an untrained net.
      label: its name in figures and sentences.
    """

    config: ConfigDict
    path: Path | None
    label: str

    @functools.cached_property
    def model(self) -> ResNet:
        """The net; batch norm in training uses the statistics of the whole batch it is given."""
        model = zoo.create(
            self.config.model.name,
            num_classes=len(self._examples("train").class_names),
            dtype=self.config.model.dtype,
            **recipe.model_overrides(self.config),
        )
        return model.clone(architecture=dataclasses.replace(model.architecture, bn_group_size=None))

    @property
    def is_plain(self) -> bool:
        return self.model.architecture.shortcut == "none"

    def initial(self) -> Variables:
        """The weights before the first step, those that the config's seed gives."""
        key, _ = trainer.keys(self.config.seed)
        shape = self._examples("train").images.shape[1:]
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        fresh = self.model.lazy_init(key, image, train=False)
        return _anew({"batch_stats": {}, **fresh})

    @functools.cached_property
    def steps(self) -> list[int]:
        """Of the checkpoints; none for an untrained net."""
        if self.path is None or not (self.path / "checkpoints").is_dir():
            return []
        with Checkpoints(self.path / "checkpoints", read_only=True) as checkpoints:
            return checkpoints.steps

    def at(self, step: int) -> Variables:
        """The weights after `step` steps, 0 or a checkpoint's."""
        if step == 0 and 0 not in self.steps:
            return self.initial()
        return _anew(load_weights(self.path / "checkpoints", step).variables)

    @property
    def last_step(self) -> int:
        return self.steps[-1] if self.steps else 0

    def last(self) -> Variables:
        return self.at(self.last_step)

    def require_trained(self, study: str) -> None:
        if not self.steps:
            raise InputError(f"study={study!r}: {self.label} is not trained; give --workdir=RUN")

    def images(self, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` examples of a split, as the net sees them in evaluation.

        Returns:
          Images, float32 [count, height, width, channels], and labels, int32 [count].
        """
        check_choice("split", split, [name for name in _SPLITS if self.config.dataset[name]])
        examples, how = self._examples(split), self._normalization
        if not 1 <= count <= len(examples.images):
            raise InputError(
                f"examples={count}: {split} of {self.config.dataset.name} has "
                f"{len(examples.images)}; give 1 to so many"
            )
        pixels = examples.images[:count].astype(np.float32) / 255
        return (pixels - how.mean) / how.std, examples.labels[:count]

    def about(self, step: int | None = None) -> dict[str, Any]:
        """The columns that every row of this net has."""
        family, depth = naming.family_and_depth(
            self.config.model.name, recipe.architecture(self.config)
        )
        step = self.last_step if step is None else step
        return {"net": self.label, "family": family, "depth": depth, "step": step}

    def variant(self, **fields: Any) -> "Subject":
        """The same net, untrained, with other values of the config's model section."""
        config = ConfigDict(self.config.to_dict())
        with config.unlocked():
            for name, value in fields.items():
                config.model[name] = value
        return Subject(config, None, label(config))

    def _examples(self, split: str) -> datasets.Examples:
        dataset = self.config.dataset
        return _load(dataset.name, dataset[split], dataset.data_dir, dataset.image_size)

    @property
    def _normalization(self) -> device_dataset.Normalization:
        dataset = self.config.dataset
        return _statistics(
            dataset.name, dataset.train, dataset.data_dir, dataset.image_size,
            dataset.mean, dataset.std,
        )  # fmt: skip


def collect(
    workdirs: Sequence[str], configs: Sequence[ConfigDict] = (), data_dir: str | None = None
) -> list[Subject]:
    """Subjects of runs' folders and of configs, each with a label of its own.

    Raises:
      InputError: none is given, or one is wrong.
    """
    found = []
    for workdir in map(Path, workdirs):
        found.append((recipe.load_config(workdir), workdir))
    found += [(config, None) for config in configs]
    if not found:
        raise InputError("give nets: --workdir=RUN, or --config=configs/digits.py:plain-56")
    for config, _ in found:
        if data_dir:
            config.dataset.data_dir = data_dir
        recipe.check(config)
    counts = Counter(label(config) for config, _ in found)
    return [
        Subject(config, path, _distinct(config, path, counts[label(config)]))
        for config, path in found
    ]


def _anew(variables: Variables) -> Variables:
    """Wherever they come from they are alike to `jit`, which then compiles a net once."""
    return jax.device_put(jax.device_get(variables))


def label(config: ConfigDict) -> str:
    """E.g. "plain-56, activation=sigmoid, norm=none"."""
    return ", ".join(filter(None, (config.model.name, settings(config))))


def settings(config: ConfigDict) -> str:
    """What the config changes of the net that its name says: "activation=sigmoid, norm=none"."""
    fields = {
        f"model.{name}": value
        for name, value in recipe.model_overrides(config).items()
        if name != "bn_group_size"
    }
    return naming.describe_settings(fields, sorted(fields))


def _distinct(config: ConfigDict, path: Path | None, count: int) -> str:
    if count == 1:
        return label(config)
    return f"{label(config)} ({path.name if path else f'seed {config.seed}'})"


@functools.lru_cache(maxsize=4)
def _load(name: str, split: str, data_dir: str | None, size: int | None) -> datasets.Examples:
    return datasets.load(name, split, data_dir=data_dir, image_size=size)


@functools.lru_cache(maxsize=2)
def _statistics(name, split, data_dir, size, mean, std) -> device_dataset.Normalization:
    return device_dataset.normalization(_load(name, split, data_dir, size).images, mean, std)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 … count − 1, evenly spread."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})
