"""Random JSON documents in random spellings, each followed by what json.dumps makes of it."""

import json
import random
import struct
import sys

random.seed(20260219)
STRINGS = ["", "a", "é", "😀", "\x7f", "\u2028", '"', "\\", "/", "\b\f\n\r\t\x00\x1f", "ﬀ", "\ue000", "𐀀", "z"]


def text():
    if random.random() < 0.5:
        return "".join(random.choice("abcdefghijklmnopqrstuvwxyz_") for _ in range(random.randint(1, 12)))
    return "".join(random.choice(STRINGS) for _ in range(random.randint(0, 6)))


def number():
    kind = random.randrange(7)
    if kind == 0:
        return random.randint(-(10 ** random.randint(1, 40)), 10 ** random.randint(1, 40))
    if kind == 1:
        value = struct.unpack("<d", random.randbytes(8))[0]
        return value if value - value == 0 else 0.0
    if kind == 2:
        return round(random.uniform(0, 100), random.randint(0, 6))
    if kind == 3:
        return random.choice([0.0, -0.0, 1e16, 1e15, 9999999999999998.0, 1e-4, 1e-5, 5e-324, 0.1, 1e22, 1e23])
    if kind == 4:
        return random.randint(-1000, 1000) * 10.0 ** random.randint(-20, 20)
    if kind == 5:
        return random.random() * 10.0 ** random.randint(-8, 20)
    return random.randint(-100, 100)


def value(depth):
    kind = random.random()
    if depth < 6 and kind < 0.15:
        return {text(): value(depth + 1) for _ in range(random.randint(0, 5))}
    if depth < 6 and kind < 0.25:
        return [value(depth + 1) for _ in range(random.randint(0, 4))]
    if kind < 0.5:
        return text()
    if kind < 0.95:
        return number()
    return random.choice([True, False, None])


def spelled(value):
    """The same document as another publisher may write it."""
    if isinstance(value, dict):
        members = list(value.items())
        random.shuffle(members)
        space = random.choice(["", " ", "\t", "  "])
        return "{" + ",".join(f"{space}{spelled(k)}{space}:{space}{spelled(v)}" for k, v in members) + space + "}"
    if isinstance(value, list):
        return "[" + ", ".join(spelled(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=random.random() < 0.5)
    if isinstance(value, float):
        written = repr(value)
        style = random.random()
        if style < 0.1:
            return f"{value:.17e}"
        if style < 0.2 and "e" not in written:
            return written + "00"
        if style < 0.3:
            return written.replace("e", "E")
        return written
    return json.dumps(value)


for _ in range(int(sys.argv[1])):
    document = {text(): value(1) for _ in range(random.randint(0, 8))}
    document.pop("hmac", None)
    payload = spelled(document).replace("\n", " ")
    # What is signed is what Python reads back, then sorts.
    print(payload)
    print(json.dumps(json.loads(payload), sort_keys=True))
