"""A classifier in its fully convolutional form: the classes' scores at every place of an image.

The last layer, a linear map of the averaged features, is applied as a 1×1 convolution to the last
feature map instead (v1 §3.4, after Simonyan & Zisserman 2015, §3.2). No weight is added, so every
network of the zoo has this form. Because the layer is linear, the mean of the scores over all
places is what the network itself says of the whole image.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from resnet_jax.models.architecture import STEMS, Architecture
from resnet_jax.models.resnet import ResNet


class ScoreMap(NamedTuple):
    """What a network says of each place.

    Attributes:
      scores: float32 [batch, rows, columns, classes], logits.
      inside: bool [batch, rows, columns], the places inside the image.
    """

    scores: jax.Array
    inside: jax.Array

    def mean(self) -> jax.Array:
        """Logits of the whole images, float32 [batch, classes]."""
        return self.scores.mean((1, 2), where=self.inside[..., None])


def output_stride(architecture: Architecture) -> int:
    """Pixels of the image, each way, for one place of the last feature map."""
    last = STEMS[architecture.stem] * 2 ** (len(architecture.stage_sizes) - 1)
    return min(architecture.output_stride, last)


def with_output_stride(model: ResNet, stride: int) -> ResNet:
    """The same network, with the same weights, whose last map is finer: dilation replaces strides.

    Raises:
      InputError: not one of the strides in `CHOICES`, or a network that does not dilate.
    """
    return model.clone(architecture=dataclasses.replace(model.architecture, output_stride=stride))


def score_map(
    model: ResNet, variables: Any, images: jax.Array, sizes: jax.Array | None = None
) -> ScoreMap:
    """Applies a network to images of any size.

    Args:
      model, variables: the network; its running statistics normalise.
      images: float [batch, height, width, channels], normalised.
      sizes: int32 [batch, 2], the images' own heights and widths where `images` are filled up,
        to the right and below, to one size. What is filled in changes nothing: every layer sees
        zeros beyond the image's edge, as if it ended there.
    """
    if sizes is None:
        features = _last_features(model, variables, images)
        inside = jnp.ones(features.shape[:3], bool)
    else:
        height, width = images.shape[1:3]
        with nn.intercept_methods(_cutting_off(sizes, (height, width))):
            features = _last_features(model, variables, images)
        rows, columns = features.shape[1:3]
        inside = _inside(sizes, (height, width), (rows, columns))
    params = variables["params"]
    classifier = params["classifier"]
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    if "classifier_bias" in params:  # Fixup's
        features += params["classifier_bias"]["value"]
    return ScoreMap(features @ classifier["kernel"] + classifier["bias"], inside)


def _last_features(model: ResNet, variables: Any, images: jax.Array) -> jax.Array:
    """[batch, rows, columns, channels]"""
    outputs: Any = model.apply(variables, images, train=False, features=True)
    return outputs[-1]


def _cutting_off(sizes: jax.Array, full: tuple[int, int]):
    """Hides what lies beyond the images' edges from the layers that look beyond one place."""
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
    """Which places of a layer of that shape are inside the images: bool [batch, *shape]."""
    rows, columns = (
        jnp.arange(places) < -(-sizes[:, axis, None] // _stride(pixels, places))
        for axis, (pixels, places) in enumerate(zip(full, shape, strict=True))
    )
    return rows[:, :, None] & columns[:, None, :]


def _stride(pixels: int, places: int) -> int:
    """Of a layer that has so many places along so many pixels."""
    # With stride s, a power of 2, it keeps every s-th from the first on: ⌈n/s⌉ of n.
    strides = (2**halvings for halvings in itertools.count())
    return next(stride for stride in strides if -(-pixels // stride) <= places)
