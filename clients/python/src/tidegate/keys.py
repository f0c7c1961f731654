"""Keys: HMAC-SHA256 (RFC 2104) with per-device keys from HKDF-SHA256 (RFC 5869)."""

import hashlib
import hmac
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

_SALT = b"tidegate/v1"
_ROOT_BYTES = 32
_OTHERS = 0o077
_LARGEST_EPOCH = 0xFFFF


@dataclass(frozen=True)
class Key:
    """A device's signing key and its epoch (0 to 65,535). Its text never shows the secret."""

    secret: bytes = field(repr=False)
    epoch: int = 0

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError("the key is empty")
        if not 0 <= self.epoch <= _LARGEST_EPOCH:
            raise ValueError(f"key epoch {self.epoch} is not in 0..{_LARGEST_EPOCH}")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], epoch: int = 0) -> "Key":
        """Reads the key that `tidegate devices key` wrote: the file's bytes are the secret.

        Raises PermissionError when others can read the file.
        """
        path = Path(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            raise PermissionError(f"{path} is readable by others (mode {mode:o}); run `chmod 600 {path}`")
        return cls(path.read_bytes(), epoch)

    @classmethod
    def derive(cls, root: bytes, device: str, epoch: int = 0) -> "Key":
        """The key of `device` from a root key of 32 bytes, as the gateway derives it.

        A device should not hold the root key: whoever has it can speak for every device.
        """
        if len(root) != _ROOT_BYTES:
            raise ValueError(f"the root key has {len(root)} bytes instead of {_ROOT_BYTES}")
        info = b"mac\x00" + device.encode("ascii") + b"\x00" + epoch.to_bytes(2, "big")
        # HKDF for an output of one block: extract, then the first block of expand.
        extracted = hmac.digest(_SALT, root, hashlib.sha256)
        return cls(hmac.digest(extracted, info + b"\x01", hashlib.sha256), epoch)

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256 over `message`, 32 bytes."""
        return hmac.digest(self.secret, message, hashlib.sha256)
