"""What a run's net says of files of pictures: what `experiments.predict` does."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from resnet_jax.data import datasets, device_dataset, image_folder
from resnet_jax.data.image_ops import TEST_CROPS, cut, resize
from resnet_jax.errors import InputError
from resnet_jax.models.fully_convolutional import output_stride, with_output_stride
from resnet_jax.reporting import localization
from resnet_jax.training.class_activation import Box, box, class_activation_map, enlarge
from resnet_jax.training.inference import Trained
from resnet_jax.training.multi_crop import filled_shape

AT_ONCE = 256  # files between two lots of lines


@dataclasses.dataclass(frozen=True)
class Found:
    """What the net says of one file, or why it says nothing.

    Attributes:
      file: its path, as given.
      classes: names and probabilities, the most likely first.
      box: where the first class is seen, if that was asked for and is anywhere.
      map: the drawing.
      mistake: one line, or "".
    """

    file: Path
    classes: tuple[tuple[str, float], ...] = ()
    box: Box | None = None
    map: Path | None = None
    mistake: str = ""

    def to_line(self) -> str:
        likely = ", ".join(f"{name} {100 * share:.1f}%" for name, share in self.classes)
        where = f"; in {list(self.box)}" if self.box else ""
        return f"{self.file}: {likely}{where}"

    def to_json(self) -> str:
        if self.mistake:
            return json.dumps({"file": str(self.file), "error": self.mistake})
        classes = [{"class": name, "probability": share} for name, share in self.classes]
        record = {"file": str(self.file), "classes": classes}
        if self.map:
            record |= {"box": self.box and self.box._asdict(), "map": str(self.map)}
        return json.dumps(record)


class Maps:
    """Draws where a net sees a class, into a folder.

    Args:
      net: the net.
      folder: made with the first drawing.
      stride: pixels a place of the map; None for the net's own.

    Raises:
      InputError: the net has no such stride.
    """

    def __init__(self, net: Trained, folder: Path, stride: int | None):
        self._net, self._folder, self._names = net, folder, set()
        self._model = net.model if stride is None else with_output_stride(net.model, stride)

    def draw(self, file: Path, picture: np.ndarray, label: int, probability: float):
        """Draws a picture, uint8 [height, width, channels]; returns the box and the drawing."""
        scaled = resize(picture, self._net.size)
        seen, stride = scaled.shape[:2], output_stride(self._model.architecture)
        grain = output_stride(self._net.model.architecture)
        full = [-(-side // grain) * grain for side in filled_shape(*seen, grain)]
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
        drawing = localization.to_picture(
            picture, map, found, self._net.class_names[label], probability
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / self._name(file)
        path.write_bytes(drawing)
        return found, path

    def _name(self, file: Path) -> str:
        """The file's own name, with a number if another file has had it."""
        name, number = f"{file.stem}.png", 1
        while name in self._names:
            number += 1
            name = f"{file.stem}-{number}.png"
        self._names.add(name)
        return name


def predict(
    net: Trained, files: Sequence[Path], top: int, *, view: str | None, maps: Maps | None
) -> Iterator[Found]:
    """What the net says of each file, in turn."""
    scorer = net.scorer(count=len(files))
    for start in range(0, len(files), AT_ONCE):
        part = files[start : start + AT_ONCE]
        pictures = list(datasets.read_ahead(lambda i, part=part: _read(net, part[i]), len(part)))
        whole = [picture for picture in pictures if not isinstance(picture, InputError)]
        crops = [_crops(net, picture, view) for picture in whole]
        probabilities = iter(np.exp(scorer(crops)) if crops else ())
        for file, picture in zip(part, pictures, strict=True):
            if isinstance(picture, InputError):
                yield Found(file, mistake=" ".join(str(picture).split()))
                continue
            likely = next(probabilities)
            labels = np.argsort(-likely, kind="stable")[:top]
            found, drawing = None, None
            if maps:
                found, drawing = maps.draw(file, picture, labels[0], likely[labels[0]])
            classes = tuple((net.class_names[label], float(likely[label])) for label in labels)
            yield Found(file, classes, found, drawing)


def _read(net: Trained, file: Path) -> np.ndarray | InputError:
    try:
        return net.decode(image_folder.read_file(file), upright=True)
    except InputError as error:
        return error


def _crops(net: Trained, picture: np.ndarray, view: str | None) -> list[np.ndarray]:
    return [net.as_trained(picture)] if view is None else cut(picture, TEST_CROPS[view], net.size)
