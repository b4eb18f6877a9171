"""Send one notice, in a process of its own: ``python -m vnquant.host.notify``.

Reads ``{"urls": [...], "title": ..., "body": ..., "good": ..., "seconds": ...}`` from its input
and prints a list of ``{"service": ..., "delivered": ...}`` in the same order. What apprise knows
about an address, tokens included, stays in this process: it says and logs nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from typing import Any


def main() -> None:
    """Send to all at once; whoever hangs longer than ``seconds`` is left behind."""
    logging.disable(logging.CRITICAL)
    given = json.load(sys.stdin)
    answers: list[dict[str, Any]] = [{"service": None, "delivered": False} for _ in given["urls"]]
    threads = [
        threading.Thread(target=_send, args=(url, given, answer), daemon=True)
        for url, answer in zip(given["urls"], answers, strict=True)
    ]
    until = time.monotonic() + float(given["seconds"])
    for thread in threads:
        thread.start()
    for thread, answer in zip(threads, answers, strict=True):
        thread.join(max(0.0, until - time.monotonic()))
        answer["hangs"] = thread.is_alive()
    sys.stdout.write(json.dumps(answers) + "\n")
    sys.stdout.flush()
    os._exit(0)  # not waiting for who hangs


def _send(url: str, given: dict[str, Any], answer: dict[str, Any]) -> None:
    import apprise

    service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if service is None:
        return
    answer["service"] = str(service.service_name)
    kind = apprise.NotifyType.SUCCESS if given["good"] else apprise.NotifyType.FAILURE
    answer["delivered"] = bool(
        service.notify(title=given["title"], body=given["body"], notify_type=kind)
    )


if __name__ == "__main__":
    main()
