"""One HTTP answer: its status, its bytes within a deadline, its JSON; every fault by its name."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3

from vnquant.market.collect.faults import Faulty, Refused, Throttled, Unreachable, Unusable

MOST_BYTES = 64 * 2**20
CHUNK = 2**16


def check_status(response: requests.Response, host: str) -> None:
    """Raise what an answer's status means, unless it is 200."""
    status = response.status_code
    after = retry_after(response.headers.get("Retry-After"))
    if status == 429 or (status == 503 and after is not None):
        wait = "" if after is None else f" and asks for {after:.0f} s of peace"
        raise Throttled(
            f"answers {status}{wait}", where=host, fix="use a lower --rate", after=after
        )
    if status >= 500:
        raise Faulty(f"answers {status}", where=host, fix="try again later")
    if status in (400, 404, 410):
        raise Unusable(
            f"answers {status} to {response.url.partition('?')[0]}",
            where=host,
            fix="check the symbol and --base-url",
        )
    if status != 200:
        raise Refused(
            f"answers {status} {response.reason or ''}".rstrip(),
            where=host,
            fix="some services refuse clouds and other countries: try from another network "
            "or with a lower --rate",
        )


def whole_body(response: requests.Response, host: str, *, seconds: float) -> bytes:
    """All bytes, decompressed, within that many seconds, however steadily they drip."""
    began = time.monotonic()
    parts: list[bytes] = []
    size = 0
    # read1 returns what is there, so that the deadline is seen between two drips.
    while chunk := response.raw.read1(CHUNK, decode_content=True):
        parts.append(chunk)
        size += len(chunk)
        if size > MOST_BYTES:
            raise Faulty(
                f"sends more than {MOST_BYTES >> 20} MiB",
                where=host,
                fix="check --base-url",
            )
        if time.monotonic() - began > seconds:
            raise Unreachable(
                f"has not finished its answer after {seconds:g} s",
                where=host,
                fix="try again later",
            )
    return b"".join(parts)


def parsed(body: bytes, host: str) -> Any:
    """The JSON of an answer, whatever content type it claimed."""
    # Content types are wrong as often as right, so the body alone decides.
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        start = body[:200].lstrip().lower()
        what = "answers with a web page instead of JSON"
        if not start.startswith(b"<"):
            what = f"answers with {len(body):,} bytes that are no whole JSON"
        raise Faulty(what, where=host, fix="try again later") from error


def no_answer(error: Exception, host: str, *, connect: float, silence: float) -> Unreachable:
    """What a failed connection or a broken answer is called; the two limits in seconds."""
    name = type(error).__name__
    if isinstance(error, requests.exceptions.ConnectTimeout):
        what = f"no connection within {connect:g} s"
    elif isinstance(error, (requests.exceptions.ReadTimeout, urllib3.exceptions.TimeoutError)):
        what = f"silent for {silence:g} s"
    elif "NameResolution" in repr(error) or "getaddrinfo" in repr(error):
        what = "its name cannot be resolved: is there a network"
    elif isinstance(error, urllib3.exceptions.HTTPError):
        what = f"broke off in the middle of its answer ({name})"
    else:
        what = f"no answer ({name})"
    return Unreachable(
        what, where=host, fix="check the network; the same command continues where it was"
    )


def retry_after(text: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if it says nothing.

    A date is compared with this machine's clock; one in the past is 0.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
