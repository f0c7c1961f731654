"""A publisher: signs a device's readings and brings them to the broker in order.

Messages are signed when they are given, wait in a bounded queue while there is no connection, and
are sent at QoS 1. paho-mqtt connects, comes back after a lost connection with growing waits, and
sends again what was not acknowledged, byte for byte.

Three threads: the caller's fills the queue, paho's reports what happened, and one of ours sends.
paho calls back with locks of its own held, so its callbacks only leave a note for our thread.
"""

import bisect
import contextlib
import os
import queue
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tidegate import cose_v1, json_v1
from tidegate.keys import Key
from tidegate.sequence import SequenceFile
from tidegate.time_echo import EchoClock

FIRST_WAIT_S = 1
LONGEST_WAIT_S = 30
"""Waits before attempts to connect double from the first to the longest."""

_SESSION_EXPIRY_S = 300
_KEEP_ALIVE_S = 30
_REFUSED = 0x80
_NOT_STORED = 0x83
"""MQTT 5 §3.4.2.1, implementation specific: the gateway could not store the message."""
_FIRST_HOLD_S = 0.25
_LONGEST_HOLD_S = 0.5
"""Pauses before such a message is sent again: within a second of an outage's end it is taken."""
_TIME_IS_OLD_S = 3600.0
_TIME_ASKED_AGAIN_S = 10.0
_LOOK_AROUND_S = 1.0
_BEING_SENT = 0
"""Stands for a message id, which paho has not given yet; no message has this one."""


class Format(Enum):
    """How messages are written; the registry entry of the device says the same."""

    JSON_V1 = "json-v1"
    COSE_V1 = "cose-v1"
    COSE_DETACHED = "cose-v1-detached"


class Overflow(Enum):
    """What happens to a reading when the queue is full."""

    DROP_OLDEST = "drop-oldest"
    DROP_NEWEST = "drop-newest"
    REFUSE = "refuse"


class QueueFullError(Exception):
    """The queue is full and its policy is `Overflow.REFUSE`. No sequence number was used."""


@dataclass(frozen=True)
class Broker:
    """Where to connect. `ca`, `certificate` and `private_key` are PEM files.

    Without `ca` the connection is plain MQTT, and everybody on the way reads along. The files are
    read again before each connection: a certificate that was renewed meanwhile is used from the
    next one on.
    """

    host: str = "localhost"
    port: int = 8883
    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    private_key: str | os.PathLike[str] | None = None

    def context(self) -> ssl.SSLContext | None:
        """TLS 1.2 or newer that trusts `ca` alone and checks the broker's name."""
        if self.ca is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.private_key)
        return context

    def refresh(self, context: ssl.SSLContext) -> None:
        """Reads the files again into `context`, which keeps what it has when they cannot be used."""
        with contextlib.suppress(OSError):
            # Into another one first: a certificate without its key would spoil this one.
            if self.context() is None or self.ca is None:
                return
            context.load_verify_locations(self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.private_key)


@dataclass(frozen=True)
class Counts:
    """What became of the messages since the start."""

    published: int = 0
    """Given to `publish` and taken."""
    acknowledged: int = 0
    """The broker has them; from a Tidegate broker this means verified and durable."""
    postponed: int = 0
    """Times that a message could not be stored; it is sent again."""
    refused: int = 0
    """The broker said no; `on_refused` was called with the reason."""
    dropped: int = 0
    """Left out by a full queue, or too old when a connection came."""


@dataclass(frozen=True)
class _Message:
    sequence: int
    payload: bytes
    detached: str | None
    queued_at: float


@dataclass(frozen=True)
class _Answered:
    mid: int
    reason: ReasonCode


@dataclass(frozen=True)
class _Command:
    payload: bytes


class _Note(Enum):
    WAKE = "there may be something to send"
    CONNECTED = "a connection stands"
    STOP = "the publisher is being closed"


