"""cose-v1: COSE_Mac0 (RFC 9052 §6.2) with deterministic CBOR (RFC 8949 §4.2.1).

Only what the format needs is encoded here: integers, byte strings, text, arrays, maps and
single-precision floats, each in its shortest form.
"""

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.json_v1 import MAX_CHANNELS, MAX_SEQUENCE
from tidegate.keys import Key

DETACHED_PROPERTY = "tidegate-mac0"
"""The MQTT 5 user property that carries a detached signature."""

STATUS = {"": 0, "operational": 1, "degraded": 2, "maintenance": 3, "fault": 4}
"""The status byte by its text."""

_HMAC_256_256 = 5
_HMAC_256_64 = 4
_SHORT_TAG_BYTES = 8
_FRESHNESS = -70001
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP = range(6)
_NULL = b"\xf6"


@dataclass(frozen=True)
class Freshness:
    """What makes a message new: start counter, sequence number, milliseconds since 1970."""

    boot: int
    sequence: int
    timestamp_ms: int

    def __post_init__(self) -> None:
        if not 1 <= self.sequence <= MAX_SEQUENCE:
            raise ValueError(f"sequence {self.sequence} is not in 1..2^53")

    def encoded(self) -> bytes:
        return _integer(self.boot) + _integer(self.sequence) + _integer(self.timestamp_ms)


def _head(major: int, argument: int) -> bytes:
    """A data item's head with its argument in the shortest form (RFC 8949 §3)."""
    if argument < 24:  # noqa: PLR2004 - the largest argument inside the first byte
        return bytes([major << 5 | argument])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | code]) + argument.to_bytes(size, "big")
    raise ValueError(f"{argument} does not fit into 64 bits")


def _integer(value: int) -> bytes:
    return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)


def _bytes(value: bytes) -> bytes:
    return _head(_BYTES, len(value)) + value


def _protected(key: Key, short: bool, freshness: Freshness | None) -> bytes:
    members = [
        _integer(1) + _integer(_HMAC_256_64 if short else _HMAC_256_256),
        _integer(4) + _bytes(key.epoch.to_bytes(2, "big")),
    ]
    if freshness is not None:
        members.append(_integer(_FRESHNESS) + _head(_ARRAY, 3) + freshness.encoded())
    # Shorter keys first, then bytewise: 1, 4 and the private label stand in that order already.
    return _head(_MAP, len(members)) + b"".join(members)


def _tag(key: Key, protected: bytes, topic: str, payload: bytes, short: bool) -> bytes:
    """The MAC over MAC_structure (RFC 9052 §6.3), with the topic as external_aad."""
    context = _head(_TEXT, 4) + b"MAC0"
    covered = _head(_ARRAY, 4) + context + _bytes(protected) + _bytes(topic.encode()) + _bytes(payload)
    tag = key.mac(covered)
    return tag[:_SHORT_TAG_BYTES] if short else tag


def _mac0(protected: bytes, payload: bytes, tag: bytes) -> bytes:
    return _head(_ARRAY, 4) + _bytes(protected) + _head(_MAP, 0) + payload + _bytes(tag)


def sign(  # noqa: PLR0913 - the parts of a message
    freshness: Freshness,
    status: int,
    values: Sequence[float],
    key: Key,
    topic: str,
    *,
    short: bool = False,
) -> bytes:
    """The payload: `values` in the order of the device's registered channels, each as a float of
    32 bits. With `short` the tag has 8 bytes instead of 32."""
    if len(values) > MAX_CHANNELS:
        raise ValueError(f"{len(values)} channels, more than {MAX_CHANNELS}")
    floats = b"".join(b"\xfa" + struct.pack(">f", value) for value in values)
    if not all(math.isfinite(value) for value in values):
        raise ValueError("a reading is not a finite number")
    body = _head(_ARRAY, 5) + freshness.encoded() + _integer(status) + _head(_ARRAY, len(values)) + floats
    protected = _protected(key, short, None)
    return _mac0(protected, _bytes(body), _tag(key, protected, topic, body, short))


def sign_detached(freshness: Freshness, payload: bytes, key: Key, topic: str, *, short: bool = False) -> str:
    """The value of the user property for a payload that stays as it is (RFC 9052 §2, detached)."""
    protected = _protected(key, short, freshness)
    signed = _mac0(protected, _NULL, _tag(key, protected, topic, payload, short))
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode("ascii")
