from __future__ import annotations

import numpy as np
import pandas as pd

from vnquant.market.sessions import between, closures, hose_halts, sessions


def bars(**dates_of: list[str]) -> pd.DataFrame:
    rows = [(s, pd.Timestamp(d)) for s, dates in dates_of.items() for d in dates]
    return pd.DataFrame(rows, columns=["symbol", "date"])


def days(*texts: str) -> list[np.datetime64]:
    return [np.datetime64(t) for t in texts]


def test_the_packaged_closures_are_192_weekdays():
    assert len(closures()) == 192
    assert np.is_busday(closures()).all()
    assert np.datetime64("2018-12-31") in closures()  # one that calendar packages lack


def test_one_symbol_alone_still_gets_the_whole_calendar():
    found = sessions(bars(FPT=["2023-01-18", "2023-01-30"]))  # Tet: 20 to 26 January
    assert (
        found.tolist()
        == np.array(days("2023-01-18", "2023-01-19", "2023-01-27", "2023-01-30")).tolist()
    )


def test_stray_weekend_and_holiday_rows_are_no_sessions():
    found = sessions(bars(FPT=["2022-12-30", "2022-12-31", "2023-01-02", "2023-01-03"]))
    assert found.tolist() == np.array(days("2022-12-30", "2023-01-03")).tolist()


def test_the_halt_of_hose_is_a_session_of_the_market():
    assert hose_halts().tolist() == np.array(days("2018-01-23", "2018-01-24")).tolist()
    found = sessions(bars(FPT=["2018-01-22", "2018-01-25"]))
    assert len(found) == 4


def test_before_2010_only_observed_weekdays_count():
    found = sessions(
        bars(
            AAA=["2001-05-07", "2001-05-09", "2001-05-12", "2001-05-14"],
            BBB=["2001-05-07", "2001-05-11"],
        )
    )
    expected = days("2001-05-07", "2001-05-09", "2001-05-11", "2001-05-14")
    assert found.tolist() == np.array(expected).tolist()  # 12 May 2001 was a Saturday


def test_outside_the_list_a_day_needs_a_quorum():
    dates = ["2026-10-05", "2026-10-06", "2026-10-08"]
    most = {f"S{i}": dates for i in range(7)}
    found = sessions(bars(STRAY=["2026-10-05", "2026-10-07", "2026-10-08"], **most))
    assert found.tolist() == np.array(days(*dates)).tolist()


def test_the_seam_between_observed_and_listed_days():
    found = sessions(bars(FPT=["2009-12-31", "2010-01-04"]))
    assert found.tolist() == np.array(days("2009-12-31", "2010-01-04")).tolist()


def test_no_bars_no_sessions():
    assert len(sessions(bars())) == 0


def test_between_is_inclusive():
    span = between(np.datetime64("2023-01-03"), np.datetime64("2023-01-05"))
    assert len(span) == 3
