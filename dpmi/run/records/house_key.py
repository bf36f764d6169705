"""The house key: digests made with it can be compared here and tested nowhere else."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from filelock import FileLock

from dpmi.base.errors import UserError

KEY_FILE = "house.key"
_BYTES = 32


def keyed_digest(cache_dir: Path, purpose: str, text: str) -> str:
    """HMAC-SHA-256 (RFC 2104) of a text under the key of the house, in hexadecimal.

    Two runs of one house with the same images have the same digest. Who lacks the key cannot test
    whether an image, or a batch size, was part of what was hashed, as with a bare hash.

    Args:
        cache_dir: where the key is; made at the first call, by whichever process is first.
        purpose: what the text is; digests of different purposes have nothing in common.
        text: to be hashed.

    Raises:
        UserError: the key can be neither read nor made, or the file holds none.
    """
    try:
        key = _house_key(cache_dir)
    except OSError as error:
        raise UserError(
            f"cache_dir={cache_dir}: {KEY_FILE} cannot be kept there ({error.strerror or error}); "
            "set cache_dir to a folder that can be written"
        ) from error
    return hmac.new(key, f"{purpose}\n{text}".encode(), hashlib.sha256).hexdigest()


def _house_key(cache_dir: Path) -> bytes:
    path = cache_dir / KEY_FILE
    if not path.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _write(path, secrets.token_hex(_BYTES))
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise UserError(
            f"{path}: not a key of {8 * _BYTES} bits; remove the file, and a new one is made (the "
            "fingerprints of later runs will not match those of earlier ones)"
        )
    return key


def _write(path: Path, text: str) -> None:
    """Whole or not at all, for its owner alone."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
