"""`tidegate-publish`: publishes readings from standard input, one JSON object a line."""

import argparse
import json
import sys

from tidegate.keys import Key
from tidegate.publisher import Broker, Format, Publisher

_EXAMPLES = """\
example:
  echo '{"pressure_upstream": 60.1, "flow_rate": 48.2}' | tidegate-publish \\
    --device device-001 --message-id HYDROLOGIC-Device-001 \\
    --topic hydroficient/grandmarina/device-001/sensors \\
    --ca certs/ca.pem --certificate certs/device-001.pem --private-key certs/device-001-key.pem \\
    --key device-001.key --state device-001.sequence
"""


def main() -> int:
    """Exit code 1 when a reading was refused, dropped or not acknowledged."""
    parser = argparse.ArgumentParser(
        prog="tidegate-publish",
        description="Publish signed readings from standard input, one JSON object of numbers a line.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", required=True, help="identity in the certificate, and client id")
    parser.add_argument("--message-id", help="device_id in the messages [default: as --device]")
    parser.add_argument("--topic", required=True, help="the device's telemetry topic")
    parser.add_argument("--host", default="localhost", help="broker [default: localhost]")
    parser.add_argument("--port", type=int, default=8883, help="port [default: 8883]")
    parser.add_argument("--ca", help="PEM file of the CA; without it the connection is plain MQTT")
    parser.add_argument("--certificate", help="PEM file of the device's certificate")
    parser.add_argument("--private-key", help="PEM file of the certificate's key")
    parser.add_argument("--key", required=True, help="file whose bytes are the signing key, mode 0600")
    parser.add_argument("--epoch", type=int, default=0, help="epoch of the signing key [default: 0]")
    parser.add_argument("--state", required=True, help="file that keeps the sequence numbers")
    parser.add_argument("--format", choices=[format.value for format in Format], default=Format.JSON_V1.value)
    parser.add_argument("--channels", default="", help="for cose-v1: the registered channels, with commas")
    parser.add_argument("--short-tag", action="store_true", help="for cose: a MAC of 8 bytes instead of 32")
    parser.add_argument("--echo-time", action="store_true", help="take the time from the gateway")
    arguments = parser.parse_args()

    def refused(sequence: int, reason: str) -> None:
        print(f"message {sequence} was refused: {reason}", file=sys.stderr)

    try:
        publisher = Publisher(
            device=arguments.device,
            message_id=arguments.message_id,
            topic=arguments.topic,
            broker=Broker(
                arguments.host, arguments.port, arguments.ca, arguments.certificate, arguments.private_key
            ),
            key=Key.from_file(arguments.key, arguments.epoch),
            state=arguments.state,
            format=Format(arguments.format),
            channels=[name for name in arguments.channels.split(",") if name],
            short_tag=arguments.short_tag,
            echo_time=arguments.echo_time,
            on_refused=refused,
        )
    except Exception as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = _publish_lines(publisher)
    unfinished = publisher.close()
    counts = publisher.counts
    print(f"{counts.acknowledged} acknowledged, {counts.refused} refused, {unfinished} without an answer")
    return int(failed or unfinished > 0 or counts.refused > 0 or counts.dropped > 0)


def _publish_lines(publisher: Publisher) -> bool:
    """Publishes until the input or the patience of a person ends; says whether a line was wrong."""
    failed = False
    try:
        if not publisher.wait_for_time(30):
            print("error: the gateway does not say the time", file=sys.stderr)
            return True
        for number, line in enumerate(sys.stdin, start=1):
            try:
                publisher.publish(json.loads(line))
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                print(f"line {number}: {error!r}", file=sys.stderr)
                failed = True
    except KeyboardInterrupt:
        pass
    return failed


if __name__ == "__main__":
    sys.exit(main())
