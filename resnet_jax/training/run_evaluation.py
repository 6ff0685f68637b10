"""What a run's net says of a split, and how often it errs: what `experiments.evaluate` does."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.special import log_softmax

from resnet_jax import runs
from resnet_jax.data import device_dataset, photographs
from resnet_jax.data.test_crops import VIEWS, cut
from resnet_jax.errors import InputError, check_choice
from resnet_jax.models.batch_norm_recalibration import mean_over_groups
from resnet_jax.models.resnet import ResNet
from resnet_jax.reporting import confusion
from resnet_jax.runs import recipe
from resnet_jax.runtime import parallel
from resnet_jax.training import inference, trainer
from resnet_jax.training.checkpoints import Checkpoints
from resnet_jax.training.evaluation import make_score
from resnet_jax.training.multi_crop import AVERAGES


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a net says of each example of a split.

    Attributes:
      about: what was evaluated, for the figures.
      logits: float32 [examples, classes].
      labels: int32 [examples].
      class_names: by label.
    """

    about: dict[str, Any]
    logits: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def figures(self) -> dict[str, Any]:
        """Mean cross-entropy `loss`, `error` (a fraction), and what they are of."""
        likely = log_softmax(self.logits.astype(np.float64), axis=-1)
        loss = -likely[np.arange(len(self.labels)), self.labels].mean()
        error = np.mean(self.answers != self.labels)
        return {
            **self.about, "loss": float(loss), "error": float(error), "examples": len(self.labels)
        }  # fmt: skip

    @property
    def answers(self) -> np.ndarray:
        """The most likely classes, [examples]."""
        return self.logits.argmax(-1)


def answer(
    workdir: Path,
    split: str,
    *,
    step: int | None = None,
    data_dir: str | None = None,
    view: str | None = None,
    average: str = "probabilities",
    recalibrate_batch_norm: bool = False,
) -> Answers:
    """Shows a run's net a split.

    Args:
      workdir: the run's folder.
      split: "train", "validation" or "test".
      step: of the checkpoint; None for the last one.
      data_dir: where the data set is now, if it has moved.
      view: one of `VIEWS`; None for the images as the net was shown them.
      average: over the view's crops, see `multi_view`.
      recalibrate_batch_norm: whether statistics over the training split replace running averages.

    Raises:
      InputError: something of it cannot be had.
    """
    check_choice("average", average, AVERAGES)
    if view is not None:
        check_choice("test_crops", view, VIEWS)
    config = recipe.load_config(workdir)
    config.num_devices = None  # Those of this machine, not of the one that trained.
    config.update(parallel="jit", deterministic=False, onednn=False)  # They concern training alone.
    if data_dir:
        config.dataset.data_dir = data_dir
    given = [name for name in ("train", "validation", "test") if config.dataset[name]]
    check_choice("split", split, given)
    show = _show_images if view is None else functools.partial(_show_view, view, average)
    return show(config, workdir, split, step, recalibrate_batch_norm)


def write_confusion(answers: Answers, folder: Path) -> None:
    """Writes confusion.csv and confusion.png into a folder."""
    names, figures = answers.class_names, answers.figures()
    counts = confusion.count(answers.labels, answers.answers, len(names))
    title = f"{figures['model']}, {figures['split']} split"
    runs.write_text(folder / "confusion.csv", confusion.to_csv(counts, names))
    (folder / "confusion.png").write_bytes(confusion.to_picture(counts, names, title))


def _show_images(
    config: ConfigDict, workdir: Path, split: str, step: int | None, recalibrate_batch_norm: bool
) -> Answers:
    """The images of a split as the net is shown them in training."""
    run = trainer.build(config)
    known = runs.read_run(workdir).info.get("class_names")
    _check_classes(known or run.class_names, run.class_names)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(run.state_template(), step)
    variables, about = state.variables, _about(config, split, int(state.step))
    if recalibrate_batch_norm:
        data, sharded = run.splits["train"], parallel.sharded(run.mesh)
        look = jax.jit(lambda data, inputs: data.plain(inputs)[0])
        batches = (
            look(data.on_devices, parallel.place(inputs, sharded))[: mask.sum()]
            for inputs, mask in data.evaluation_inputs(config.batch_size)
        )
        variables, about["groups"] = _recompute(config, run.model, variables, batches, len(data))
    score = make_score(run.model, run.mesh, config.batch_size)
    logits, labels = score(variables, run.splits[split])
    return Answers(about, logits, labels, run.class_names)


def _show_view(
    view: str,
    average: str,
    config: ConfigDict,
    workdir: Path,
    split: str,
    step: int | None,
    recalibrate_batch_norm: bool,
) -> Answers:
    """The pictures of a split, read anew and cut as the view says."""
    dataset = config.dataset
    where = {"data_dir": dataset.data_dir, "image_size": dataset.image_size}
    try:
        pictures = photographs.open(dataset.name, dataset[split], **where)
    except photographs.OneSize as error:
        raise InputError(f"test_crops={view!r}: {error}") from error
    net = inference.load(workdir, step, dataset.data_dir)
    _check_classes(net.class_names, pictures.class_names)
    about = _about(config, split, net.step)
    if recalibrate_batch_norm:
        training = photographs.open(dataset.name, dataset.train, **where)
        squares = photographs.read_ahead(
            lambda i: net.as_trained(net.decode(training[i])), len(training)
        )
        batches = _normalized_batches(squares, net.normalization, config.batch_size)
        found, about["groups"] = _recompute(
            config, net.model, net.variables, batches, len(training)
        )
        net = dataclasses.replace(net, variables=found)
    labels = np.empty(len(pictures), np.int32)

    def crops(index: int) -> list[np.ndarray]:
        record = pictures[index]
        labels[index] = record.label
        return cut(net.decode(record), VIEWS[view], net.size)

    logits = net.scorer(average)(photographs.read_ahead(crops, len(pictures)))
    return Answers({**about, "test_crops": view}, logits, labels, pictures.class_names)


def _check_classes(known: Sequence[str], found: Sequence[str]) -> None:
    """The labels of a data set that has moved must still mean what they meant in training."""
    if len(known) != len(found):
        raise InputError(f"dataset: has {len(found)} classes; the net tells {len(known)} apart")
    for label, (name, now) in enumerate(zip(known, found, strict=True)):
        if name != now:
            raise InputError(f"dataset: class {label} is {now!r}; the net was trained on {name!r}")


def _about(config: ConfigDict, split: str, step: int) -> dict[str, Any]:
    return {"model": config.model.name, "split": split, "step": step}


def _normalized_batches(
    squares: Iterator[np.ndarray], normalization: device_dataset.Normalization, size: int
) -> Iterator[jax.Array]:
    while batch := list(itertools.islice(squares, size)):
        yield device_dataset.normalize(np.stack(batch), normalization)


def _recompute(
    config: ConfigDict,
    model: ResNet,
    variables: Any,
    batches: Iterable[jax.Array],
    num_examples: int,
) -> tuple[dict[str, Any], int]:
    """The variables with true averages for statistics, and of how many groups they are.

    The groups are those of the training split in its order, without augmentation. What is left
    after the last whole group, less than one, has no part in them.
    """
    group = recipe.bn_group_size(config)
    if num_examples < group:
        raise InputError(
            f"recalibrate_batch_norm: the {num_examples} training examples are less than one "
            f"group of {group}"
        )
    grouped = model.clone(architecture=dataclasses.replace(model.architecture, bn_group_size=group))
    whole = (images[: len(images) // group * group] for images in batches)
    found = mean_over_groups(grouped, variables, (images for images in whole if len(images)))
    return found, num_examples // group
