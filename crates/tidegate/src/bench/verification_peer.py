"""The checks of a Python subscriber: parse, MAC, time window, rising sequence. Prints ns a message."""

import datetime
import hashlib
import hmac
import json
import sys
import time

key = bytes.fromhex(sys.argv[1])
now = float(sys.argv[2])
payloads = sys.stdin.buffer.read().splitlines()
last = {}

start = time.perf_counter_ns()
for payload in payloads:
    message = json.loads(payload)
    given = message.pop("hmac")
    canonical = json.dumps(message, sort_keys=True).encode()
    expected = hmac.new(key, canonical, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, given):
        sys.exit("bad MAC")
    sent = datetime.datetime.fromisoformat(message["timestamp"].replace("Z", "+00:00")).timestamp()
    if not -5 <= now - sent <= 30:
        sys.exit("stale")
    device, sequence = message["device_id"], message["sequence"]
    if sequence <= last.get(device, 0):
        sys.exit("replay")
    last[device] = sequence
print((time.perf_counter_ns() - start) / len(payloads))
