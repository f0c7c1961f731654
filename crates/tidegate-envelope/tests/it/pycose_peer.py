"""cose-v1 with pycose, a COSE library that Tidegate shares nothing with.

    pycose_peer.py vectors   writes testdata/cose-v1.jsonl
    pycose_peer.py live      for each JSON line on stdin: verifies the message, and signs the same

pycose 1.1.0 knows tagged messages only, and no detached payloads. So messages are unpacked and
packed here with cbor2, and a detached payload is given to pycose before it computes or verifies
the tag; header encoding, MAC_structure, key and MAC are pycose's. Its keys have 16, 24 or 32 bytes.
"""

import json
import struct
import sys

import cbor2
from pycose.algorithms import HMAC256, HMAC384, HMAC25664
from pycose.headers import KID, Algorithm
from pycose.keys import SymmetricKey
from pycose.messages import Mac0Message

FRESHNESS = -70001
TOPIC = "hydroficient/grandmarina/device-001/sensors"
SECRET = bytes(range(32))
EPOCH = 1
BOOT, SEQUENCE, TIMESTAMP_MS, STATUS = 3, 70_000, 1_771_472_105_551, 1
VALUES = [60.12, 55.7, 50.0, 45.3, 44.9]
JSON_PAYLOAD = b'{"device_id": "HYDROLOGIC-Device-001", "counter": 7, "flow_rate": 50.0}'


def floats(values: list[float]) -> bytes:
    """An array of floats of 32 bits, which cbor2 writes only where they are shortest."""
    head = bytes([0x80 | len(values)]) if len(values) < 24 else bytes([0x98, len(values)])
    return head + b"".join(b"\xfa" + struct.pack(">f", value) for value in values)


def body(boot=BOOT, sequence=SEQUENCE, timestamp_ms=TIMESTAMP_MS, status=STATUS, values=None) -> bytes:
    """The attached payload."""
    numbers = b"".join(cbor2.dumps(number) for number in (boot, sequence, timestamp_ms, status))
    return b"\x85" + numbers + floats(VALUES if values is None else values)


def ending_in(last: bytes) -> bytes:
    """The attached payload with another item in place of its last float."""
    return body()[:-5] + last


def header(epoch=EPOCH, algorithm=HMAC256, freshness=None) -> dict:
    members = {Algorithm: algorithm, KID: epoch.to_bytes(2, "big")}
    if freshness is not None:
        members[FRESHNESS] = freshness
    return members


def mac0(protected: dict, payload: bytes, topic=TOPIC, secret=SECRET, unprotected=None) -> Mac0Message:
    return Mac0Message(
        phdr=protected,
        uhdr=unprotected or {},
        payload=payload,
        external_aad=topic.encode(),
        key=SymmetricKey(k=secret),
    )


def attached(protected: dict, payload: bytes, **others) -> bytes:
    return mac0(protected, payload, **others).encode(tag=False)


def detached(protected: dict, payload: bytes, **others) -> bytes:
    message = mac0(protected, payload, **others)
    return cbor2.dumps([message.phdr_encoded, {}, None, message.compute_tag()])


def verified(structure: bytes, payload: bytes | None, topic: str, secret: bytes) -> bool:
    message = Mac0Message.from_cose_obj(cbor2.loads(structure), True)
    if payload is not None:
        message.payload = payload
    message.key = SymmetricKey(k=secret)
    message.external_aad = topic.encode()
    return message.verify_tag()


def flipped(message: bytes, place: int) -> bytes:
    """The message with the lowest bit of one byte turned over."""
    changed = bytearray(message)
    changed[place] ^= 1
    return bytes(changed)


def replaced(message: bytes, old: bytes, new: bytes) -> bytes:
    assert message.count(old) == 1, (message.hex(), old.hex())
    return message.replace(old, new)


FRESH = [BOOT, SEQUENCE, TIMESTAMP_MS]


