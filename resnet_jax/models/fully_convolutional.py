"""A classifier in its fully convolutional form: the classes' scores at every place of a picture.

The last layer, a linear map of the averaged features, is applied as a 1×1 convolution to the last
feature map instead (v1 §3.4, after Simonyan & Zisserman 2015, §3.2). No weight is added, so every
net of the zoo has this form. Because the layer is linear, the mean of the scores over all places
is what the net itself says of the whole picture.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from resnet_jax.models.architecture import STEMS, Architecture
from resnet_jax.models.resnet import ResNet


class ScoreMap(NamedTuple):
    """What a net says of each place.

    Attributes:
      scores: float32 [batch, rows, columns, classes], logits.
      inside: bool [batch, rows, columns], the places that are of the picture.
    """

    scores: jax.Array
    inside: jax.Array

    def mean(self) -> jax.Array:
        """Logits of the whole pictures, float32 [batch, classes]."""
        return self.scores.mean((1, 2), where=self.inside[..., None])


def output_stride(architecture: Architecture) -> int:
    """Pixels of the picture, each way, for a place of the last feature map."""
    last = STEMS[architecture.stem] * 2 ** (len(architecture.stage_sizes) - 1)
    return min(architecture.output_stride, last)


def with_output_stride(model: ResNet, stride: int) -> ResNet:
    """The same net, with the same weights, whose last map is finer: dilation replaces strides.

    Raises:
      InputError: not one of `architecture.OUTPUT_STRIDES`, or a net that does not dilate.
    """
    return model.clone(architecture=dataclasses.replace(model.architecture, output_stride=stride))


def score_map(
    model: ResNet, variables: Any, images: jax.Array, sizes: jax.Array | None = None
) -> ScoreMap:
    """Applies a net to pictures of any size.

    Args:
      model, variables: the net; its running statistics normalise.
      images: float [batch, height, width, channels], normalised.
      sizes: int32 [batch, 2], the pictures' own heights and widths where `images` are filled up,
        to the right and below, to one size; that must be a whole number of output strides. What
        is filled in changes nothing: every layer sees zeros beyond the picture's edge, as if it
        ended there.
    """
    if sizes is None:
        *_, features = model.apply(variables, images, train=False, features=True)
        inside = jnp.ones(features.shape[:3], bool)
    else:
        full = images.shape[1:3]
        with nn.intercept_methods(_cutting_off(sizes, full)):
            *_, features = model.apply(variables, images, train=False, features=True)
        inside = _inside(sizes, full, features.shape[1:3])
    classifier = variables["params"]["classifier"]
    scores = features.astype(jnp.float32) @ classifier["kernel"] + classifier["bias"]
    return ScoreMap(scores, inside)


def _cutting_off(sizes: jax.Array, full: tuple[int, int]):
    """Hides what lies beyond the pictures' edges from the layers that look beyond one place."""
    # Convolutions pad with zeros, the pooling with −∞. All other layers keep places apart.
    padding = {(nn.Conv, "__call__"): 0.0, (ResNet, "pool"): -jnp.inf}

    def interceptor(call, args, kwargs, context):
        for (kind, method), value in padding.items():
            if isinstance(context.module, kind) and context.method_name == method:
                x, *rest = args
                inside = _inside(sizes, full, x.shape[1:3])
                args = (jnp.where(inside[..., None], x, jnp.asarray(value, x.dtype)), *rest)
        return call(*args, **kwargs)

    return interceptor


def _inside(sizes: jax.Array, full: tuple[int, int], shape: tuple[int, int]) -> jax.Array:
    """Which places of a layer of that shape are of the pictures: bool [batch, *shape]."""
    rows, columns = (
        # A layer with stride s keeps every s-th place from the first on: ⌈n/s⌉ of n.
        jnp.arange(places) < -(-sizes[:, axis, None] // (pixels // places))
        for axis, (pixels, places) in enumerate(zip(full, shape, strict=True))
    )
    return rows[:, :, None] & columns[:, None, :]
