"""When bought shares may be sold and proceeds spent, by the date of the trade."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import numpy as np
import numpy.typing as npt

T2_SINCE = dt.date(2016, 1, 1)
"""T+3 before, usable the session after: t + 4 (unconfirmed)."""
NOON_SINCE = dt.date(2022, 8, 25)
"""T+2 settles before noon since this trade date (depository decision 109/QD-VSD)."""
LONGEST = 4


def lag(
    dates: npt.NDArray[np.datetime64], moment: Literal["open", "close"]
) -> npt.NDArray[np.int_]:
    """Sessions from a trade to the first in which what it brought is usable.

    Settlement in the afternoon of T+2 is usable on T+3; settlement at noon is usable at the close
    of T+2, but not at its open.

    Args:
        dates: dates of trades. moment: when in a session trades happen.
    """
    day = dates.astype("datetime64[D]")
    noon = 3 if moment == "open" else 2
    late = np.where(day >= np.datetime64(NOON_SINCE), noon, 3)
    return np.where(day >= np.datetime64(T2_SINCE), late, LONGEST)
