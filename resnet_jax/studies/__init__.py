"""What is asked of a network: one study a file, from a model, variables and plain arrays.

Nothing here reads or writes files or knows a config. Each jitted function takes the model as a
static argument and everything that varies between calls (masks, weights, directions) as arrays, so
that a net is compiled once however often it is asked.
"""

from resnet_jax.studies import (
    constructed,
    gradients,
    jacobian,
    landscape,
    lesions,
    responses,
    shattering,
    shortcuts,
)

__all__ = [
    "constructed",
    "gradients",
    "jacobian",
    "landscape",
    "lesions",
    "responses",
    "shattering",
    "shortcuts",
]
