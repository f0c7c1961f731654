"""A publisher as anyone would write it from docs/envelope.md: paho-mqtt, json.dumps and hmac.

The tests use it to show that Tidegate takes what a stock Python program sends. It prints one
JSON line for each acknowledged message: {"sequence": 1, "reason": 0}.
"""

import argparse
import datetime
import hashlib
import hmac
import json
import queue
import random
import sys
import time

import paho.mqtt.client as mqtt


def sign(message: dict, key: bytes) -> dict:
    """Adds the MAC over the message as json.dumps writes it with sorted keys."""
    canonical = json.dumps(message, sort_keys=True).encode()
    return message | {"hmac": hmac.new(key, canonical, hashlib.sha256).hexdigest()}


def reading(device_id: str, sequence: int) -> dict:
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "device_id": device_id,
        "timestamp": now.isoformat().replace("+00:00", "Z"),
        "sequence": sequence,
        "readings": {
            "pressure_upstream": round(random.uniform(59, 61), 2),
            "pressure_downstream": round(random.uniform(54, 56), 2),
            "flow_rate": round(random.uniform(45, 50), 2),
            "gate_a_position": round(random.uniform(44, 46), 2),
            "gate_b_position": round(random.uniform(44, 46), 2),
        },
        "status": "operational",
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--secret-file", help="sign with this file's bytes")
    parser.add_argument("--epoch", type=int, help="name the key's epoch in each message")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--device-id", required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--first-sequence", type=int, default=1)
    parser.add_argument("--stuck", action="store_true", help="measure the same each time")
    parser.add_argument("--protocol", choices=["3.1.1", "5"], default="5")
    arguments = parser.parse_args()

    version = mqtt.MQTTv5 if arguments.protocol == "5" else mqtt.MQTTv311
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=arguments.device_id, protocol=version)
    if arguments.ca:
        client.tls_set(ca_certs=arguments.ca, certfile=arguments.cert, keyfile=arguments.key)
    acknowledged: queue.Queue = queue.Queue()
    client.on_publish = lambda _client, _data, mid, reason, _properties: acknowledged.put((mid, reason.value))
    client.connect("localhost", arguments.port, keepalive=10)
    client.loop_start()
    deadline = time.monotonic() + 10
    while not client.is_connected():
        if time.monotonic() > deadline:
            print("cannot connect", file=sys.stderr)
            return 1
        time.sleep(0.01)

    key = open(arguments.secret_file, "rb").read() if arguments.secret_file else None
    for sequence in range(arguments.first_sequence, arguments.first_sequence + arguments.count):
        if arguments.stuck:
            random.seed(1)
        message = reading(arguments.device_id, sequence)
        if key is None:
            del message["sequence"]
        else:
            if arguments.epoch is not None:
                message["kid"] = arguments.epoch
            message = sign(message, key)
        client.publish(arguments.topic, json.dumps(message), qos=1)
        _, reason = acknowledged.get(timeout=10)
        print(json.dumps({"sequence": sequence, "reason": reason}), flush=True)
    client.disconnect()
    client.loop_stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
