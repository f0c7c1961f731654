"""Sequence numbers over restarts, damage and two processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate import SequenceError, SequenceFile
from tidegate.json_v1 import MAX_SEQUENCE
from tidegate.sequence import BLOCK, _checksum


def test_numbers_rise_over_restarts_and_cost_one_write_a_block(tmp_path: Path) -> None:
    path = tmp_path / "device.sequence"
    last = 0
    for boot in range(1, 6):
        with SequenceFile(path, "device-001") as numbers:
            assert numbers.boot == boot
            used = [numbers.advance() for _ in range(2 * BLOCK + boot)]
            assert used[0] > last
            assert used == list(range(used[0], used[0] + len(used)))
            assert numbers.writes == 3
            last = used[-1]


def test_no_number_is_used_twice_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "device.sequence"
    program = (
        "import sys, tidegate\n"
        "numbers = tidegate.SequenceFile(sys.argv[1], 'device-001')\n"
        "while True: print(numbers.advance(), flush=True)\n"
    )
    highest = 0
    for life in range(5):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        used = [int(child.stdout.readline()) for _ in range(BLOCK - 20 + 10 * life)]
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split(b"\n")[:-1]
        child.wait()
        used += [int(number) for number in rest]
        assert used[0] > highest
        assert used == sorted(set(used))
        highest = used[-1]


def test_every_changed_byte_and_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.sequence"
    SequenceFile(path, "device-001").close()
    good = path.read_bytes()
    for position in range(len(good)):
        for bad in (good[:position], good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]):
            if not bad:
                continue
            path.write_bytes(bad)
            with pytest.raises(SequenceError):
                SequenceFile(path, "device-001")
    path.write_bytes(good)
    SequenceFile(path, "device-001").close()


def test_state_in_use_and_state_of_another_device_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.sequence"
    with SequenceFile(path, "device-001"), pytest.raises(SequenceError, match="in use"):
        SequenceFile(path, "device-001")
    with pytest.raises(SequenceError, match="another device"):
        SequenceFile(path, "device-002")
    with SequenceFile(path, "device-001") as numbers:
        assert numbers.boot == 2


def test_last_number_is_used_and_none_after_it(tmp_path: Path) -> None:
    path = tmp_path / "device.sequence"
    lines = f"tidegate-sequence 1\ndevice device-001\nboot 1\nreserved {MAX_SEQUENCE - 1}\n"
    path.write_text(f"{lines}sha256 {_checksum(lines)}\n")
    with SequenceFile(path, "device-001") as numbers:
        assert numbers.advance() == MAX_SEQUENCE
        with pytest.raises(SequenceError, match="all its sequence numbers"):
            numbers.advance()


def test_file_that_cannot_be_written_is_an_error_and_uses_no_number(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "device.sequence"
    path.parent.mkdir()
    with SequenceFile(path, "device-001") as numbers:
        for _ in range(BLOCK):
            last = numbers.advance()
        os.rename(path.parent, tmp_path / "moved")
        with pytest.raises(SequenceError, match="cannot reserve"):
            numbers.advance()
        os.rename(tmp_path / "moved", path.parent)
        assert numbers.advance() == last + 1
