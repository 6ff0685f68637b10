"""The networks that a study asks: of trained runs and of recipes."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data import datasets, device_dataset, streaming
from resnet_jax.data.splits import SPLITS
from resnet_jax.data.tfds_sets import Records
from resnet_jax.errors import InputError, check_choice
from resnet_jax.models import zoo
from resnet_jax.models.architecture import USED_WITH
from resnet_jax.models.batch_norm import with_statistics_of
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting import naming
from resnet_jax.reporting.load import WEIGHTS, difference_of_data, what_is_computed
from resnet_jax.runs import Recipe, checkpoint_steps, find_runs, load_recipe, read_run
from resnet_jax.runs.recipe import is_used
from resnet_jax.runtime import parallel
from resnet_jax.training import trainer
from resnet_jax.training.checkpoints import load_weights
from resnet_jax.training.run import check_dataset
from resnet_jax.training.state import MetricAccumulator

_ALWAYS = ("num_steps", "batch_size", "dataset.name")

_STATUS = {"completed": "", "diverged": "diverged"}


Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network under study.

    Attributes:
      recipe: of the run, or as given.
      path: the run's folder; None for an untrained network.
      label: its name in figures and sentences; networks that differ in the seed alone share it.
      untrained: whether a run is asked as it was before training, so of its checkpoints step 0's.
    """

    recipe: Recipe
    path: Path | None
    label: str
    untrained: bool = False

    @functools.cached_property
    def model(self) -> ResNet:
        """Batch norm in training uses the statistics of the whole batch that it is given."""
        net = dataclasses.replace(self.recipe.architecture, bn_group_size=None)
        num_classes = len(self._source("train").class_names)
        return ResNet(net, jnp.dtype(self.recipe.model.dtype), num_classes=num_classes)

    @property
    def told(self) -> str:
        """What `label` says of the training: ", max_grad_norm=0.3", or nothing."""
        return self.label.removeprefix(label(self.recipe))

    @property
    def status(self) -> str:
        """Of the run: "diverged" or "not finished"; empty where nothing is amiss."""
        if self.path is None or self.untrained or self.recipe.converted_from:
            return ""
        return _STATUS.get(read_run(self.path).status, "not finished")

    @property
    def is_trained(self) -> bool:
        return self.path is not None and not self.untrained

    @property
    def begins(self) -> str:
        """What step 0 is: "at initialisation", "as converted" or, from another run, "as given"."""
        if self.recipe.converted_from:
            return "as converted"
        return "as given" if self.recipe.init_from else "at initialisation"

    def renamed(self, more: str) -> "Network":
        """The same network with more in its label."""
        return dataclasses.replace(self, label=f"{self.label}{more}")

    @property
    def is_plain(self) -> bool:
        return self.model.architecture.shortcut == "none"

    def initial(self) -> Variables:
        """The weights before the first step that the recipe's seed gives.

        Raises:
          InputError: they are another run's.
        """
        if self.recipe.init_from:
            where = f"workdir={str(self.path)!r}" if self.path else self.label
            raise InputError(
                f"{where}: its first weights were those of {self.recipe.init_from!r} and are no "
                "longer kept"
            )
        key, _ = trainer.keys(self.recipe.seed)
        size, train = self.recipe.dataset.image_size, self._source("train")
        shape = train.images.shape[1:] if isinstance(train, datasets.Examples) else (size, size, 3)
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        fresh = self.model.lazy_init(key, image, train=False)
        return _anew({"batch_stats": {}, **fresh})

    @functools.cached_property
    def steps(self) -> list[int]:
        """Of the checkpoints, at least one; of an untrained network at most step 0.

        Raises:
          InputError: a run's checkpoints are gone: initial weights never stand in for trained ones.
        """
        if self.path is None:
            return []
        steps = checkpoint_steps(self.path)
        if self.untrained:
            return [step for step in steps if step == 0]
        if not steps:
            why = "no checkpoint of this run is there, so its trained weights are lost"
            if self.status == "diverged":
                why = "it diverged before its first checkpoint; name the other runs one by one"
            raise InputError(
                f"workdir={str(self.path)!r}: {why}; --untrained asks the network as it was before "
                "training"
            )
        return steps

    def at(self, step: int) -> Variables:
        """The weights after `step` steps, 0 or a checkpoint's.

        Raises:
          InputError: there are none.
        """
        if step == 0 and (self.path is None or 0 not in checkpoint_steps(self.path)):
            return self.initial()
        if self.path is None:
            raise InputError(f"step={step}: {self.label} is not trained; it has step 0 alone")
        return _anew(load_weights(self.path / "checkpoints", step).variables)

    @property
    def last_step(self) -> int:
        return self.steps[-1] if self.steps else 0

    def last(self) -> Variables:
        """The variables of the last checkpoint, or the initial ones of an untrained network."""
        return self.at(self.last_step)

    def ready(self, images: np.ndarray) -> Variables:
        """The last weights; an untrained network's batch-norm statistics are those of `images`.

        These are float [examples, height, width, channels], normalised.
        """
        if self.steps:
            return self.last()
        return with_statistics_of(self.model, self.initial(), images)

    def require_trained(self, study: str, *, saved: bool = True) -> None:
        """Raises `InputError` for an untrained network, or, with `saved`, one without weights."""
        if not (self.steps if saved else self.is_trained):
            raise InputError(f"study={study!r}: {self.label} is not trained; give --workdir=RUN")

    def require_plain_training(self, study: str, usual: Mapping[str, Any]) -> None:
        """Refuses recipes with other than these `usual` values, by the paths of their fields."""
        for path, value in usual.items():
            own = functools.reduce(getattr, path.split("."), self.recipe)
            if own != value:
                raise InputError(
                    f"{self.label}: {path}={own}: {study} does not allow for it; give runs with "
                    f"{path}={value}"
                )

    def images(self, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` examples of a split, as the network sees them in evaluation.

        Returns:
          Images, float32 [count, height, width, channels], and labels, int32 [count].

        Raises:
          InputError: there is no such split, or it has fewer examples.
        """
        dataset = self.recipe.dataset
        check_choice("split", split, [name for name in SPLITS if getattr(dataset, name)])
        source = self._source(split)
        there = len(source.images if isinstance(source, datasets.Examples) else source)
        if not 1 <= count <= there:
            raise InputError(
                f"examples={count}: {split} of {dataset.name} has {there}; give 1 to so many"
            )
        if isinstance(source, datasets.Examples):
            images, labels = source.images[:count], source.labels[:count]
        else:  # Only these are read, and what the normalisation needs.
            images, labels = _centres(source, self.recipe, count)
        how = self._normalization
        return (images.astype(np.float32) / 255 - how.mean) / how.std, labels

    def about(self, step: int | None = None) -> dict[str, Any]:
        """The columns that every row of this network has."""
        family, depth = naming.family_and_depth(self.recipe.model.name, self.recipe.architecture)
        step = self.last_step if step is None else step
        return {"network": self.label, "family": family, "depth": depth, "seed": self.recipe.seed,
                "step": step}  # fmt: skip

    def variant(self, **fields: Any) -> "Network":
        """The same network, untrained, with other values of the recipe's model section.

        Its first weights are its seed's, whatever this one's were, so none of them is frozen.
        Values that mean nothing beside these, such as the bias of a gate that is no more, are left
        out.
        """
        for axis, needed in USED_WITH.items():
            if any(fields.get(other, values[0]) not in values for other, values in needed.items()):
                fields.setdefault(axis, None)
        model = {f"model.{name}": value for name, value in fields.items()}
        # Whether blocks are compiled as one loop depends on how many there are.
        anew = dict.fromkeys(("init_from", "converted_from", "freeze", "scan_blocks"))
        recipe = self.recipe.replace(**anew, **model)
        return Network(recipe, None, label(recipe))

    def of_depth(self, depth: int) -> "Network":
        """The same kind of network, untrained, of so many layers."""
        family = self.recipe.model.name.rsplit("-", 1)[0].removeprefix("cifar-")
        is_cifar = self.recipe.architecture.stem == "cifar"
        prefix = "cifar-" if is_cifar and depth in zoo.IMAGENET_STAGES else ""
        return self.variant(name=f"{prefix}{family}-{depth}")

    def with_seeds(self, count: int) -> "list[Network]":
        """This network, or an untrained one with as many seeds, from its own on."""
        if self.path is not None:
            return [self]
        seeds = range(self.recipe.seed, self.recipe.seed + max(count, 1))
        return [dataclasses.replace(self, recipe=self.recipe.replace(seed=seed)) for seed in seeds]

    def for_steps(self, steps: int) -> Recipe:
        """The recipe with another length, its schedule fitted to that.

        A shorter run's warm-up is shortened with it; a longer one needs none that is longer.
        """
        before, schedule = self.recipe.num_steps, self.recipe.schedule
        fields: dict[str, Any] = {"num_steps": steps, "num_devices": None}
        fields["schedule.warmup_steps"] = math.ceil(
            schedule.warmup_steps * min(1.0, steps / before)
        )
        if schedule.name == "steps":
            shares = (b if b < 1 else b / before for b in schedule.boundaries)
            fields["schedule.boundaries"] = tuple(shares)
        return self.recipe.replace(**fields)

    @property
    def _is_streamed(self) -> bool:
        return self.recipe.streaming is not None

    def _source(self, split: str) -> datasets.Examples | Records:
        """The split's examples, or, of a streamed run, its records."""
        dataset = self.recipe.dataset
        return _source(dataset, getattr(dataset, split), self._is_streamed)

    @property
    def _normalization(self) -> device_dataset.Normalization:
        """As the run kept it; else of the training split."""
        kept = self.path and trainer.kept_statistics(self.path)
        return kept or _statistics(self.recipe)


def collect(
    workdirs: Sequence[str],
    recipes: Sequence[Recipe] = (),
    data_dir: str | None = None,
    untrained: bool = False,
) -> list[Network]:
    """Networks of runs' folders and of recipes.

    Runs that differ in the seed alone have one label, and are seeds of one network, and so are
    untrained networks; the label of others says in what else they differ: "plain-56,
    max_grad_norm=0.3". All labels say the length, the batch size or the data set where these differ
    among all given runs, or all untrained networks; those of runs that diverged or are not finished
    say so.

    Args:
      workdirs: folders of runs; of a folder that holds runs, all that are finished.
      recipes: of untrained networks.
      data_dir: where the data set is now, if it has moved.
      untrained: take the runs' networks as they were before training, with the weights that they
        were given or, if none, their seeds'.

    Raises:
      InputError: none is given, one is wrong, two are one seed of one network, or two saw other
        data of one data set's name.
    """
    runs = (run for workdir in workdirs for run in runs_of(Path(workdir)))
    paths = {path.resolve(): path for path in runs}.values()
    found: list[tuple[Recipe, Path | None]] = [(load_recipe(path), path) for path in paths]
    found += [(recipe, None) for recipe in recipes]
    if not found:
        raise InputError("give networks: --workdir=RUN, or --config=configs/digits.py:plain-56")
    if data_dir:
        found = [(own.replace(**{"dataset.data_dir": data_dir}), path) for own, path in found]
    for recipe, _ in found:
        check_dataset(recipe)
    if not data_dir:  # else all are asked on the same data
        _refuse_other_data(path for _, path in found if path)
    if untrained:  # Weights that a seed gives need no folder.
        given = lambda recipe: recipe.init_from or recipe.converted_from
        found = [(recipe, path if given(recipe) else None) for recipe, path in found]
    networks = [Network(recipe, path, "", untrained) for recipe, path in found]
    _refuse_one_seed_twice(told_apart(networks, without=["status"]))
    return told_apart(networks)


def told_apart(networks: Sequence[Network], without: Sequence[str] = ()) -> list[Network]:
    """The networks with labels that tell them apart, but for their seeds and fields `without`.

    So are runs that diverged or are not finished, unless "status" is one of these fields.
    """
    return [
        dataclasses.replace(network, label=_distinct(network, networks, without))
        for network in networks
    ]


def runs_of(workdir: Path) -> list[Path]:
    """Of a sweep's folder, its finished runs; else the folder itself."""
    found = find_runs(workdir) if workdir.is_dir() else []
    if any(run.path == workdir for run in found):
        return [workdir]
    return [run.path for run in found if run.summary is not None] or [workdir]


def _distinct(network: Network, networks: Sequence[Network], without: Sequence[str]) -> str:
    """The label, with those other fields whose value no more than half of those beside it have.

    Beside a network are those of its label; in how they were trained, all trained ones. `_ALWAYS`
    are told wherever any two differ in them: such networks are never compared.
    """
    own = label(network.recipe)
    others = [other.recipe for other in networks if other.is_trained == network.is_trained]
    configs = list(map(_what_is_computed, others))
    alike = [config for config, other in zip(configs, others, strict=True) if label(other) == own]
    this, differing = _what_is_computed(network.recipe), naming.differing(configs)
    told = {*differing} & {*_ALWAYS}
    for key in {*differing} if network.is_trained else {*naming.differing(alike)}:
        of_training = network.is_trained and not key.startswith("model.") and key not in WEIGHTS
        values = [naming.as_text(config.get(key)) for config in (configs if of_training else alike)]
        share = values.count(naming.as_text(this.get(key))) / len(values)
        if share <= 0.5 and is_used(key, this):
            told.add(key)
    settings = naming.describe_settings(this, sorted(told - {*without}))
    status = "" if "status" in without else network.status
    if not network.is_trained and any(
        other.is_trained and label(other.recipe) == own for other in networks
    ):
        status = "untrained"
    return ", ".join(filter(None, (own, settings, status)))


def _what_is_computed(recipe: Recipe) -> dict[str, Any]:
    return what_is_computed(naming.flatten(recipe.replace(seed=0).to_dict()))


def _refuse_one_seed_twice(networks: Iterable[Network]) -> None:
    seen: dict[tuple[str, int], Network] = {}
    for network in networks:
        first = seen.setdefault((network.label, network.recipe.seed), network)
        if first is not network:
            places = f"{first.path} and {network.path}" if network.path else "the same config twice"
            raise InputError(
                f"{places}: one seed ({network.recipe.seed}) of {network.label}; give each seed "
                "of a network once"
            )


def _refuse_other_data(runs: Iterable[Path]) -> None:
    """Two image folders may have one name; networks that saw different images are not compared."""
    seen: dict[str, tuple[Path, dict[str, Any]]] = {}
    for run in runs:
        data = read_run(run).info.get("data")
        if not isinstance(data, dict) or difference_of_data(data, data):
            continue  # Of an earlier version, or damaged.
        path, first = seen.setdefault(data["dataset"], (run, data))
        if difference := difference_of_data(first, data):
            raise InputError(
                f"{path} and {run}: trained on different data ({difference}); give runs on the "
                "same, or the folder of the data on which to ask them all with --data_dir"
            )


def expand(
    networks: Iterable[Network], seeds: int, variants: Sequence[dict[str, Any]] = ()
) -> list[Network]:
    """The networks, or untrained `variants` of each; of all that are untrained so many seeds.

    No untrained network comes twice with one seed.
    """
    if variants:
        networks = told_apart([each.variant(**axes) for each in networks for axes in variants])
    expanded = (each for network in networks for each in network.with_seeds(seeds))
    return list({(each.label, each.recipe.seed, each.path): each for each in expanded}.values())


def train_on(
    network: Network, variables: Variables, steps: int, every: int, track: Any = iter
) -> tuple[Variables, list[dict[str, Any]]]:
    """Trains on from `variables` under the network's recipe, its schedule fitted to `steps`.

    Returns:
      The weights, and rows of `at_step`, `loss` and `error`, as the optimiser saw them: means over
      `every` so many steps, counted back from the end, and over what is left at the beginning.

    Raises:
      InputError: the schedule lowers its rate by evaluations, of which there are none here.
    """
    if network.recipe.schedule.name == "plateau":
        raise InputError(
            f"schedule.name='plateau': {network.label} is trained here without the evaluations "
            "that lower its rate; give a network with schedule.name=steps"
        )
    run = trainer.build(network.for_steps(steps).replace(init_from=None))  # `variables` replace it.
    run_steps, data, place = (
        run.make_run_steps(),
        run.splits["train"],
        parallel.replicated(run.mesh),
    )
    # Copies: a step donates its state's memory, and `variables` are the caller's.
    copied = lambda tree: jax.device_put(tree, place, may_alias=False)
    state = run.initial_state().replace(
        params=copied(variables["params"]), batch_stats=copied(variables["batch_stats"])
    )
    rows = []
    for step in track(range(steps)):
        state = run_steps(state, data, step, step + 1)
        if (steps - step - 1) % every == 0:
            window = jax.device_get(state.window)
            count = int(window.num_steps)
            rows.append(
                {"at_step": step + 1, "loss": float(window.loss) / count,
                 "error": float(window.error) / count}
            )  # fmt: skip
            state = state.replace(window=jax.device_put(MetricAccumulator.empty(), place))
    return jax.device_get(state.variables), rows


def label(recipe: Recipe) -> str:
    """E.g. "plain-56, activation=sigmoid, norm=none"."""
    return ", ".join(filter(None, (recipe.model.name, settings(recipe))))


def settings(recipe: Recipe) -> str:
    """What the recipe changes of the network that its name says: "activation=sigmoid"."""
    fields = {
        f"model.{name}": value
        for name, value in recipe.model_overrides.items()
        if name != "bn_group_size"
    }
    return naming.describe_settings(fields, sorted(fields))


def _anew(variables: Variables) -> Variables:
    """Wherever they come from they are alike to `jit`, which then compiles a network once."""
    return jax.device_put(jax.device_get(variables))


def _centres(records: Records, recipe: Recipe, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The centre crops of the first records, uint8, and their labels."""
    first, crops = np.arange(count), trainer.crop_config(recipe)
    upright = bool(recipe.dataset.exif_orientation)
    return streaming.Batches(records, lambda _: first, crops, first, upright=upright)[0]


_source = functools.lru_cache(maxsize=4)(trainer.source)


@functools.lru_cache(maxsize=4)
def _statistics(recipe: Recipe) -> device_dataset.Normalization:
    streamed = recipe.streaming is not None
    return trainer.normalization(recipe, _source(recipe.dataset, recipe.dataset.train, streamed))