class Publisher:
    """One device at one broker.

    Raises ValueError for settings that do not fit, SequenceError when numbers cannot be had, and
    OSError or ssl.SSLError when certificates cannot be read. A broker that is away is no error.
    """

    def __init__(  # noqa: PLR0913 - settings, each with a name
        self,
        *,
        device: str,
        topic: str,
        broker: Broker,
        key: Key,
        state: str | os.PathLike[str],
        message_id: str | None = None,
        format: Format = Format.JSON_V1,
        channels: Sequence[str] = (),
        short_tag: bool = False,
        queue_capacity: int = 1024,
        overflow: Overflow = Overflow.DROP_OLDEST,
        in_flight: int = 20,
        max_age_s: float | None = 25.0,
        echo_time: bool = False,
        on_refused: Callable[[int, str], None] | None = None,
    ) -> None:
        """`device` is the certificate's identity and the MQTT client id, `message_id` the
        `device_id` in JSON messages, `state` the file with the sequence numbers. `channels` names
        the floats of cose-v1 in their registered order. Older messages than `max_age_s` are
        dropped: the gateway refuses those of more than 30 s. `echo_time` takes the time from the
        gateway instead of this machine's clock.
        """
        if not topic or "+" in topic or "#" in topic:
            raise ValueError(f"{topic!r} is not a topic to publish to")
        if format is Format.COSE_V1 and not channels:
            raise ValueError("cose-v1 needs the device's channels in their registered order")
        if queue_capacity < 1 or in_flight < 1:
            raise ValueError("queue_capacity and in_flight are at least 1")
        self._message_id = message_id or device
        self._topic = topic
        self._key = key
        self._format = format
        self._channels = tuple(channels)
        self._short_tag = short_tag
        self._capacity = queue_capacity
        self._overflow = overflow
        self._window = in_flight
        self._max_age_s = max_age_s
        self._on_refused = on_refused
        self._echo = EchoClock(device, key) if echo_time else None
        self._echo_asked_at = -_TIME_IS_OLD_S
        self._echo_set_at = -_TIME_IS_OLD_S
        self._waiting: deque[_Message] = deque()
        self._in_flight: dict[int, _Message] = {}
        self._counts = Counts()
        # The pause that is under way, when it ends, and the one before it.
        self._hold_s: float | None = None
        self._held_until = 0.0
        self._last_hold_s = 0.0
        # Guards what is above from `_waiting` on, and is never held while paho is called.
        self._changed = threading.Condition()
        self._notes: queue.SimpleQueue[_Answered | _Command | _Note] = queue.SimpleQueue()
        self._sequence = SequenceFile(state, device)
        try:
            self._client = self._connect(device, broker)
        except BaseException:
            self._sequence.close()
            raise
        self._sender = threading.Thread(target=self._run, name=f"tidegate-{device}", daemon=True)
        self._sender.start()

    def publish(
        self, readings: Mapping[str, float], *, status: str = "operational", at: datetime | None = None
    ) -> int:
        """Signs a reading and queues it; returns its sequence number. Never waits for the network.

        `at` is when it was measured, now by default. With `echo_time` a reading before the first
        answer is a RuntimeError; `wait_for_time` waits for it.
        """
        when = at or self._now()
        with self._changed:
            full = len(self._waiting) >= self._capacity
            if full and self._overflow is Overflow.REFUSE:
                raise QueueFullError(f"{self._capacity} messages wait for a connection")
            # Under the lock, so that messages are queued in the order of their numbers.
            sequence = self._sequence.advance()
            message = self._signed(sequence, when, readings, status)
            self._count(published=1, dropped=int(full))
            if full and self._overflow is Overflow.DROP_OLDEST:
                self._waiting.popleft()
            if not full or self._overflow is Overflow.DROP_OLDEST:
                self._waiting.append(message)
        self._notes.put(_Note.WAKE)
        return sequence

    def wait_for_time(self, timeout_s: float) -> bool:
        """Waits until the gateway has said the time; at once true with this machine's clock."""
        echo = self._echo
        if echo is None:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: echo.now() is not None, timeout_s)

    @property
    def counts(self) -> Counts:
        """Totals since the start."""
        with self._changed:
            return self._counts

    @property
    def waiting(self) -> int:
        """Messages that are queued, or sent and not yet acknowledged."""
        with self._changed:
            return len(self._waiting) + len(self._in_flight)

    def close(self, patience_s: float = 5.0) -> int:
        """Sends what is queued, waits for acknowledgements, and disconnects.

        Returns how many messages the broker has not acknowledged: 0 when all went well.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._in_flight, patience_s)
            unfinished = len(self._waiting) + len(self._in_flight)
        self._notes.put(_Note.STOP)
        self._sender.join()
        self._client.disconnect()
        self._client.loop_stop()
        self._sequence.close()
        return unfinished

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, device: str, broker: Broker) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
        context = broker.context()
        if context is not None:
            client.tls_set_context(context)
            client.on_pre_connect = lambda _client, _userdata: broker.refresh(context)
        client.max_inflight_messages_set(self._window)
        client.reconnect_delay_set(FIRST_WAIT_S, LONGEST_WAIT_S)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        session = _properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = _SESSION_EXPIRY_S
        # The first connection starts anew; later ones resume, so that a message whose
        # acknowledgement was lost is known as a redelivery.
        client.connect_async(
            broker.host,
            broker.port,
            keepalive=_KEEP_ALIVE_S,
            clean_start=mqtt.MQTT_CLEAN_START_FIRST_ONLY,
            properties=session,
        )
        client.loop_start()
        return client

    def _now(self) -> datetime:
        if self._echo is None:
            return datetime.now(UTC)
        known = self._echo.now()
        if known is None:
            raise RuntimeError("the gateway has not said the time yet; call wait_for_time first")
        return known

    def _signed(self, sequence: int, when: datetime, readings: Mapping[str, float], status: str) -> _Message:
        boot = self._sequence.boot
        if self._format is Format.COSE_V1:
            values = [readings[name] for name in self._channels]
            freshness = cose_v1.Freshness(boot, sequence, _milliseconds(when))
            payload = cose_v1.sign(
                freshness,
                cose_v1.STATUS[status],
                values,
                self._key,
                self._topic,
                short=self._short_tag,
            )
            return _Message(sequence, payload, None, time.monotonic())
        message = json_v1.unsigned(
            self._message_id, when, sequence, readings, boot=boot, kid=self._key.epoch, status=status
        )
        if self._format is Format.JSON_V1:
            return _Message(sequence, json_v1.sign(message, self._key), None, time.monotonic())
        payload = json_v1.canonical(message)
        freshness = cose_v1.Freshness(boot, sequence, _milliseconds(when))
        detached = cose_v1.sign_detached(freshness, payload, self._key, self._topic, short=self._short_tag)
        return _Message(sequence, payload, detached, time.monotonic())

    def _run(self) -> None:
        """The sending thread: everything that has happened, one note after the other."""
        while True:
            try:
                note = self._notes.get(timeout=_LOOK_AROUND_S if self._hold_s is None else _FIRST_HOLD_S / 4)
            except queue.Empty:
                note = _Note.WAKE
            match note:
                case _Note.STOP:
                    return
                case _Note.CONNECTED if self._echo is not None:
                    self._client.subscribe(_sibling(self._topic, "commands"), qos=1)
                case _Answered(mid, reason):
                    self._answered(mid, reason)
                case _Command(payload):
                    self._take_time(payload)
                case _:
                    pass
            self._ask_time()
            self._send()

    def _send(self) -> None:
        """Hands over what fits into the window."""
        while self._client.is_connected() and not self._holds_back():
            with self._changed:
                if not self._waiting or len(self._in_flight) >= self._window:
                    return
                message = self._waiting.popleft()
                if self._max_age_s is not None and time.monotonic() - message.queued_at > self._max_age_s:
                    self._count(dropped=1)
                    self._changed.notify_all()
                    continue
                self._in_flight[_BEING_SENT] = message
            properties = None
            if message.detached is not None:
                properties = _properties(PacketTypes.PUBLISH)
                properties.UserProperty = (cose_v1.DETACHED_PROPERTY, message.detached)
            sent = self._client.publish(self._topic, message.payload, qos=1, properties=properties)
            # Its answer is a note that this very thread reads later.
            with self._changed:
                self._in_flight[sent.mid] = self._in_flight.pop(_BEING_SENT)

    def _holds_back(self) -> bool:
        """Whether to wait: for the gateway's store, and for the answers to all that is in flight.

        What is in flight behind a message that was not stored comes back too, and must be in its
        place before the first is sent again.
        """
        if self._hold_s is None:
            return False
        with self._changed:
            if self._in_flight or time.monotonic() < self._held_until:
                return True
        self._last_hold_s, self._hold_s = self._hold_s, None
        return False

    def _postpone(self, message: _Message) -> None:
        """Puts a message back in its place, and sends nothing for a while."""
        if self._hold_s is None:
            self._hold_s = min(max(2 * self._last_hold_s, _FIRST_HOLD_S), _LONGEST_HOLD_S)
            self._held_until = time.monotonic() + self._hold_s
        bisect.insort(self._waiting, message, key=lambda waiting: waiting.sequence)

    def _answered(self, mid: int, reason: ReasonCode) -> None:
        refused = reason.value >= _REFUSED
        with self._changed:
            message = self._in_flight.pop(mid, None)
            if message is None:
                return
            if reason.value == _NOT_STORED:
                self._postpone(message)
                self._count(postponed=1)
                self._changed.notify_all()
                return
            self._last_hold_s = 0.0
            self._count(acknowledged=int(not refused), refused=int(refused))
            self._changed.notify_all()
        if refused and self._on_refused is not None:
            # What the caller's function raises is no reason to stop sending.
            with contextlib.suppress(Exception):
                self._on_refused(message.sequence, str(reason))

    def _ask_time(self) -> None:
        """Asks for the time when it is unknown or old, unless the last question is recent."""
        now = time.monotonic()
        old = now - self._echo_set_at > _TIME_IS_OLD_S
        recent = now - self._echo_asked_at < _TIME_ASKED_AGAIN_S
        if self._echo is None or not old or recent or not self._client.is_connected():
            return
        self._echo_asked_at = now
        self._client.publish(_sibling(self._topic, "time"), self._echo.request(), qos=1)

    def _take_time(self, answer: bytes) -> None:
        with self._changed:
            if self._echo is not None and self._echo.take(answer):
                self._echo_set_at = time.monotonic()
                self._changed.notify_all()

    def _on_connect(
        self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.value < _REFUSED:
            self._notes.put(_Note.CONNECTED)

    def _on_publish(
        self, _client: mqtt.Client, _data: object, mid: int, reason: ReasonCode, _properties: object
    ) -> None:
        self._notes.put(_Answered(mid, reason))

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._notes.put(_Command(message.payload))

    def _count(
        self,
        *,
        published: int = 0,
        acknowledged: int = 0,
        postponed: int = 0,
        refused: int = 0,
        dropped: int = 0,
    ) -> None:
        counts = self._counts
        self._counts = replace(
            counts,
            published=counts.published + published,
            acknowledged=counts.acknowledged + acknowledged,
            postponed=counts.postponed + postponed,
            refused=counts.refused + refused,
            dropped=counts.dropped + dropped,
        )


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]


def _sibling(topic: str, last: str) -> str:
    """The topic beside the telemetry topic: …/<device>/sensors becomes …/<device>/<last>."""
    return topic.rsplit("/", 1)[0] + "/" + last


def _milliseconds(when: datetime) -> int:
    if when.utcoffset() is None:
        raise ValueError("a timestamp needs an offset, as in datetime.now(datetime.UTC)")
    return round(when.timestamp() * 1000)
