"""Publish signed sensor readings to Tidegate.

One message's way: `publisher` takes a reading, `sequence` gives it a number that was never used
before, `json_v1` or `cose_v1` signs it with a key from `keys`, and paho-mqtt brings it to the broker.
"""

from tidegate.keys import Key
from tidegate.publisher import Broker, Counts, Format, Overflow, Publisher, QueueFullError
from tidegate.sequence import SequenceError, SequenceFile

__all__ = [
    "Broker",
    "Counts",
    "Format",
    "Key",
    "Overflow",
    "Publisher",
    "QueueFullError",
    "SequenceError",
    "SequenceFile",
]
