"""json-v1: one JSON object with its MAC inside."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from tidegate.keys import Key

MAX_SEQUENCE = 2**53
MAX_CHANNELS = 32
_MAX_BOOT = 2**32 - 1


def timestamp_text(when: datetime) -> str:
    """RFC 3339 in UTC with microseconds and Z. Raises ValueError for a time without an offset."""
    if when.utcoffset() is None:
        raise ValueError("a timestamp needs an offset, as in datetime.now(datetime.UTC)")
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def checked(readings: Mapping[str, float]) -> dict[str, float]:
    """The readings as floats. Raises ValueError for too many and for what is not finite."""
    if len(readings) > MAX_CHANNELS:
        raise ValueError(f"{len(readings)} channels, more than {MAX_CHANNELS}")
    values = {name: float(value) for name, value in readings.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"the reading {name} is {value}, not a finite number")
    return values


def unsigned(  # noqa: PLR0913 - the members of a message
    device_id: str,
    timestamp: datetime,
    sequence: int,
    readings: Mapping[str, float],
    *,
    boot: int | None = None,
    kid: int = 0,
    status: str = "operational",
) -> dict[str, object]:
    """The message without its MAC. `boot` is the publisher's start counter, `kid` the key epoch."""
    if not 1 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"sequence {sequence} is not in 1..2^53")
    message: dict[str, object] = {
        "device_id": device_id,
        "timestamp": timestamp_text(timestamp),
        "sequence": sequence,
        "readings": checked(readings),
        "status": status,
    }
    if boot is not None:
        if not 0 <= boot <= _MAX_BOOT:
            raise ValueError(f"boot {boot} is not in 0..2^32-1")
        message["boot"] = boot
    if kid:
        message["kid"] = kid
    return message


def canonical(message: Mapping[str, object]) -> bytes:
    """What is signed: the object without `hmac`, with sorted keys, ASCII only."""
    covered = {name: value for name, value in message.items() if name != "hmac"}
    return json.dumps(covered, sort_keys=True, allow_nan=False).encode("ascii")


def sign(message: Mapping[str, object], key: Key) -> bytes:
    """The payload: the message with its MAC as one more member."""
    tag = key.mac(canonical(message)).hex()
    return json.dumps({**message, "hmac": tag}, sort_keys=True, allow_nan=False).encode("ascii")
