"""The time from the gateway, for a device without a clock.

The device asks with a random nonce, and the gateway answers with the time and a MAC over both; so
an old answer cannot be passed off as a new one. The idea is that of Echo (RFC 9175 §2).
"""

import hmac
import json
import secrets
import time
from datetime import UTC, datetime, timedelta

from tidegate.json_v1 import timestamp_text
from tidegate.keys import Key

LONGEST_ROUND_TRIP_S = 5.0
"""An answer that took longer says too little about now."""

_NONCE_BYTES = 16
_CONTEXT = b"tidegate/v1 time"


class EchoClock:
    """Time by the gateway's clock, off by at most half a round trip and this machine's drift."""

    def __init__(self, device: str, key: Key) -> None:
        self._device = device
        self._key = key
        self._asked: tuple[str, float] | None = None
        self._known: tuple[datetime, float] | None = None
        self.uncertainty_s: float | None = None
        """How far the time may be off; None before the first answer."""

    def request(self) -> bytes:
        """A question to publish on the device's time topic. An earlier one is void from now on."""
        nonce = secrets.token_hex(_NONCE_BYTES)
        self._asked = nonce, time.monotonic()
        return json.dumps({"nonce": nonce}).encode("ascii")

    def take(self, answer: bytes) -> bool:
        """Whether `answer` is the gateway's to the question that is open; then the clock is set."""
        if self._asked is None:
            return False
        now = time.monotonic()
        nonce, asked_at = self._asked
        when = self._genuine(answer, nonce)
        if when is None or now - asked_at > LONGEST_ROUND_TRIP_S:
            return False
        self._asked = None
        half = (now - asked_at) / 2
        self._known = when + timedelta(seconds=half), now
        self.uncertainty_s = half
        return True

    def now(self) -> datetime | None:
        """The time; None before the first answer."""
        if self._known is None:
            return None
        when, at = self._known
        return when + timedelta(seconds=time.monotonic() - at)

    def _genuine(self, answer: bytes, nonce: str) -> datetime | None:
        try:
            said = json.loads(answer)
            if not isinstance(said, dict) or said.get("nonce") != nonce:
                return None
            text, tag = str(said["time"]), str(said["hmac"])
            covered = b"\x00".join([_CONTEXT, self._device.encode(), nonce.encode(), text.encode()])
            if not hmac.compare_digest(self._key.mac(covered).hex().encode(), tag.encode()):
                return None
            when = datetime.fromisoformat(text)
        except (ValueError, KeyError, UnicodeError, RecursionError):
            return None
        return when.astimezone(UTC) if timestamp_text(when) == text else None
