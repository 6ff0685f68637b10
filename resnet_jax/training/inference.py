"""A run's net, to be shown pictures that are not in its data set."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_jax import runs
from resnet_jax.data import datasets, device_dataset, photographs, records, streaming, test_crops
from resnet_jax.data.records import Record
from resnet_jax.errors import InputError
from resnet_jax.models import zoo
from resnet_jax.models.resnet import ResNet
from resnet_jax.runs import recipe
from resnet_jax.runtime import parallel, setup
from resnet_jax.training import streams
from resnet_jax.training.multi_crop import Scorer
from resnet_jax.training.weights import check_shapes, load_weights


@dataclasses.dataclass(frozen=True)
class Trained:
    """A net as a run left it.

    Attributes:
      config: of the run.
      step: of the checkpoint.
      model, variables: the net.
      normalization: of its training images.
      image_shape: (height, width, channels) in which it was shown pictures.
      class_names: by label.
    """

    config: ConfigDict
    step: int
    model: ResNet
    variables: dict[str, Any]
    normalization: device_dataset.Normalization
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    @property
    def size(self) -> int:
        """Pixels of the squares that it was shown."""
        return min(self.image_shape[:2])

    def as_trained(self, picture: np.ndarray) -> np.ndarray:
        """A picture, uint8 [height, width, channels], as the net's test images are.

        Raises:
          InputError: it has another shape, or values of another type.
        """
        channels = self.image_shape[-1]
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != channels:
            raise InputError(
                f"picture of {picture.dtype} {list(picture.shape)}: this net needs "
                f"uint8 [height, width, {channels}]"
            )
        streaming = "streaming" in self.config
        side = self.config.streaming.shorter_side if streaming else self.size
        return test_crops.centre_of(picture, side, self.size)

    def decode(self, record: Record) -> np.ndarray:
        """A picture in the net's colours; raises `InputError`, naming the record."""
        return photographs.decode(record, self.image_shape[-1])

    def scorer(self, average: str = "probabilities", count: int | None = None) -> Scorer:
        """Of as many pixels at a time as a batch of the training had, or as `count` images have."""
        height, width, _ = self.image_shape
        part = self.config.batch_size // self.config.grad_accum_steps
        part = part if count is None else min(part, count)
        mesh = parallel.make_mesh(len(jax.devices()), len(jax.devices()))
        return Scorer(
            self.model,
            self.variables,
            self.normalization,
            mesh,
            pixels=part * height * width,
            average=average,
        )


def load(workdir: Path | str, step: int | None = None, data_dir: str | None = None) -> Trained:
    """Loads a run's net. Of its data set only what is needed: nothing where the mean is constant.

    Args:
      workdir: the run's folder.
      step: of the checkpoint; None for the last one.
      data_dir: where the data set is now, if it has moved.

    Raises:
      InputError: something of it cannot be had.
    """
    workdir = Path(workdir)
    config = recipe.load_config(workdir)
    if data_dir:
        config.dataset.data_dir = data_dir
    setup.prepare()
    saved = load_weights(workdir / "checkpoints", step)
    params = saved.variables["params"]
    channels, num_classes = params["stem"]["kernel"].shape[2], params["classifier"]["bias"].size
    shape, class_names = _describe(config, workdir, channels, num_classes)
    model = zoo.create(
        config.model.name,
        num_classes=num_classes,
        dtype=config.model.dtype,
        **recipe.model_overrides(config),
    )
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    try:
        check_shapes(saved.variables, jax.eval_shape(model.init, jax.random.key(0), image))
    except InputError as error:
        raise InputError(f"{workdir}: not a checkpoint of this network ({error})") from error
    return Trained(
        config=config,
        step=saved.step,
        model=model,
        variables=saved.variables,
        normalization=_normalization(config, shape),
        image_shape=shape,
        class_names=class_names,
    )


def _describe(
    config: ConfigDict, workdir: Path, channels: int, num_classes: int
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """The shape in which the net sees images, and its classes, if need be without the data set."""
    dataset = config.dataset
    names = tuple(runs.read_run(workdir).info.get("class_names", ()))
    shape = dataset.image_size and (dataset.image_size, dataset.image_size, channels)
    if not (shape and names):
        try:
            known = datasets.describe(
                dataset.name, data_dir=dataset.data_dir, image_size=dataset.image_size
            )
        except InputError:
            if not shape:
                raise
            known = datasets.Description(shape, ())
        shape, names = shape or known.image_shape, names or known.class_names
    if len(names) != num_classes:
        names = tuple(f"class {label}" for label in range(num_classes))
    return shape, names


def _normalization(config: ConfigDict, shape: tuple[int, int, int]) -> device_dataset.Normalization:
    dataset = config.dataset
    if not {dataset.mean, dataset.std} - {"none", *device_dataset.CONSTANTS}:
        nothing = np.zeros((1, *shape), np.uint8)
        return device_dataset.normalization(nothing, dataset.mean, dataset.std)
    if "streaming" in config:
        training = records.open(dataset.name, dataset.train, dataset.data_dir)
        return streaming.normalization(training, streams.framing(config), dataset.mean, dataset.std)
    images = datasets.load(
        dataset.name, dataset.train, data_dir=dataset.data_dir, image_size=dataset.image_size
    ).images
    return device_dataset.normalization(images, dataset.mean, dataset.std)