def authentic():
    """Name, form, header, payload and what the message says."""
    said = {
        "epoch": EPOCH,
        "boot": BOOT,
        "sequence": SEQUENCE,
        "timestamp_ms": TIMESTAMP_MS,
        "status": STATUS,
        "values": VALUES,
    }
    least = {
        "epoch": 0,
        "boot": 0,
        "sequence": 1,
        "timestamp_ms": 0,
        "status": 0,
        "values": [0.0, -0.0, 1.5, -1.0, 1e-45],
    }
    most = {
        "epoch": 0xFFFF,
        "boot": 0xFFFF_FFFF,
        "sequence": 1 << 53,
        "timestamp_ms": 9_223_372_036_854_775,
        "status": 255,
        "values": [3.4028234663852886e38, -3.4028234663852886e38, 1e38, 1e-38, 16_777_216.0],
    }
    for algorithm, tag in ((HMAC256, "full"), (HMAC25664, "short")):
        for name, fields in (("a usual reading", said), ("least numbers", least), ("greatest numbers", most)):
            numbers = [fields["boot"], fields["sequence"], fields["timestamp_ms"]]
            payload = body(*numbers, fields["status"], fields["values"])
            message = attached(header(fields["epoch"], algorithm), payload)
            yield f"{name}, {tag} tag", "attached", message, None, fields
            fields = {k: v for k, v in fields.items() if k not in ("status", "values")}
            message = detached(header(fields["epoch"], algorithm, numbers), JSON_PAYLOAD)
            yield f"{name}, {tag} tag", "detached", message, JSON_PAYLOAD, fields
    for edge in (23, 24, 255, 256, 65_535, 65_536, 0xFFFF_FFFF):
        fields = {**said, "boot": edge, "sequence": edge, "timestamp_ms": edge}
        yield f"numbers of {edge}", "attached", attached(header(), body(edge, edge, edge)), None, fields
    yield (
        "an empty detached payload",
        "detached",
        detached(header(freshness=FRESH), b""),
        b"",
        {k: v for k, v in said.items() if k not in ("status", "values")},
    )
    long = JSON_PAYLOAD + b" " * 70_000
    for length in (23, 24, 255, 256, 65_535, 65_536):
        yield (
            f"a detached payload of {length} bytes",
            "detached",
            detached(header(freshness=FRESH), long[:length]),
            long[:length],
            {k: v for k, v in said.items() if k not in ("status", "values")},
        )


def bad_mac():
    right, short = attached(header(), body()), attached(header(algorithm=HMAC25664), body())
    yield "first byte of the tag", "attached", flipped(right, 57), None
    yield "last byte of the tag", "attached", flipped(right, -1), None
    yield "last byte of a short tag", "attached", flipped(short, -1), None
    yield "epoch", "attached", flipped(right, 8), None
    yield "boot", "attached", flipped(right, 13), None
    yield "sequence", "attached", flipped(right, 18), None
    yield "time", "attached", flipped(right, 27), None
    yield "status", "attached", flipped(right, 28), None
    yield "a value", "attached", flipped(right, 34), None
    yield "signed for another topic", "attached", attached(header(), body(), topic=TOPIC + "/"), None
    yield "signed without the topic", "attached", attached(header(), body(), topic=""), None
    yield "signed with another key", "attached", attached(header(), body(), secret=bytes(32)), None
    cut = replaced(right[:-34], b"\xa2\x01\x05", b"\xa2\x01\x04") + b"\x48" + right[-32:-24]
    yield "a full tag passed off as a short one", "attached", cut, None
    right = detached(header(freshness=FRESH), JSON_PAYLOAD)
    yield "payload", "detached", right, flipped(JSON_PAYLOAD, 20)
    yield "payload that grew", "detached", right, JSON_PAYLOAD + b" "
    yield "no payload", "detached", right, b""
    yield "boot", "detached", flipped(right, 16), JSON_PAYLOAD
    yield "sequence", "detached", flipped(right, 21), JSON_PAYLOAD
    yield "time", "detached", flipped(right, 30), JSON_PAYLOAD
    yield "tag", "detached", flipped(right, -1), JSON_PAYLOAD
    yield (
        "signed for another topic",
        "detached",
        detached(header(freshness=FRESH), JSON_PAYLOAD, topic="a"),
        JSON_PAYLOAD,
    )


def bad_schema():
    yield "four values for five channels", "attached", attached(header(), body(values=VALUES[:4])), None
    yield "six values for five channels", "attached", attached(header(), body(values=[*VALUES, 1.0])), None
    yield "no values", "attached", attached(header(), body(values=[])), None


