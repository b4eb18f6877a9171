"""One polite HTTP client: a rate limit with jitter, deadlines, retries that obey Retry-After."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import requests
import stamina
import urllib3

from vnquant.market.collect.cache import Replies
from vnquant.market.collect.faults import Faulty, Refused, Throttled, Unreachable
from vnquant.market.collect.reply import check_status, no_answer, parsed, whole_body

# Retries are told through our own events; stamina would print every one as a warning.
logging.getLogger("stamina").addHandler(logging.NullHandler())

REDIRECTS = (301, 302, 303, 307, 308)
NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/128.0 Safari/537.36"
)
"""The services are back ends of web pages and refuse what does not look like a browser."""


@dataclass(frozen=True)
class Manners:
    """How a service is treated.

    Attributes:
        rate: requests per second, at most; retries count too.
        jitter: each pause is longer by up to this share of itself, so that requests do not tick.
        connect_seconds: until a connection stands.
        silence_seconds: between two pieces of an answer.
        answer_seconds: for a whole answer, however steadily it drips.
        attempts: of one request.
        first_wait: seconds before the second attempt; doubles, up to ``most_wait``.
        most_wait: see ``first_wait``.
        most_patience: a Retry-After beyond this many seconds is not waited for.
    """

    rate: float = 2.0
    jitter: float = 0.25
    connect_seconds: float = 5.0
    silence_seconds: float = 10.0
    answer_seconds: float = 30.0
    attempts: int = 3
    first_wait: float = 1.0
    most_wait: float = 20.0
    most_patience: float = 120.0


class Client:
    """GETs JSON from one service.

    Args:
        base_url: scheme and host, as ``https://cafef.vn``; a path before the service's own is kept.
        referer: the page that these requests would come from.
        manners: rate, timeouts and retries.
        replies: where whole answers are kept for a while; None keeps none.
        say: told in a few words what went wrong with a request that may be asked again.
    """

    def __init__(
        self,
        base_url: str,
        *,
        referer: str,
        manners: Manners,
        replies: Replies | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.manners = manners
        self.replies = replies
        self.requests = 0
        self.answers = 0
        self._say = say
        self._spacing = 1.0 / manners.rate
        self._next = 0.0
        self._peace_until = -math.inf
        self._session = requests.Session()
        self._session.headers.update(
            {
                "User-Agent": BROWSER,
                "Referer": referer,
                "Accept": "application/json, text/javascript, */*; q=0.01",
            }
        )

    @property
    def host(self) -> str:
        """What to call the service in messages."""
        return urlsplit(self.base_url).netloc

    def get(self, path: str, query: str, *, group: str = "", fresh: bool = False) -> Any:
        """The parsed JSON answer.

        Args:
            path: below the base URL, with a leading slash.
            query: encoded already; each service has its own idea of that.
            group: whose answers these are, to forget them together.
            fresh: ask the service even if the answer is known.

        Raises:
            Unreachable, Refused, Faulty, Throttled: after the last attempt.
            Unusable: there is nothing at this address.
        """
        key = f"{path}?{query}"
        self.answers += 1
        if self.replies is not None and not fresh:
            known = self.replies.find(group, key)
            if known is not None:
                return known
        answer = self._retried(self.base_url + key)
        if self.replies is not None:
            self.replies.keep(group, key, answer)
        return answer

    def _retried(self, url: str) -> Any:
        m = self.manners
        attempts = stamina.retry_context(
            on=self._pause,
            attempts=m.attempts,
            timeout=None,
            wait_initial=m.first_wait,
            wait_max=m.most_wait,
            wait_jitter=m.first_wait,
        )
        for attempt in attempts:
            with attempt:
                return self._once(url)
        raise AssertionError("stamina returns or raises")

    def _pause(self, error: Exception) -> bool | float:
        """Whether an attempt's error is worth another one, or after how many seconds."""
        if isinstance(error, Throttled):
            # Whoever is told to slow down stays slower until the end.
            self._spacing = min(2.0 * self._spacing, 10.0)
            if error.after is None:
                return True
            if error.after > self.manners.most_patience:
                self._peace_until = time.monotonic() + error.after
                return False
            self._say(f"{self.host} asks to wait {error.after:.0f} s")
            return error.after + random.uniform(0.0, self.manners.jitter)
        if not isinstance(error, (Unreachable, Faulty)):
            return False
        self._say(f"{self.host} {error.what}")
        return True

    def _turn(self) -> None:
        """Wait until the next request may leave.

        Raises:
            Throttled: the service has asked for more time than is waited, and it is not over.
        """
        now = time.monotonic()
        if now < self._peace_until:
            left = self._peace_until - now
            raise Throttled(
                f"wants not to be asked for another {left:.0f} s",
                where=self.host,
                fix="run the same command again after that",
                after=left,
            )
        if self._next > now:
            time.sleep(self._next - now)
            now = self._next
        self._next = now + self._spacing * (1.0 + random.uniform(0.0, self.manners.jitter))

    def _once(self, url: str) -> Any:
        for _ in range(3):
            self._turn()
            self.requests += 1
            try:
                with self._session.get(
                    url,
                    stream=True,
                    allow_redirects=False,
                    timeout=(self.manners.connect_seconds, self.manners.silence_seconds),
                ) as response:
                    if response.status_code in REDIRECTS:
                        url = self._followed(url, response.headers.get("Location", ""))
                        continue
                    check_status(response, self.host)
                    body = whole_body(response, self.host, seconds=self.manners.answer_seconds)
                    return parsed(body, self.host)
            except NO_ADDRESS as error:
                raise Refused(
                    f"is no address that can be asked ({error})",
                    where=self.base_url,
                    fix="write --base-url as https://host",
                ) from error
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise no_answer(
                    error,
                    self.host,
                    connect=self.manners.connect_seconds,
                    silence=self.manners.silence_seconds,
                ) from error
        raise Faulty(
            "redirects in a circle", where=self.host, fix="give its new address with --base-url"
        )

    def _followed(self, url: str, location: str) -> str:
        """The address that a redirect names, unless it would ask for something else."""
        target = urljoin(url, location)
        old, new = urlsplit(url), urlsplit(target)
        if parse_qsl(new.query) != parse_qsl(old.query) or new.scheme not in ("http", "https"):
            raise Refused(
                f"redirects to {new.scheme}://{new.netloc}{new.path} and loses the question",
                where=self.host,
                fix="give the new address with --base-url",
            )
        return target
