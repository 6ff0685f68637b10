"""Numbers as tables and sentences write them."""

import math

NOTHING = "–"


def fixed(value: float, digits: int) -> str:
    return NOTHING if math.isnan(value) else f"{value:,.{digits}f}"


def spread(mean: float, std: float) -> str:
    """Mean ± std, or the mean alone of a single seed."""
    return fixed(mean, 2) + ("" if math.isnan(std) else f" ± {std:.2f}")


def signed(value: float, digits: int = 2) -> str:
    """Always with a sign: "+0.12", "−0.12"; but "0.00"."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def duration(seconds: float) -> str:
    """E.g. "45 s", "3 min 20 s", "2 h 05 min"."""
    if math.isnan(seconds):
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
