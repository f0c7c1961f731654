"""Sequence numbers: reserved on disk in blocks before use, so that none is used twice.

The file is the one that Tidegate's own publisher keeps, and either can go on from the other's.
"""

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tidegate.json_v1 import MAX_SEQUENCE

BLOCK = 1024
"""Numbers that one write reserves: a crash loses the rest, flash wears by one write a block."""

_HEADER = "tidegate-sequence 1"
_MAX_BYTES = 1024
_MAX_BOOT = 2**32 - 1


class SequenceError(Exception):
    """Numbers cannot be had. Going on without would reuse numbers, which are refused as replays."""


class SequenceFile:
    """The numbers of one device from this start on. Holds a lock: one process at a time."""

    def __init__(self, path: str | os.PathLike[str], device: str) -> None:
        """Counts one more start of `device`. A missing file is the first; its folder must exist."""
        self._path = Path(path)
        self._device = device
        self.writes = 0
        self._lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise SequenceError(f"the sequence state {self._path} is in use by another process") from None
        try:
            boot, self._reserved = self._load()
            if boot >= _MAX_BOOT:
                raise self._exhausted()
            self.boot = boot + 1
            """How often the device has started, this start included: 1 at first."""
            self._used = self._reserved
            self._reserve()
        except BaseException:
            self.close()
            raise

    def advance(self) -> int:
        """The next number; above every number that this device has ever used."""
        if self._used == self._reserved:
            self._reserve()
        self._used += 1
        return self._used

    def close(self) -> None:
        """Gives the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self) -> tuple[int, int]:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return 0, 0
        text = raw.decode("ascii", "replace")
        # Not by splitlines, to which a damaged line end may look like another one.
        lines = text.split("\n")
        if len(raw) > _MAX_BYTES or len(lines) != 6 or lines[0] != _HEADER or lines[5]:  # noqa: PLR2004
            raise self._damaged("its lines are not those of version 1")
        covered = "".join(line + "\n" for line in lines[:4])
        if lines[4] != f"sha256 {_checksum(covered)}":
            raise self._damaged("its checksum is wrong")
        if lines[1] != f"device {self._device}":
            raise SequenceError(
                f"the sequence state {self._path} belongs to another device, not to {self._device}"
            )
        return self._number(lines[2], "boot"), self._number(lines[3], "reserved")

    def _number(self, line: str, name: str) -> int:
        digits = line.removeprefix(f"{name} ")
        if not digits.isdecimal() or int(digits) > MAX_SEQUENCE:
            raise self._damaged("its numbers are out of range")
        return int(digits)

    def _reserve(self) -> None:
        reserved = min(self._reserved + BLOCK, MAX_SEQUENCE)
        if reserved == self._reserved:
            raise self._exhausted()
        lines = f"{_HEADER}\ndevice {self._device}\nboot {self.boot}\nreserved {reserved}\n"
        self._replace(f"{lines}sha256 {_checksum(lines)}\n")
        self._reserved = reserved
        self.writes += 1

    def _replace(self, text: str) -> None:
        """Writes the file whole: after a power cut there is the old one or the new one."""
        folder = self._path.parent
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=self._path.name + ".", suffix=".new", dir=folder)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self._path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            directory = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise SequenceError(f"cannot reserve sequence numbers in {self._path}: {error}") from error

    def _damaged(self, what: str) -> SequenceError:
        return SequenceError(
            f"the sequence state {self._path} is damaged ({what}): restore it from a backup no older than "
            "the last message, or remove it and give the device a new key epoch"
        )

    def _exhausted(self) -> SequenceError:
        return SequenceError(
            f"{self._device} has used all its sequence numbers or starts: give it a new key epoch and "
            f"remove {self._path}"
        )


def _checksum(lines: str) -> str:
    return hashlib.sha256(lines.encode("ascii")).hexdigest()
