"""What a network is: `zoo` names them, `architecture` lists the axes, `resnet` builds them.

Importing this package, `zoo` or `architecture` loads no JAX.
"""

__all__ = [
    "architecture",
    "batch_norm",
    "counting",
    "folding",
    "fully_convolutional",
    "initialization",
    "resnet",
    "scan_layers",
    "tailored_relu",
    "zoo",
]
