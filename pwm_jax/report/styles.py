"""How each method is drawn, wherever it is: its colour, line and marker."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Style:
    """How a method is drawn: an SVG colour, dash lengths in multiples of the line width ('' is solid) and a marker."""

    colour: str
    dashes: str
    marker: str

    @property
    def line(self) -> Any:
        """The dashes as a matplotlib line style."""
        return (0, tuple(float(length) for length in self.dashes.split())) if self.dashes else "-"


_STYLES = {
    "extracted": Style("#3a86d4", "", "o"),
    "pwm": Style("#3a86d4", "", "o"),
    "shac": Style("#dd7f24", "4 2", "s"),
    "decoupled": Style("#27a074", "5 2 1 2", "^"),
    "ppo": Style("#c2506e", "6 1.5", "P"),
    "sac": Style("#8a6fd1", "3 1 1 1", "X"),
    "generalist": Style("#c2506e", "6 1.5", "P"),
    "mppi": Style("#8a6fd1", "3 1 1 1", "X"),
    "bc": Style("#dd7f24", "4 2", "s"),
    "data": Style("#27a074", "5 2 1 2", "^"),
    "simulator": Style("#8d929b", "6 1.5", "P"),
    "truth": Style("#8d929b", "6 1.5", "P"),
    "simnorm": Style("#3a86d4", "", "o"),
    "simnorm-2": Style("#8a6fd1", "4 2", "v"),
    "relu": Style("#dd7f24", "4 2", "s"),
    "none": Style("#c2506e", "3 1 1 1", "X"),
    "spectral": Style("#27a074", "5 2 1 2", "^"),
    "random": Style("#8d929b", "1 1.6", "D"),
    "expert": Style("#b763b2", "5 1 1 1 1 1", "v"),
    "training": Style("#3a86d4", "", "o"),
    "held out": Style("#dd7f24", "4 2", "s"),
}
_OTHERS = (Style("#b763b2", "4 2", "p"), Style("#b0932a", "5 2 1 2", "d"), Style("#3fa9b5", "1 1.6", "h"))


def styles(names: Iterable[str]) -> dict[str, Style]:
    """The style of each: its own where it has one, and else one that no other of these has, as long as there are any left."""
    names = list(dict.fromkeys(names))
    taken = [_STYLES[name] for name in names if name in _STYLES]
    free = itertools.cycle([style for style in dict.fromkeys([*_OTHERS, *_STYLES.values()]) if style not in taken] or _OTHERS)
    return {name: _STYLES.get(name) or next(free) for name in names}