def malformed():
    """All with a right MAC over what they hold, as far as they hold anything."""
    right = attached(header(), body())
    yield "tag 17 in front", "attached", mac0(header(), body()).encode(), None
    yield "a trailing byte", "attached", right + b"\x00", None
    yield "a missing byte", "attached", right[:-1], None
    yield "nothing", "attached", b"", None
    yield "an open array", "attached", b"\x9f" + right[1:] + b"\xff", None
    yield "five items", "attached", b"\x85" + right[1:] + b"\xf6", None
    yield (
        "a long head of the protected header",
        "attached",
        replaced(right, b"\x84\x47", b"\x84\x58\x07"),
        None,
    )
    yield (
        "a long head of the payload",
        "attached",
        replaced(right, b"\xa0\x58\x2b", b"\xa0\x59\x00\x2b"),
        None,
    )
    yield (
        "an open payload",
        "attached",
        replaced(right, b"\xa0\x58\x2b", b"\xa0\x5f\x58\x2b")[:-34] + b"\xff" + right[-34:],
        None,
    )
    yield "a long head of the tag", "attached", replaced(right, b"\x58\x20", b"\x59\x00\x20"), None
    yield "a text for the payload", "attached", replaced(right, b"\xa0\x58\x2b", b"\xa0\x78\x2b"), None
    yield "no payload", "attached", detached(header(), body()), None
    yield (
        "an unprotected member",
        "attached",
        attached(header(), body(), unprotected={KID: b"\x00\x01"}),
        None,
    )
    yield (
        "members in another order",
        "attached",
        attached({KID: b"\x00\x01", Algorithm: HMAC256}, body()),
        None,
    )
    yield "no kid", "attached", attached({Algorithm: HMAC256}, body()), None
    yield "kid of one byte", "attached", attached({Algorithm: HMAC256, KID: b"\x01"}, body()), None
    yield "kid of three bytes", "attached", attached({Algorithm: HMAC256, KID: b"\x00\x00\x01"}, body()), None
    yield "a third member", "attached", attached({**header(), FRESHNESS: FRESH}, body()), None
    yield "HMAC 384/384", "attached", attached({**header(), Algorithm: HMAC384}, body()), None
    full_as_short = replaced(right, b"\xa2\x01\x05", b"\xa2\x01\x04")
    yield "a full tag under the short algorithm", "attached", full_as_short, None
    yield "a short tag under the full algorithm", "attached", right[:-34] + b"\x48" + right[-32:-24], None
    yield "an empty tag", "attached", right[:-34] + b"\x40", None
    for name, payload in (
        ("sequence 0", body(sequence=0)),
        ("sequence 2^53 + 1", body(sequence=(1 << 53) + 1)),
        ("a negative sequence", body(sequence=-1)),
        ("a float for the sequence", body(sequence=70_000.0)),
        ("boot beyond 32 bits", body(boot=1 << 32)),
        ("a negative boot", body(boot=-1)),
        ("a time beyond microseconds of 64 bits", body(timestamp_ms=9_223_372_036_854_776)),
        ("a negative time", body(timestamp_ms=-1)),
        ("a text for the time", body(timestamp_ms="2026")),
        ("a status beyond 8 bits", body(status=256)),
        ("a text for the status", body(status="operational")),
        ("boot in two bytes", replaced(body(), b"\x85\x03\x1a", b"\x85\x18\x03\x1a")),
        (
            "sequence in nine bytes",
            replaced(body(), b"\x1a\x00\x01\x11\x70", b"\x1b\x00\x00\x00\x00\x00\x01\x11\x70"),
        ),
        ("a long head of the list", replaced(body(), b"\x01\x85\xfa", b"\x01\x98\x05\xfa")),
        ("an open list", replaced(body(), b"\x01\x85\xfa", b"\x01\x9f\xfa") + b"\xff"),
        ("four items", b"\x84" + body()[1:-26]),
        ("six items", b"\x86" + body()[1:] + b"\x00"),
        ("a trailing byte in the payload", body() + b"\x00"),
        ("no bytes in the payload", b""),
        ("a map for the payload", b"\xa0"),
        ("a float of 64 bits", ending_in(b"\xfb" + struct.pack(">d", 44.9))),
        ("a float of 16 bits", ending_in(b"\xf9" + struct.pack(">e", 44.5))),
        ("an integer among the floats", ending_in(b"\x18\x2c")),
        ("NaN", body(values=[*VALUES[:4], float("nan")])),
        ("infinity", body(values=[*VALUES[:4], float("inf")])),
        ("minus infinity", body(values=[*VALUES[:4], float("-inf")])),
        ("33 floats", body(values=[1.0] * 33)),
    ):
        yield name, "attached", attached(header(), payload), None
    right = detached(header(freshness=FRESH), JSON_PAYLOAD)
    yield "payload inside", "detached", attached(header(freshness=FRESH), JSON_PAYLOAD), JSON_PAYLOAD
    yield "undefined for the payload", "detached", replaced(right, b"\xa0\xf6", b"\xa0\xf7"), JSON_PAYLOAD
    yield "tag 17 in front", "detached", b"\xd1" + right, JSON_PAYLOAD
    yield "a trailing byte", "detached", right + b"\x00", JSON_PAYLOAD
    yield "no freshness", "detached", detached(header(), JSON_PAYLOAD), JSON_PAYLOAD
    yield (
        "another label",
        "detached",
        detached({**header(), FRESHNESS - 1: FRESH}, JSON_PAYLOAD),
        JSON_PAYLOAD,
    )
    yield (
        "a fourth member",
        "detached",
        detached({**header(freshness=FRESH), 3: 0}, JSON_PAYLOAD),
        JSON_PAYLOAD,
    )
    for name, numbers in (
        ("two numbers", FRESH[:2]),
        ("four numbers", [*FRESH, 0]),
        ("sequence 0", [BOOT, 0, TIMESTAMP_MS]),
        ("sequence 2^53 + 1", [BOOT, (1 << 53) + 1, TIMESTAMP_MS]),
        ("boot beyond 32 bits", [1 << 32, SEQUENCE, TIMESTAMP_MS]),
        ("a negative time", [BOOT, SEQUENCE, -1]),
        ("a map of numbers", {0: BOOT, 1: SEQUENCE, 2: TIMESTAMP_MS}),
    ):
        yield name, "detached", detached(header(freshness=numbers), JSON_PAYLOAD), JSON_PAYLOAD


