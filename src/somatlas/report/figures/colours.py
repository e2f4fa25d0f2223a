"""The figures' colours: each set stays apart in grey, and text on a colour stays readable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap

HARMFUL, HARMLESS, DIRECTION, CHOSEN = "#b2182b", "#67a9cf", "#4d4d4d", "#c1121f"
U_MATRIX = ListedColormap(colormaps["Blues"](np.linspace(0.05, 0.85, 256)))
# Light to dark over -1..1: a map that is dark at both ends prints a cosine and its negative alike.
COSINES = colormaps["cividis_r"]


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever contrasts more with a colour (RGB or RGBA, 0 to 1).

    Relative luminance and contrast are those of WCAG 2; the better of the two is at least 4.5.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"
