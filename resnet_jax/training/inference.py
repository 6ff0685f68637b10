"""What a run's network says: of images, of files, and of a split of its data set."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from resnet_jax import runs
from resnet_jax.data import datasets, device_dataset, image_folder, image_ops
from resnet_jax.data.image_ops import TEST_CROPS, EncodedImage, cut, resize
from resnet_jax.data.splits import SPLITS
from resnet_jax.errors import InputError, check_choice
from resnet_jax.models.batch_norm import recalibrate
from resnet_jax.models.fully_convolutional import output_stride, with_output_stride
from resnet_jax.models.resnet import ResNet
from resnet_jax.runs import Recipe, load_recipe
from resnet_jax.runtime import parallel
from resnet_jax.training import trainer
from resnet_jax.training.checkpoints import (
    Checkpoints,
    check_finite,
    check_shapes,
    load_weights,
)
from resnet_jax.training.class_activation import Box, box, class_activation_map, enlarge
from resnet_jax.training.evaluation import make_predict_logits
from resnet_jax.training.multi_crop import (
    AVERAGES,
    MultiCropPredictor,
    check_image,
    filled_shape,
)
from resnet_jax.training.step import wrong

Draw = Callable[[np.ndarray, np.ndarray, Box | None, str, float], bytes]

AT_ONCE = 256  # files between two lots of lines
AT_ONCE_WHOLE = 8  # of which the pictures, perhaps photographs of tens of MB, are kept for drawings


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A network as a run left it.

    Attributes:
      recipe: of the run.
      step: of the checkpoint.
      model, variables: the network.
      normalization: of its training images.
      image_shape: (height, width, channels) in which it was shown images.
      class_names: by label.
    """

    recipe: Recipe
    step: int
    model: ResNet
    variables: dict[str, Any]
    normalization: device_dataset.Normalization
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    @property
    def size(self) -> int:
        """Pixels of the squares that it was shown; of rectangles, of their shorter side."""
        return min(self.image_shape[:2])

    def as_trained(self, picture: np.ndarray) -> np.ndarray:
        """An image, uint8 [height, width, channels], as the network's test images are.

        Raises:
          InputError: it has another shape, or values of another type; or the network was shown
            rectangles and the image is no such one.
        """
        check_image(picture, self.image_shape[-1])
        height, width, _ = self.image_shape
        if height != width:
            if picture.shape != self.image_shape:
                raise InputError(
                    f"an image of {picture.shape[0]}×{picture.shape[1]}; the network takes those "
                    f"of {height}×{width}"
                )
            return picture
        streaming = self.recipe.streaming
        side = streaming.shorter_side if streaming else self.size
        return image_ops.centre_square(picture, self.size, side)

    def decode(self, image: EncodedImage, *, upright: bool) -> np.ndarray:
        """An image in the network's colours; raises `InputError`, naming the image."""
        return image.decode(self.image_shape[-1], upright=upright)

    def predictor(
        self, average: str = "probabilities", count: int | None = None
    ) -> MultiCropPredictor:
        """Of as many pixels at a time as a batch of the training had, or as `count` images have."""
        height, width, _ = self.image_shape
        part = self.recipe.part_size
        part = part if count is None else min(part, count)
        mesh = parallel.make_mesh(len(parallel.devices()), len(parallel.devices()))
        return MultiCropPredictor(
            self.model,
            self.variables,
            self.normalization,
            mesh,
            pixels=part * height * width,
            average=average,
        )


def load(workdir: Path | str, step: int | None = None, data_dir: str | None = None) -> LoadedModel:
    """Loads a run's network; of its data set what is needed: nothing where the mean is constant.

    It may be called at any time, also after JAX has computed.

    Args:
      workdir: the run's folder.
      step: of the checkpoint; None for the last one.
      data_dir: where the data set is now, if it has moved.

    Raises:
      InputError: something of it cannot be loaded.
    """
    workdir = Path(workdir)
    recipe = load_recipe(workdir)
    if data_dir:
        recipe = recipe.replace(**{"dataset.data_dir": data_dir})
    saved = load_weights(workdir / "checkpoints", step)
    params = saved.variables["params"]
    channels, num_classes = params["stem"]["kernel"].shape[2], params["classifier"]["bias"].size
    shape, class_names = _describe(recipe, workdir, channels, num_classes)
    model = ResNet(recipe.architecture, jnp.dtype(recipe.model.dtype), num_classes=num_classes)
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    try:
        check_shapes(saved.variables, jax.eval_shape(model.init, jax.random.key(0), image))
    except InputError as error:
        raise InputError(f"{workdir}: not a checkpoint of this network ({error})") from error
    return LoadedModel(
        recipe=recipe,
        step=saved.step,
        model=model,
        variables=saved.variables,
        normalization=trainer.kept_statistics(workdir) or normalization(recipe, shape),
        image_shape=shape,
        class_names=class_names,
    )


