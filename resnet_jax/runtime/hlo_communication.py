"""What a compiled program sends between its devices, read from the program itself."""

import collections
import math
import re

_KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
_INSTRUCTION = re.compile(rf"= (?P<shape>.+?) (?P<kind>{_KINDS})(?:-start)?\(")
_ARRAY = re.compile(r"(?P<type>[a-z]+)(?P<bits>\d*)\[(?P<sizes>[\d,]*)\]")


def sent(program: str) -> dict[str, int]:
    """Bytes that each kind of collective operation puts out on a device, each instruction once.

    An instruction within a loop counts once, however often the loop turns.

    Args:
      program: optimised HLO: `jax.jit(f).lower(…).compile().as_text()`.
    """
    total = collections.Counter()
    for line in program.splitlines():
        found = _INSTRUCTION.search(line)
        if found:
            total[found["kind"]] += sum(map(_num_bytes, _ARRAY.finditer(found["shape"])))
    return dict(total)


def _num_bytes(array: re.Match) -> int:
    bits = 8 if array["type"] == "pred" else int(array["bits"])
    return math.prod(int(size) for size in array["sizes"].split(",") if size) * bits // 8
