"""A run's network as a program that runs without this library, in StableHLO or ONNX.

A program takes images as they are, uint8 [batch, height, width, channels] of the size that the
network was trained on, normalises them as in evaluation, and returns logits, float32 [batch,
classes]. The size of the batch is open. With JAX and flatbuffers:

    program = jax.export.deserialize(bytearray(Path("resnet-20.stablehlo").read_bytes()))
    logits = program.call(images)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.export
import numpy as np

from resnet_jax.data.device_dataset import normalize
from resnet_jax.errors import InputError
from resnet_jax.runtime import cpu
from resnet_jax.training.inference import LoadedModel

SUFFIXES = (".stablehlo", ".onnx")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""On which a StableHLO program runs."""


def serialize(loaded: LoadedModel, suffix: str) -> bytes:
    """The network's program as a file holds it.

    Args:
      loaded: the network, of `inference.load`.
      suffix: ".stablehlo", for `jax.export.deserialize`, or ".onnx".

    Raises:
      InputError: jax2onnx is needed and missing, or does not carry the network.
    """
    if suffix == ".onnx" and loaded.model.architecture.stem == "imagenet":
        raise InputError(
            ".onnx: jax2onnx does not carry the padded max-pool of ImageNet stems; write a "
            ".stablehlo file"
        )

    def logits(images: jax.Array) -> Any:
        pixels = normalize(images, loaded.normalization)
        return loaded.model.apply(loaded.variables, pixels, train=False)

    shape = (*jax.export.symbolic_shape("batch"), *loaded.image_shape)
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    with cpu.as_jax_has_it():  # The program may run on an accelerator.
        if suffix == ".onnx":
            return _to_onnx()(logits, [images]).SerializeToString()
        return bytes(jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images).serialize())


def _to_onnx() -> Callable[..., Any]:
    try:
        from jax2onnx import to_onnx
    except ModuleNotFoundError as error:
        raise InputError(
            ".onnx files need jax2onnx, which is not installed: pip install jax2onnx, or write a "
            ".stablehlo file"
        ) from error
    return to_onnx
