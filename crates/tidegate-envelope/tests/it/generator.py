"""Random JSON documents in random spellings, whole and then damaged.

Each comes with what json.dumps makes of it: two lengths (u32, little-endian), payload, canonical form.
"""

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
        return random.randint(-(10 ** random.randint(1, 40)), 10 ** random.choice([1, 15, 16, 18, 19, 20, 40, 400]))
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
    if depth < 8 and kind < 0.15:
        return {text(): value(depth + 1) for _ in range(random.randint(0, 5))}
    if depth < 8 and kind < 0.25:
        return [value(depth + 1) for _ in range(random.randint(0, 4))]
    if kind < 0.5:
        return text()
    if kind < 0.95:
        return number()
    return random.choice([True, False, None])


def space():
    return random.choice(["", "", "", " ", "\n", "\t", "\r\n  "])


def spelled_text(value):
    style = random.random()
    if style < 0.4:
        return json.dumps(value)
    if style < 0.8:
        return json.dumps(value, ensure_ascii=False)
    units = value.encode("utf-16-be")
    units = [units[i] << 8 | units[i + 1] for i in range(0, len(units), 2)]
    form = random.choice(["\\u{:04x}", "\\u{:04X}"])
    return '"' + "".join(form.format(unit) for unit in units) + '"'


def spelled_float(value):
    written = repr(value)
    style = random.randrange(12)
    if style == 0:
        return f"{value:.17e}"
    if style == 1:
        return f"{value:.20E}"
    if style == 2 and "e" not in written:
        return written + "0" * random.randint(1, 20)
    if style == 3:
        return written.replace("e", "E")
    if style == 4 and "e" not in written:
        return written + random.choice(["e0", "E+0", "e-0", "e+00", "e5", "E-3"])
    if style == 5 and 1e-30 < abs(value) < 1e30:
        return f"{value:.40f}"
    return written


def spelled(value):
    """The same document as another publisher may write it."""
    if isinstance(value, dict):
        members = list(value.items())
        random.shuffle(members)
        inner = ",".join(
            f"{space()}{spelled_text(k)}{space()}:{space()}{spelled(v)}{space()}" for k, v in members
        )
        return "{" + (inner or space()) + "}"
    if isinstance(value, list):
        return "[" + (",".join(space() + spelled(v) + space() for v in value) or space()) + "]"
    if isinstance(value, str):
        return spelled_text(value)
    if isinstance(value, float):
        return spelled_float(value)
    if value == 0 and value is not False and random.random() < 0.5:
        return "-0"
    return json.dumps(value)


def damaged(payload):
    at = random.randrange(len(payload))
    byte = random.choice(b'"\\{}[]:,.-+eE0019 \xc3\xff\x00nutf')
    return payload[:at] + random.choice([b"", bytes([byte])]) + payload[at + random.randint(0, 1) :]


def canonical(payload):
    """What Python makes of a payload; nothing where it refuses it."""
    try:
        document = json.loads(payload.decode())
        document.pop("hmac", None)
        return json.dumps(document, sort_keys=True).encode()
    except (ValueError, AttributeError, TypeError):
        return b""


def put(payload, expected):
    sys.stdout.buffer.write(struct.pack("<II", len(payload), len(expected)) + payload + expected)


sys.set_int_max_str_digits(0)
for _ in range(int(sys.argv[1])):
    document = {text(): value(1) for _ in range(random.randint(0, 8))}
    if random.random() < 0.1:
        document["hmac"] = text()
    payload = spelled(document).encode()
    put(payload, canonical(payload))
    payload = damaged(payload)
    put(payload, canonical(payload))
