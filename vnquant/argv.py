"""Accept ``--symbols FPT VCB HPG``: click has no options that take several words.

The words after such an option, up to the next option or the end, become repetitions of it:
``--symbols FPT VCB`` turns into ``--symbols FPT --symbols VCB``. Commas separate too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

VARIADIC = frozenset({"--symbols", "--cutoffs"})


def normalise(args: Sequence[str], variadic: Collection[str] = VARIADIC) -> list[str]:
    """Rewrite variadic options as repeated ones; everything else passes unchanged.

    A lone ``--`` ends option parsing, as usual; an option without words is left for click to
    refuse.
    """
    out: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*out, word, *rest]
        name, equals, value = word.partition("=")
        if name not in variadic:
            out.append(word)
            continue
        words = [value] if equals else []
        while rest and not rest[0].startswith("-"):
            words.append(rest.pop(0))
        names = [part for w in words for part in w.split(",") if part]
        out += [piece for n in names for piece in (name, n)] or [word]
    return out
