"""Which symbols a run is about. `VN102`: the most traded shares of 2021-2023 by exchange."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping, Sequence

from vnquant.errors import UsageError

_HOSE = """
HPG STB SSI VPB VND TCB DIG NVL MBB VHM SHB GEX HSG KBC CTG DXG PDR VIC VNM NKG DGC MWG ACB POW PVD
FPT LPB DPM VCG MSN TPB CII VRE TCH DBC VCB MSB HDB GMD FRT IJC LCG GVR HAH HHV PVT BID SCR BCG GAS
KDC VJC VIB AAA VHC PLX HDG HDC DGW SBT HQC LDG PNJ PC1
"""
_HNX = "PVS CEO IDC HUT TNG THD APS IDJ PVC NVB L14 TVC NDN PLC VCS BCC TIG VGS IPA MBG"
_UPCOM = "VGT C4G SBS ABB QNS BVB OIL VGI LTG VHG PAS QTP AAS G36 MSR VEA TVN ACV"

VN102: dict[str, str] = {
    symbol: exchange
    for exchange, names in (("HOSE", _HOSE), ("HNX", _HNX), ("UPCOM", _UPCOM))
    for symbol in names.split()
}
"""Symbol to exchange, as of August 2025. A list of survivors."""

UNIVERSES = ("vn102", "all")
VN102_CHOSEN_ON = dt.date(2025, 8, 26)
"""When the shares were still listed: a test before this day is one on survivors."""


def resolve(
    symbols: Sequence[str] | None, universe: str | None, known: Mapping[str, str]
) -> list[str]:
    """The symbols a user meant, sorted and unique.

    Args:
        symbols: tickers in any case; None or empty to use ``universe``.
        universe: ``vn102`` or ``all`` (everything the source knows); None means ``vn102``.
        known: symbol to exchange of the price source.

    Raises:
        UsageError: a symbol or universe is not known; the message names the nearest one.
    """
    if symbols and universe:
        raise UsageError(
            "both were given", where="--symbols and --universe", fix="give one of the two"
        )
    if symbols:
        wanted = canonical(symbols)
    elif universe in (None, "vn102"):
        wanted = sorted(VN102)
    elif universe == "all":
        wanted = sorted(known)
    else:
        raise UsageError(
            f"unknown universe {universe!r}", where="--universe", fix="use vn102 or all"
        )
    check_known(wanted, known)
    return wanted


def chosen_on(universe: str | None) -> dt.date | None:
    """The day on which a universe was settled; None if that is not known.

    ``all`` is whatever a source holds, and a source may hold only what is still listed.
    """
    return VN102_CHOSEN_ON if universe in (None, "vn102") else None


def canonical(symbols: Sequence[str]) -> list[str]:
    """Upper case, sorted, each once."""
    return sorted({s.strip().upper() for s in symbols})


def check_known(wanted: Sequence[str], known: Mapping[str, str]) -> None:
    """Refuse symbols the source does not have.

    Raises:
        UsageError: naming the first unknown symbol and its nearest known one.
    """
    unknown = [s for s in wanted if s not in known]
    if unknown:
        hint = "the source has no symbols"
        if known:
            hint = f"the nearest known one is {_nearest(unknown[0], known)}"
        more = f" (and {len(unknown) - 1} more unknown)" if len(unknown) > 1 else ""
        raise UsageError(
            f"unknown symbol {unknown[0]!r}{more}; {hint}",
            where="symbols",
            fix=f"the source knows {len(known)} symbols; use --universe all for every one of them",
        )


def _nearest(name: str, known: Mapping[str, str]) -> str:
    """The most alike symbol; swapped letters beat other ties, then the same first letter."""

    def likeness(symbol: str) -> tuple[float, bool, bool]:
        ratio = difflib.SequenceMatcher(None, name, symbol).ratio()
        return ratio, sorted(symbol) == sorted(name), symbol[:1] == name[:1]

    return max(sorted(known), key=likeness)
