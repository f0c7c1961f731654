"""The publisher against the real binary: everything that it sends is verified and stored."""

import json
import os
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate import Broker, Format, Key, Overflow, Publisher, QueueFullError

PATIENCE_S = 30
CHANNELS = ("pressure_upstream", "pressure_downstream", "flow_rate", "gate_a_position", "gate_b_position")
READING = dict(zip(CHANNELS, (60.125, 55.5, 48.25, 45.0, 44.75), strict=True))


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} takes longer than {PATIENCE_S} s"
        time.sleep(0.02)


class Site:
    """A Tidegate of its own: temporary folder, free ports, the real binary."""

    def __init__(self, folder: Path, binary: str) -> None:
        self.folder = folder
        self.binary = binary
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
        mqtt, self.mqtts, self.page, events = (opened.getsockname()[1] for opened in sockets)
        for opened in sockets:
            opened.close()
        (folder / "tidegate.toml").write_text(
            f'level = "signed"\n[listen]\nmqtt_port = {mqtt}\nmqtts_port = {self.mqtts}\n'
            f"page_port = {self.page}\nevents_port = {events}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str) -> str:
        command = [self.binary, "--dir", str(self.folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=self.folder).stdout

    def start(self) -> None:
        command = [self.binary, "--dir", str(self.folder), "up"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self.folder)
        wait_for("the gateway's start", self._is_ready)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def broker(self, device: str) -> Broker:
        certs = self.folder / "certs"
        return Broker(
            "localhost", self.mqtts, certs / "ca.pem", certs / f"{device}.pem", certs / f"{device}-key.pem"
        )

    def key(self, device: str) -> Key:
        path = self.folder / f"{device}.key"
        if not path.exists():
            self.run("devices", "key", device, "--out", str(path))
        return Key.from_file(path)

    def publisher(self, device: str = "device-001", **settings: Any) -> Publisher:
        number = device.removeprefix("device-")
        return Publisher(
            device=device,
            message_id=f"HYDROLOGIC-Device-{number}",
            topic=f"hydroficient/grandmarina/{device}/sensors",
            broker=self.broker(device),
            state=self.folder / f"{device}.python-sequence",
            **{"key": self.key(device)} | settings,
        )

    def readings(self, device: str) -> list[dict[str, Any]]:
        lines = self.run("readings", "--device", device, "--format", "json").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    binary = os.environ.get("TIDEGATE_BIN")
    assert binary, "TIDEGATE_BIN names the tidegate binary; `make test-python` sets it"
    site = Site(tmp_path, binary)
    site.start()
    yield site
    site.kill()


def test_readings_are_verified_and_stored_with_their_values(site: Site) -> None:
    with site.publisher() as publisher:
        sequences = [publisher.publish(READING) for _ in range(50)]
        assert publisher.close(PATIENCE_S) == 0
        assert publisher.counts.acknowledged == 50
    stored = site.readings("device-001")
    assert sorted(reading["sequence"] for reading in stored) == sequences
    assert stored[0]["channels"] == READING


def test_wrong_key_is_refused_and_said(site: Site) -> None:
    refused: list[int] = []
    publisher = site.publisher(
        key=Key(b"not the key"), on_refused=lambda number, _why: refused.append(number)
    )
    number = publisher.publish(READING)
    assert publisher.close(PATIENCE_S) == 0
    assert (publisher.counts.refused, publisher.counts.acknowledged) == (1, 0)
    assert refused == [number]
    assert site.readings("device-001") == []


def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed(site: Site) -> None:
    publisher = site.publisher()
    sequences = [publisher.publish(READING) for _ in range(20)]
    wait_for("the first acknowledgement", lambda: publisher.counts.acknowledged > 0)
    site.kill()
    sequences += [publisher.publish(READING) for _ in range(20)]
    site.start()
    assert publisher.close(PATIENCE_S) == 0
    stored = [reading["sequence"] for reading in site.readings("device-001")]
    assert sorted(stored) == sequences


def test_messages_of_an_outage_are_sent_again_when_the_database_can_be_written(site: Site) -> None:
    publisher = site.publisher()
    sequences = [publisher.publish(READING)]
    wait_for("the first acknowledgement", lambda: publisher.counts.acknowledged == 1)
    database = sqlite3.connect(site.folder / "data" / "tidegate.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    sequences += [publisher.publish(READING) for _ in range(20)]
    wait_for("a message that could not be stored", lambda: publisher.counts.postponed > 0)
    database.execute("ROLLBACK")
    database.close()
    assert publisher.close(PATIENCE_S) == 0
    assert (publisher.counts.acknowledged, publisher.counts.refused) == (len(sequences), 0)
    stored = [reading["sequence"] for reading in site.readings("device-001")]
    assert sorted(stored) == sequences


def test_restarted_publisher_goes_on_above_every_number_used(site: Site) -> None:
    for _ in range(2):
        publisher = site.publisher()
        publisher.publish(READING)
        assert publisher.close(PATIENCE_S) == 0
        assert publisher.counts.acknowledged == 1
    assert len(site.readings("device-001")) == 2


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("format", [Format.COSE_V1, Format.COSE_DETACHED])
def test_cose_messages_are_verified_and_stored(tmp_path: Path, format: Format, short: bool) -> None:
    site = Site(tmp_path, os.environ["TIDEGATE_BIN"])
    channels = ["--channels", ",".join(CHANNELS)] if format is Format.COSE_V1 else []
    site.start()
    site.kill()
    site.run("devices", "add", "meter-9", "--zone", "kitchen", "--format", format.value, *channels)
    site.start()
    try:
        publisher = Publisher(
            device="meter-9",
            topic="hydroficient/grandmarina/meter-9/sensors",
            broker=site.broker("meter-9"),
            key=site.key("meter-9"),
            state=tmp_path / "meter-9.sequence",
            format=format,
            channels=CHANNELS,
            short_tag=short,
        )
        publisher.publish(READING)
        assert publisher.close(PATIENCE_S) == 0
        assert publisher.counts.acknowledged == 1
        [stored] = site.readings("meter-9")
        assert stored["channels"] == READING
    finally:
        site.kill()


def test_device_without_a_clock_takes_the_time_from_the_gateway(site: Site) -> None:
    publisher = site.publisher(echo_time=True)
    assert publisher.wait_for_time(PATIENCE_S)
    publisher.publish(READING)
    assert publisher.close(PATIENCE_S) == 0
    assert publisher.counts.acknowledged == 1


def test_time_under_another_key_is_not_taken(site: Site) -> None:
    publisher = site.publisher(echo_time=True, key=Key(b"not the key"))
    assert not publisher.wait_for_time(2)
    with pytest.raises(RuntimeError, match="wait_for_time"):
        publisher.publish(READING)
    publisher.close(0)


def offline(folder: Path, **settings: Any) -> Publisher:
    return Publisher(
        device="device-001",
        topic="a/device-001/sensors",
        broker=Broker("127.0.0.1", 1),
        key=Key(b"key"),
        state=folder / "device-001.sequence",
        queue_capacity=2,
        **settings,
    )


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
def test_full_queue_drops_by_its_policy(tmp_path: Path, overflow: Overflow) -> None:
    publisher = offline(tmp_path, overflow=overflow)
    for _ in range(5):
        publisher.publish(READING)
    assert (publisher.waiting, publisher.counts.dropped) == (2, 3)
    kept = [message.sequence for message in publisher._waiting]
    assert kept == ([4, 5] if overflow is Overflow.DROP_OLDEST else [1, 2])
    assert publisher.close(0) == 2


def test_full_queue_that_refuses_uses_no_number(tmp_path: Path) -> None:
    publisher = offline(tmp_path, overflow=Overflow.REFUSE)
    assert [publisher.publish(READING) for _ in range(2)] == [1, 2]
    with pytest.raises(QueueFullError, match="2 messages"):
        publisher.publish(READING)
    publisher.close(0)
    with pytest.raises(ValueError, match="topic"):
        Publisher(device="d", topic="a/#", broker=Broker(), key=Key(b"k"), state=tmp_path / "other.sequence")


def test_command_line_publishes_lines_and_names_the_wrong_one(site: Site) -> None:
    broker = site.broker("device-001")
    site.key("device-001")
    command = [
        os.environ.get("TIDEGATE_PUBLISH", "tidegate-publish"),
        *("--device", "device-001", "--message-id", "HYDROLOGIC-Device-001", "--port", str(site.mqtts)),
        *("--topic", "hydroficient/grandmarina/device-001/sensors", "--ca", str(broker.ca)),
        *("--certificate", str(broker.certificate), "--private-key", str(broker.private_key)),
        *("--key", str(site.folder / "device-001.key"), "--state", str(site.folder / "cli.sequence")),
    ]
    lines = json.dumps(READING) + "\nnot json\n"
    ran = subprocess.run(
        command, input=lines, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ran.returncode == 1
    assert "line 2" in ran.stderr
    assert ran.stdout.startswith("1 acknowledged, 0 refused")
    assert len(site.readings("device-001")) == 1


def test_renewed_certificate_and_new_ca_are_used_from_the_next_connection_on(site: Site) -> None:
    certificate = site.folder / "certs" / "device-001.pem"
    old = certificate.read_bytes()
    with site.publisher() as publisher:
        publisher.publish(READING)
        wait_for("the first acknowledgement", lambda: publisher.counts.acknowledged == 1)
        site.kill()
        # With certificates of the old CA nobody is let in any more, nor is the server believed.
        for step in ("--begin", "--reissue", "--finish"):
            site.run("certs", "rotate-ca", step)
        assert certificate.read_bytes() != old
        site.start()
        publisher.publish(READING)
        assert publisher.close(PATIENCE_S) == 0
        assert publisher.counts.acknowledged == 2


def test_certificate_without_its_key_does_not_take_the_place_of_a_good_pair(site: Site) -> None:
    certs = site.folder / "certs"
    with site.publisher() as publisher:
        publisher.publish(READING)
        wait_for("the first acknowledgement", lambda: publisher.counts.acknowledged == 1)
        site.kill()
        (certs / "device-001.pem").write_bytes((certs / "device-002.pem").read_bytes())
        site.start()
        publisher.publish(READING)
        assert publisher.close(PATIENCE_S) == 0
        assert publisher.counts.acknowledged == 2