def vectors() -> None:
    refused = {"bad_mac": bad_mac, "bad_schema": bad_schema, "malformed": malformed}
    lines = [(*case[:4], "authentic", case[4]) for case in authentic()]
    lines += [(*case, verdict, None) for verdict, cases in refused.items() for case in cases()]
    for name, form, message, payload, verdict, said in lines:
        line = {"name": name, "form": form, "key": SECRET.hex(), "topic": TOPIC, "message": message.hex()}
        # A long payload is JSON_PAYLOAD with spaces behind it; its length is enough.
        if payload is not None and len(payload) > 200:
            line["payload_padded_to"] = len(payload)
            payload = payload[: len(JSON_PAYLOAD)]
        if payload is not None:
            line["payload"] = payload.hex()
        print(json.dumps(line | {"verdict": verdict} | ({"said": said} if said else {})))


def live() -> None:
    algorithms = {"full": HMAC256, "short": HMAC25664}
    for line in sys.stdin:
        asked = json.loads(line)
        secret, topic, numbers = bytes.fromhex(asked["key"]), asked["topic"], asked["numbers"]
        message = bytes.fromhex(asked["message"])
        payload = bytes.fromhex(asked["payload"]) if asked["form"] == "detached" else None
        freshness = numbers if payload is not None else None
        protected = header(asked["epoch"], algorithms[asked["tag"]], freshness)
        if payload is not None:
            signed = detached(protected, payload, topic=topic, secret=secret)
        else:
            signed = attached(
                protected, body(*numbers, asked["status"], asked["values"]), topic=topic, secret=secret
            )
        answer = {
            "signed": signed.hex(),
            "verified": verified(message, payload, topic, secret),
            "verified_elsewhere": verified(message, payload, topic + "/", secret),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    {"vectors": vectors, "live": live}[sys.argv[1]]()
