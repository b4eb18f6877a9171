"""Many tests at once: which symbols stand out when there are a hundred to choose from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vnquant.errors import UsageError

Floats = npt.NDArray[np.float64]


def benjamini_hochberg(p_values: Floats, *, dependent: bool = False) -> Floats:
    """Adjusted p-values ``[M]``: rejecting those at most q keeps the share of false ones below q.

    Benjamini and Hochberg (1995), valid for independent or positively dependent tests, as those of
    shares that move together mostly are; ``dependent`` adds the factor of Benjamini and Yekutieli
    (2001), valid for any. NaN (a test that was undefined) stays NaN and does not count.

    Raises:
        UsageError: a p-value outside 0 to 1.
    """
    out = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    p = p_values[tested]
    if ((p < 0) | (p > 1)).any():
        raise UsageError("one lies outside 0 to 1", where="p-values", fix="give probabilities")
    m = len(p)
    order = np.argsort(p, kind="stable")
    harmonic = float((1 / np.arange(1, m + 1)).sum()) if dependent else 1.0
    raised = p[order] * m * harmonic / np.arange(1, m + 1)
    out[tested[order]] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return out