def _describe(
    recipe: Recipe, workdir: Path, channels: int, num_classes: int
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """In what shape the network sees images, and its classes; without the data set if known."""
    dataset = recipe.dataset
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
            known = datasets.DatasetInfo(shape, (), {})
        shape, names = shape or known.image_shape, names or known.class_names
    assert shape  # that of a run's images is known
    if len(names) != num_classes:
        names = tuple(f"class {label}" for label in range(num_classes))
    return shape, names


def _check_has_data(recipe: Recipe) -> None:
    folder = recipe.dataset.data_dir
    if folder is not None and not Path(folder).is_dir():
        raise InputError(
            f"data_dir={folder!r}: no such folder; if the run's data set has moved, name its "
            "folder with --data_dir"
        )


def reads_training_split(recipe: Recipe) -> bool:
    """Whether the normalisation is computed from the training split."""
    return bool({recipe.dataset.mean, recipe.dataset.std} - {"none", *device_dataset.CONSTANTS})


def normalization(recipe: Recipe, shape: tuple[int, int, int]) -> device_dataset.Normalization:
    """The recipe's, of images of (height, width, channels); reads the training split if needed.

    Raises:
      InputError: the split is needed and cannot be read.
    """
    dataset = recipe.dataset
    if not reads_training_split(recipe):
        nothing = np.zeros((1, *shape), np.uint8)
        return device_dataset.normalization(nothing, dataset.mean, dataset.std)
    _check_has_data(recipe)
    return trainer.normalization(
        recipe, trainer.source(dataset, dataset.train, bool(recipe.streaming))
    )


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the network says of one file, or why it says nothing.

    Attributes:
      file: its path, as given.
      classes: names and probabilities, the most likely first.
      box: where the first class is seen, if that was asked for and is anywhere.
      map: the drawing.
      error: one line, or "".
    """

    file: Path
    classes: tuple[tuple[str, float], ...] = ()
    box: Box | None = None
    map: Path | None = None
    error: str = ""

    def to_line(self) -> str:
        likely = ", ".join(f"{name} {100 * share:.1f}%" for name, share in self.classes)
        where = f"; in {list(self.box)}" if self.box else ""
        return f"{self.file}: {likely}{where}"

    def to_json(self) -> str:
        if self.error:
            return json.dumps({"file": str(self.file), "error": self.error})
        classes = [{"class": name, "probability": share} for name, share in self.classes]
        record: dict[str, Any] = {"file": str(self.file), "classes": classes}
        if self.map:
            record |= {"box": self.box and self.box._asdict(), "map": str(self.map)}
        return json.dumps(record)


class CamDrawer:
    """Draws where a network sees a class, into a folder.

    Args:
      net: the network.
      folder: made with the first drawing.
      stride: pixels a place of the map; None for the network's own.
      draw: makes the drawing, as `reporting.predictions.draw_map` does.
      files: all that may be drawn.

    Raises:
      InputError: the network has no such stride, or the folder has a file, perhaps one of the
        images, that a drawing would replace.
    """

    def __init__(
        self,
        net: LoadedModel,
        folder: Path,
        stride: int | None,
        draw: Draw,
        files: Sequence[Path],
    ):
        self._net, self._draw = net, draw
        self._targets = _targets(folder, files)
        self._model = net.model if stride is None else with_output_stride(net.model, stride)

    def draw(self, file: Path, picture: np.ndarray, label: int, probability: float):
        """Draws an image, uint8 [height, width, channels]; returns the box and the drawing."""
        scaled = resize(picture, self._net.size)
        seen, stride = scaled.shape[:2], output_stride(self._model.architecture)
        grain = output_stride(self._net.model.architecture)
        full = [-(-side // grain) * grain for side in filled_shape(seen[0], seen[1], grain)]
        image = np.zeros((*full, scaled.shape[-1]), np.float32)
        image[: seen[0], : seen[1]] = device_dataset.normalize(
            scaled, self._net.normalization.uniform()
        )
        (places,) = class_activation_map(
            self._model, self._net.variables, image[None], np.array([label]), np.array([seen])
        )
        own = np.asarray(places)[: -(-seen[0] // stride), : -(-seen[1] // stride)]
        map = enlarge(own, self._model, seen, picture.shape[:2])
        found = box(map)
        drawing = self._draw(picture, map, found, self._net.class_names[label], probability)
        path = self._targets[file]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawing)
        return found, path


def _targets(folder: Path, files: Sequence[Path]) -> dict[Path, Path]:
    """Where each file's drawing goes: its own name, with a number if another file has that."""
    targets: dict[Path, Path] = {}
    names: set[str] = set()
    for file in dict.fromkeys(files):
        name, number = f"{file.stem}.png", 1
        while name.casefold() in names:  # some disks take A.png and a.png for one
            number += 1
            name = f"{file.stem}-{number}.png"
        names.add(name.casefold())
        targets[file] = folder / name
        if targets[file].exists():
            raise InputError(f"cam_dir={str(folder)!r}: holds {name} already; name a new folder")
    return targets


def predict(
    net: LoadedModel, files: Sequence[Path], top: int, *, view: str | None, cams: CamDrawer | None
) -> Iterator[Prediction]:
    """What the network says of each file, in turn."""
    height, width, _ = net.image_shape
    if height != width and (view or cams):
        raise InputError(
            f"{'test_crops' if view else 'cam_dir'}: the network was shown images of {height}×"
            f"{width}, and this is for squares"
        )
    at_once = AT_ONCE_WHOLE if cams else AT_ONCE
    predictor = net.predictor(count=min(at_once, len(files)))

    def look(file: Path) -> tuple[np.ndarray | None, list[np.ndarray]] | InputError:
        picture = _read(net, file)
        if isinstance(picture, InputError):
            return picture
        try:
            return picture if cams else None, _crops(net, picture, view)
        except InputError as error:
            return error

    def predict_some(part: Sequence[Path]) -> Iterator[Prediction]:
        """Of so many files that their images fit in memory together."""
        seen = list(datasets.read_ahead(lambda i: look(part[i]), len(part)))
        crops = [one[1] for one in seen if not isinstance(one, InputError)]
        probabilities: Iterator[np.ndarray] = iter(np.exp(predictor(crops)) if crops else ())
        for file, one in zip(part, seen, strict=True):
            if isinstance(one, InputError):
                yield Prediction(file, error=" ".join(str(one).split()))
                continue
            likely = next(probabilities)
            labels = np.argsort(-likely, kind="stable")[:top]
            found, drawing = None, None
            if cams:
                picture, _ = one
                assert picture is not None  # kept for this
                found, drawing = cams.draw(file, picture, labels[0], likely[labels[0]])
            classes = tuple((net.class_names[label], float(likely[label])) for label in labels)
            yield Prediction(file, classes, found, drawing)

    for start in range(0, len(files), at_once):
        yield from predict_some(files[start : start + at_once])


def _read(net: LoadedModel, file: Path) -> np.ndarray | InputError:
    # As in training. But of others' sets few images are tagged, whatever training made of those.
    upright = net.recipe.dataset.exif_orientation or not net.recipe.has_own_images
    try:
        return net.decode(image_folder.read_file(file), upright=upright)
    except InputError as error:
        return error


def _crops(net: LoadedModel, picture: np.ndarray, view: str | None) -> list[np.ndarray]:
    return [net.as_trained(picture)] if view is None else cut(picture, TEST_CROPS[view], net.size)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a network says of each example of a split.

    Attributes:
      about: what was evaluated, for the metrics.
      logits: float32 [examples, classes].
      labels: int32 [examples].
      class_names: by label.
    """

    about: dict[str, Any]
    logits: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def metrics(self) -> dict[str, Any]:
        """Mean cross-entropy `loss`, `error` (a fraction), and what they are of.

        An example whose loss is not finite counts as an error.
        """
        likely = log_softmax(self.logits.astype(np.float64), axis=-1)
        losses = -likely[np.arange(len(self.labels)), self.labels]
        return {
            **self.about,
            "loss": float(losses.mean()),
            "error": float(np.mean(wrong(self.logits, self.labels))),
            "examples": len(self.labels),
        }

    @property
    def classes(self) -> np.ndarray:
        """The most likely classes, [examples].

        Raises:
          InputError: logits that are NaN name none.
        """
        if lost := int(np.isnan(self.logits).any(-1).sum()):
            raise InputError(
                f"{self.about['model']}: of {lost} of {len(self.labels)} examples the logits are "
                "NaN, which name no class"
            )
        return self.logits.argmax(-1)


def evaluate(
    workdir: Path,
    split: str,
    *,
    step: int | None = None,
    data_dir: str | None = None,
    view: str | None = None,
    average: str = "probabilities",
    recalibrate_batch_norm: bool = False,
) -> Predictions:
    """Shows a run's network a split.

    Args:
      workdir: the run's folder.
      split: "train", "validation" or "test", as the config has them, or a slice of the data set in
        TFDS's syntax, such as "train[:1000]".
      step: of the checkpoint; None for the last one.
      data_dir: where the data set is now, if it has moved.
      view: one of `TEST_CROPS`; None for the images as the network was shown them.
      average: over the view's crops, see `multi_crop`.
      recalibrate_batch_norm: whether statistics over the training split replace running averages.

    Raises:
      InputError: something of it cannot be loaded, or not all of the network's batch norms have
        running averages.
    """
    check_choice("average", average, AVERAGES)
    if view is not None:
        check_choice("test_crops", view, TEST_CROPS)
    recipe = load_recipe(workdir)
    # The devices are this machine's, not those of the one that trained.
    recipe = recipe.replace(num_devices=None, parallel="jit")
    if recalibrate_batch_norm:
        _check_recalibrates(recipe)
    if data_dir:
        recipe = recipe.replace(**{"dataset.data_dir": data_dir})
    _check_has_data(recipe)
    name = split
    if split.isidentifier() or not split:
        check_choice("split", split, [name for name in SPLITS if getattr(recipe.dataset, name)])
    else:
        name, recipe = "test", recipe.replace(**{"dataset.test": split})
    if view is None:
        found = _predict_images(recipe, workdir, name, step, recalibrate_batch_norm)
    else:
        found = _predict_crops(view, average, recipe, workdir, name, step, recalibrate_batch_norm)
    # Last: what is refused is refused in one line.
    _tell_of_other_data(recipe, workdir, {name, "train"} if recalibrate_batch_norm else {name})
    return dataclasses.replace(found, about={**found.about, "split": split})


def _predict_images(
    recipe: Recipe, workdir: Path, split: str, step: int | None, recalibrate_batch_norm: bool
) -> Predictions:
    """The images of a split as the network is shown them in training."""
    statistics = trainer.kept_statistics(workdir)
    needs_training = recalibrate_batch_norm or statistics is None
    needed = {split, *(("train",) if needs_training else ())}
    run = trainer.build(recipe, trainer.load_data(recipe, statistics, needed))
    known = runs.read_run(workdir).info.get("class_names")
    _check_classes(known or run.class_names, run.class_names)
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(run.state_template(), step)
    variables, about = state.variables, _about(recipe, split, int(state.step))
    check_finite(variables, workdir / "checkpoints" / str(state.step))
    if recalibrate_batch_norm:
        data, sharded = run.splits["train"], parallel.sharded(run.mesh)
        look = jax.jit(lambda data, inputs: data.plain(inputs)[0])
        batches = (
            look(data.on_devices, parallel.device_put_global(inputs, sharded))[: mask.sum()]
            for inputs, mask in data.evaluation_inputs(recipe.batch_size)
        )
        variables, about["groups"] = _recompute(recipe, run.model, variables, batches, len(data))
    predict_logits = make_predict_logits(run.model, run.mesh, recipe.batch_size)
    logits, labels = predict_logits(variables, run.splits[split])
    return Predictions(about, logits, labels, run.class_names)


def _predict_crops(
    view: str,
    average: str,
    recipe: Recipe,
    workdir: Path,
    split: str,
    step: int | None,
    recalibrate_batch_norm: bool,
) -> Predictions:
    """The images of a split, read anew and cut as the view says."""
    dataset = recipe.dataset
    upright = bool(dataset.exif_orientation)
    try:
        pictures = datasets.open_images(
            dataset.name, getattr(dataset, split), data_dir=dataset.data_dir
        )
    except datasets.OneSize as error:
        raise InputError(f"test_crops={view!r}: {error}") from error
    net = load(workdir, step, dataset.data_dir)
    _check_classes(net.class_names, pictures.class_names)
    about = _about(recipe, split, net.step)
    if recalibrate_batch_norm:
        training = datasets.open_images(dataset.name, dataset.train, data_dir=dataset.data_dir)
        squares = datasets.read_ahead(
            lambda i: net.as_trained(net.decode(training[i], upright=upright)), len(training)
        )
        batches = _normalized_batches(squares, net.normalization, recipe.batch_size)
        found, about["groups"] = _recompute(
            recipe, net.model, net.variables, batches, len(training)
        )
        net = dataclasses.replace(net, variables=found)
    labels = np.empty(len(pictures), np.int32)

    def crops(index: int) -> list[np.ndarray]:
        record = pictures[index]
        labels[index] = record.label
        return cut(net.decode(record, upright=upright), TEST_CROPS[view], net.size)

    logits = net.predictor(average)(datasets.read_ahead(crops, len(pictures)))
    return Predictions({**about, "test_crops": view}, logits, labels, pictures.class_names)


def _tell_of_other_data(recipe: Recipe, workdir: Path, used: Collection[str]) -> None:
    """Says on stderr if a split that is used is not what it was when the run began."""
    kept, dataset = runs.read_run(workdir).info.get("data"), recipe.dataset
    if kept:
        specs = [getattr(dataset, split) for split in sorted(used)]
        now = datasets.fingerprint(dataset.name, specs, dataset.data_dir)
        if difference := datasets.compare_fingerprints(kept, now):
            print(f"note: other data than in training: {difference}", file=sys.stderr)


def _check_classes(known: Sequence[str], found: Sequence[str]) -> None:
    """The labels of a data set that has moved must still mean what they meant in training."""
    if len(known) != len(found):
        raise InputError(f"dataset: has {len(found)} classes; the model has {len(known)}")
    for label, (name, now) in enumerate(zip(known, found, strict=True)):
        if name != now:
            raise InputError(
                f"dataset: class {label} is {now!r}; the network was trained on {name!r}"
            )


def _about(recipe: Recipe, split: str, step: int) -> dict[str, Any]:
    return {"model": recipe.model.name, "split": split, "step": step}


def _normalized_batches(
    squares: Iterator[np.ndarray], normalization: device_dataset.Normalization, size: int
) -> Iterator[jax.Array]:
    while batch := list(itertools.islice(squares, size)):
        yield device_dataset.normalize(np.stack(batch), normalization)


def _check_recalibrates(recipe: Recipe) -> None:
    """Raises `InputError` unless there are batch norms, and all averaged in training."""
    if recipe.architecture.norm == "none":
        raise InputError(
            "recalibrate_batch_norm=True: a network with model.norm='none' has no batch norm"
        )
    # Every part has some; its statistics were constants, to which the others' weights are fitted.
    if recipe.frozen_parts:
        raise InputError(
            "recalibrate_batch_norm=True: the run kept the batch norms of "
            f"freeze={recipe.freeze!r} at given statistics, and with others its network would be "
            "one that nobody trained; evaluate it as it is"
        )


def _recompute(
    recipe: Recipe,
    model: ResNet,
    variables: Any,
    batches: Iterable[jax.Array],
    num_examples: int,
) -> tuple[dict[str, Any], int]:
    """The variables with true averages for statistics, and of how many groups they are.

    The groups are those of the training split in its order, without augmentation. What is left
    after the last whole group, less than one, has no part in them.
    """
    group = recipe.bn_group_size
    if num_examples < group:
        raise InputError(
            f"recalibrate_batch_norm: the {num_examples} training examples are less than one "
            f"group of {group}"
        )
    grouped = model.clone(architecture=dataclasses.replace(model.architecture, bn_group_size=group))
    whole = (images[: len(images) // group * group] for images in batches)
    found = recalibrate(grouped, variables, (images for images in whole if len(images)))
    return found, num_examples // group
