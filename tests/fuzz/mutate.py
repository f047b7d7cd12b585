"""Mutations of bytes and of plain values, from one source of chance."""

import copy
import random
from typing import Any

ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 0.5, -0.0, float("nan"), float("inf"), 1e308, "", "x",
    "../../../x", "\x1b[31m", "a\nb", "\0", "é" * 200, "evil.py:f", [], [[]], {}, {"": None}, [None], ["a", 1],
    {"a": {"a": {"a": []}}}, "1" * 5000,
]  # fmt: skip


def mutate(content: bytes, words: tuple[bytes, ...], chance: random.Random) -> bytes:
    """Return the content after one to four mutations: flips, cuts, splices, numbers, words."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        size = len(data)
        at, upto = sorted((chance.randint(0, size), min(size, chance.randint(0, size))))
        upto = min(upto, at + chance.choice((1, 4, 64, 4096)))
        kind = chance.randrange(7)
        if kind == 0 and size:
            for _ in range(chance.choice((1, 1, 8, 64))):
                data[chance.randrange(size)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at:upto]
        elif kind == 3:
            data[at:at] = data[at:upto] * chance.choice((1, 2, 50))
        elif kind == 4:
            data[at:upto] = chance.randbytes(upto - at)
        elif kind == 5:
            number = chance.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**16))
            data[at : at + 4] = number.to_bytes(4, chance.choice(("little", "big")))
        elif words:
            word = chance.choice(words)
            data[at : at + chance.choice((0, len(word)))] = word
    return bytes(data)


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value inside."""
    inner = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list | tuple) else ()
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def mutate_values(values: Any, chance: random.Random) -> Any:
    """Return plain values of which one or two are replaced by an odd one, left out, or stand elsewhere too."""
    root = [copy.deepcopy(values)]
    for _ in range(chance.choice((1, 1, 2))):
        *way, last = chance.choice(places(root[0], (0,)))
        owner: Any = root
        for key in way:
            owner = owner[key]
        if isinstance(owner, tuple):
            continue
        kind = chance.randrange(4)
        if kind == 0 and owner is not root:
            del owner[last]
        elif kind == 1:
            source = chance.choice(places(root[0]))
            value: Any = root[0]
            for key in source:
                value = value[key]
            owner[last] = copy.deepcopy(value)
        elif kind == 2 and isinstance(owner, dict):
            owner[chance.choice(("x", "", "name", 3, None, True))] = owner.pop(last)
        else:
            owner[last] = copy.deepcopy(chance.choice(ODD))
    return root[0]
