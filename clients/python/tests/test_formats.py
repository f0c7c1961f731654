"""What is signed, byte for byte: against the vectors and against another COSE library."""

import base64
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cbor2
import pytest
from pycose.keys.symmetric import SymmetricKey
from pycose.messages.mac0message import Mac0Message

from tidegate import Key, cose_v1, json_v1

VECTORS = Path(__file__).parents[3] / "crates/tidegate-envelope/testdata/json-v1.jsonl"
WHEN = datetime(2026, 2, 19, 3, 35, 5, 551904, tzinfo=UTC)
TOPIC = "hydroficient/grandmarina/device-001/sensors"
KEY = Key(b"a key of 32 bytes for these tests"[:32], epoch=3)


def test_canonical_form_and_mac_are_those_of_the_vectors() -> None:
    compared = 0
    for line in VECTORS.read_text().splitlines():
        vector = json.loads(line)
        if vector["verdict"] != "authentic":
            continue
        message = json.loads(base64.b64decode(vector["payload"]))
        assert json_v1.canonical(message).decode() == vector["canonical"], vector["name"]
        assert Key(vector["secret"].encode()).mac(json_v1.canonical(message)).hex() == vector["hmac"]
        compared += 1
    assert compared > 30


def test_signed_message_covers_every_member() -> None:
    message = json_v1.unsigned("dev", WHEN, 7, {"flow_rate": 48}, boot=2, kid=3, status="é")
    signed = json.loads(json_v1.sign(message, KEY))
    tag = signed.pop("hmac")
    assert signed["timestamp"] == "2026-02-19T03:35:05.551904Z"
    assert (signed["boot"], signed["kid"], signed["readings"]) == (2, 3, {"flow_rate": 48.0})
    assert tag == KEY.mac(json_v1.canonical(signed)).hex()
    for name in signed:
        assert tag != KEY.mac(json_v1.canonical({**signed, name: "x"})).hex()


@pytest.mark.parametrize("sequence", [0, -1, 2**53 + 1])
def test_sequence_out_of_range_is_refused(sequence: int) -> None:
    with pytest.raises(ValueError, match="sequence"):
        json_v1.unsigned("dev", WHEN, sequence, {})
    assert json_v1.unsigned("dev", WHEN, 2**53, {})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_reading_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        json_v1.unsigned("dev", WHEN, 1, {"flow_rate": value})
    with pytest.raises(ValueError, match="finite"):
        cose_v1.sign(cose_v1.Freshness(1, 1, 0), 1, [value], KEY, TOPIC)


def test_time_without_an_offset_is_refused_and_another_offset_is_converted() -> None:
    with pytest.raises(ValueError, match="offset"):
        json_v1.timestamp_text(WHEN.replace(tzinfo=None))
    elsewhere = WHEN.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert json_v1.timestamp_text(elsewhere) == "2026-02-19T03:35:05.551904Z"


def test_derived_key_is_the_gateways() -> None:
    expected = (VECTORS.parent / "derived-key.hex").read_text().strip()
    assert Key.derive(bytes(range(32)), "device-001", 0).secret.hex() == expected
    assert Key.derive(bytes(range(32)), "device-001", 1).secret.hex() != expected
    with pytest.raises(ValueError, match="31 bytes"):
        Key.derive(bytes(31), "device-001")


def test_key_is_not_shown_and_a_file_that_others_read_is_refused(tmp_path: Path) -> None:
    assert "for these" not in repr(KEY)
    path = tmp_path / "device.key"
    path.write_bytes(b"secret")
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        Key.from_file(path)
    path.chmod(0o600)
    assert Key.from_file(path, 2) == Key(b"secret", 2)


def pycose(message: bytes, *, topic: str = TOPIC) -> Any:
    decoded: Any = Mac0Message.from_cose_obj(cbor2.loads(message), allow_unknown_attributes=True)
    decoded.key = SymmetricKey(k=KEY.secret, optional_params={})
    decoded.external_aad = topic.encode()
    return decoded


def test_another_cose_library_takes_a_detached_signature() -> None:
    payload = b'{"flow_rate": 48.0}'
    text = cose_v1.sign_detached(cose_v1.Freshness(7, 9, 1_771_472_105_551), payload, KEY, TOPIC)
    signature = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    decoded = pycose(signature)
    assert decoded.payload is None
    # pycose takes no detached payload for a MAC; putting it back in is the same (RFC 9052 §6.3).
    decoded.payload = payload
    assert decoded.verify_tag()
    decoded.payload = payload + b" "
    assert not decoded.verify_tag()


@pytest.mark.parametrize("short", [False, True])
def test_another_cose_library_takes_what_is_signed(short: bool) -> None:
    freshness = cose_v1.Freshness(7, 1 << 40, 1_771_472_105_551)
    message = cose_v1.sign(freshness, 1, [60.5, -1e-7, 0.0], KEY, TOPIC, short=short)
    decoded = pycose(message)
    assert decoded.verify_tag()
    assert not pycose(message, topic=TOPIC.replace("001", "002")).verify_tag()
    assert not pycose(message[:-1] + bytes([message[-1] ^ 1])).verify_tag()


def test_message_has_the_size_and_the_first_bytes_of_the_contract() -> None:
    key = Key(b"k", epoch=0x0102)
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    message = cose_v1.sign(cose_v1.Freshness(1, 70_000, 1_771_472_105_551), 1, values, key, TOPIC)
    assert message.startswith(bytes.fromhex("8447a2010504420102a0"))
    assert len(message) < 100
    short = cose_v1.sign(cose_v1.Freshness(1, 70_000, 1_771_472_105_551), 1, values, key, TOPIC, short=True)
    assert len(message) - len(short) == 32 - 8 + 1
    assert short.startswith(bytes.fromhex("8447a2010404420102a0"))
