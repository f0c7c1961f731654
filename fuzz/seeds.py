"""Writes the inputs that fuzzing starts from: the vectors, and what the program writes itself.

    python3 fuzz/seeds.py FOLDER

makes FOLDER/<target>/<hash>. What is in fuzz/corpus is made of it, see README.md.
"""

import base64
import hashlib
import json
import pathlib
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VECTORS = ROOT / "crates/tidegate-envelope/testdata"
REQUESTS = ROOT / "crates/tidegate-enroll/testdata"

DEVICES = """
[[zone]]
id = "kitchen"
name = "Kitchen & Laundry"

[[device]]
id = "device-001"
message_id = "HYDROLOGIC-Device-001"
topic = "device-001"
zone = "kitchen"
class = "water-inlet"
"""

# Members of a device, each alone and all together.
MEMBERS = [
    'enabled = false',
    'format = "json-v1"',
    'format = "cose-v1"\nchannels = ["pressure_upstream", "flow_rate"]',
    'format = "cose-v1-detached"',
    'strict_sequence = true',
    'window = 64',
    'quota_per_s = 10',
    'key_file = "/nowhere"',
    'key_file = "a.key"\nprevious_key_file = "b.key"\nkey_epoch = 1',
    'key_epoch = 3\nlowest_key_epoch = 2',
]


def vectors(name):
    return [json.loads(line) for line in (VECTORS / name).read_text().splitlines()]


def json_v1():
    for vector in vectors("json-v1.jsonl"):
        yield base64.b64decode(vector["payload"])


def cose_v1():
    for vector in vectors("cose-v1.jsonl"):
        if vector["form"] == "attached":
            yield bytes.fromhex(vector["message"])
        else:
            structure = bytes.fromhex(vector["message"])
            if len(structure) < 256:
                yield bytes([0xD0, len(structure)]) + structure + bytes.fromhex(vector.get("payload", ""))
    # As many floats as there may be, and one more; numbers of every length.
    for count in (23, 24, 32, 33):
        numbers = bytes.fromhex("1affffffff 1b0020000000000000 1b0000019c73f7304f 18ff")
        array = bytes([0x80 | count]) if count < 24 else bytes([0x98, count])
        payload = b"\x85" + numbers + array + b"\xfa\x42\x48\x00\x00" * count
        head = bytes.fromhex("8447a20105044200ffa058") + bytes([len(payload)])
        yield head + payload + b"\x58\x20" + bytes(32)
    # A question and an answer about the time.
    nonce = "07" * 16
    yield b"\xe0" + json.dumps({"nonce": nonce}, separators=(",", ":")).encode()
    answer = {"kid": 0, "nonce": nonce, "time": "2026-02-19T03:35:05.551904Z", "hmac": "0" * 64}
    yield b"\xe0" + json.dumps(answer, separators=(",", ":")).encode()


def frame(opcode, payload, final=True):
    """A frame as a client masks it, with a key of zeros (RFC 6455 section 5.2)."""
    head = bytes([opcode | (0x80 if final else 0)])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    else:
        head += bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    return head + bytes(4) + payload


def websocket():
    ping = b'{"type":"ping"}'
    texts = [ping, b'{"type":"pong"}', b'{ "t": [1], "type" : "p\\u0069ng" }', b'["ping"]', b"ping", "é".encode()]
    for text in texts:
        yield b"\x01" + text
        for piece in (1, 3, 255):
            yield bytes([piece]) + frame(1, text)
    yield b"\xff" + frame(1, ping[:5], final=False) + frame(9, b"beat") + frame(0, ping[5:])
    yield b"\x07" + frame(2, ping) + frame(10, b"") + frame(8, struct.pack(">H", 1000) + b"bye")
    yield b"\xff" + frame(1, b"x" * 4096) + frame(1, ping)
    yield b"\xff" + frame(1, b"x" * 4097)
    yield b"\xff" + frame(3, ping)
    yield b"\xff" + bytes([0x81, len(ping)]) + ping


def configuration():
    yield b""
    template = (ROOT / "crates/tidegate/src/tidegate.toml").read_text()
    yield template.encode()
    # The same with every value that is commented out.
    lines = [line.removeprefix("# ") if " = " in line and line.startswith("# ") else line for line in template.splitlines()]
    yield "\n".join(lines).encode()
    table = ""
    for line in lines:
        if line.startswith("["):
            table = line + "\n"
        elif " = " in line and not line.startswith("#"):
            yield (table + line + "\n").encode()


def registry():
    yield b""
    yield DEVICES.encode()
    for member in MEMBERS:
        yield (DEVICES + member + "\n").encode()
    second = DEVICES[DEVICES.index("[[device]]"):].replace("001", "002")
    yield (DEVICES + "\n".join(MEMBERS[4:7]) + "\n" + second).encode()


def enroll():
    for file in sorted(REQUESTS.glob("*.der")) + sorted(REQUESTS.glob("*.p7")):
        yield file.read_bytes()
    # Most of a body is base64, where little is found; two are enough.
    for name in ("p256.der", "with-list.p7"):
        yield base64.encodebytes((REQUESTS / name).read_bytes())
    yield b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB"


def main():
    folder = pathlib.Path(sys.argv[1])
    for target in (json_v1, cose_v1, websocket, configuration, registry, enroll):
        into = folder / target.__name__
        into.mkdir(parents=True, exist_ok=True)
        for seed in target():
            (into / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    main()
