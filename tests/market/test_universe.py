from __future__ import annotations

from collections import Counter

import pytest

from vnquant.errors import UsageError
from vnquant.market.universe import VN102, check_known, resolve


def test_vn102_has_64_hose_20_hnx_and_18_upcom():
    assert Counter(VN102.values()) == {"HOSE": 64, "HNX": 20, "UPCOM": 18}


def test_some_members_and_their_exchanges():
    assert {s: VN102[s] for s in ("FPT", "PVS", "ACV")} == {
        "FPT": "HOSE",
        "PVS": "HNX",
        "ACV": "UPCOM",
    }


def test_symbols_in_any_case_come_sorted_and_once():
    assert resolve(["vcb", "FPT", " fpt "], None, VN102) == ["FPT", "VCB"]


def test_nothing_chosen_means_vn102():
    assert resolve([], None, VN102) == resolve(None, "vn102", VN102) == sorted(VN102)


def test_all_is_what_the_source_knows():
    assert resolve(None, "all", {"XYZ": "HNX", "ABC": "HOSE"}) == ["ABC", "XYZ"]


def test_an_unknown_symbol_names_the_nearest():
    with pytest.raises(UsageError, match=r"'FTP'.*nearest known one is FPT") as caught:
        resolve(["FTP"], None, VN102)
    assert caught.value.exit_code == 2


def test_vn102_needs_a_source_that_has_it():
    with pytest.raises(UsageError, match="101 more unknown"):
        resolve(None, "vn102", {"ABC": "HOSE"})


def test_a_source_without_symbols_says_so():
    with pytest.raises(UsageError, match="no symbols"):
        check_known(["FPT"], {})


@pytest.mark.parametrize(("symbols", "universe"), [(["FPT"], "all"), (None, "vn30")])
def test_contradictions_are_refused(symbols, universe):
    with pytest.raises(UsageError):
        resolve(symbols, universe, VN102)
