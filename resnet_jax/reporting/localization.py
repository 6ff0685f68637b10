"""A picture, the box that a net's map gives, and the map over the picture."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from resnet_jax.reporting import style
from resnet_jax.reporting.plots import drawing_settings, to_png

SIDE_INCHES = 4.2  # of the longer side of a picture


def to_picture(
    picture: np.ndarray,
    map: np.ndarray,
    box: tuple[int, int, int, int] | None,
    class_name: str,
    probability: float,
) -> bytes:
    """PNG: the picture with its box, and beside it with the map.

    Args:
      picture: uint8 [height, width, 1 or 3].
      map: float [height, width]; what is not above 0 does not speak for the class.
      box: left, top, right and bottom in pixels, or None.
      class_name: what the map is of.
      probability: of that class, in [0, 1].
    """
    height, width = map.shape
    scale = SIDE_INCHES / max(height, width)
    size = (2 * max(width * scale, 1.5) + 0.3, max(height * scale, 1.5) + 0.5)
    with drawing_settings():
        figure = Figure(figsize=size, layout="compressed")
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.imshow(picture if picture.shape[-1] == 3 else np.repeat(picture, 3, -1))
            axes.axis("off")
        share = np.clip(map / max(map.max(), 1e-12), 0, 1)
        right.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.6 * share)
        if box:
            start, top, stop, bottom = box
            for colour, line in ((style.LIGHT["paper"], 3.5), (style.LIGHT["accent"], 1.8)):
                frame = Rectangle(
                    (start - 0.5, top - 0.5), stop - start, bottom - top,
                    fill=False, edgecolor=colour, linewidth=line, clip_on=False,
                )  # fmt: skip
                left.add_patch(frame)
        left.set_title(f"{class_name}, {100 * probability:.0f}%", parse_math=False)
        return to_png(figure)
