"""Where the randomness of a guarantee comes from: one cryptographic stream, keyed.

Whoever knows the noise can subtract it, and whoever can compute it from what was released knows it.
So all that is secret (batches, noise) is AES-256 in counter mode, under a key of 256 bits from the
operating system, and nothing secret is drawn by a generator made for simulation: MT19937, PCG64 and
Philox can be recovered from what they gave. The run's public ``seed`` has no part in it.
"""

from __future__ import annotations

import hmac
import secrets
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

KEY_BYTES = 32
_FROM_ZERO = bytes(16)  # the counter; no two streams share a key
_ZEROS = memoryview(bytes(1 << 17))  # what is encrypted: the stream itself comes out

_ONCE = ("answer", "laplace_train", "laplace_test")  # whatever the attempt
_PURPOSES = ("sampling", "statistic", "gradient", *_ONCE)


class SecretStream:
    """AES-256-CTR under a key of its own, and the streams derived from it.

    Args:
        key: 32 bytes, secret.
    """

    def __init__(self, key: bytes) -> None:
        self._key, self._spawned = key, 0

    @cached_property
    def _cipher(self) -> CipherContext:
        return Cipher(AES256(_derive(self._key, "stream")), CTR(_FROM_ZERO)).encryptor()

    def spawn(self, count: int) -> list[SecretStream]:
        """Derive ``count`` independent streams, for parts that are drawn side by side.

        Others at each call: no part is given out twice.
        """
        first, self._spawned = self._spawned, self._spawned + count
        return [
            SecretStream(_derive(self._key, f"part {part}")) for part in range(first, first + count)
        ]

    def fill(self, array: NDArray[Any]) -> None:
        """Overwrite a contiguous array of integers with the next bits of the stream."""
        if not array.flags.c_contiguous:
            raise ValueError("the array is not contiguous: a copy of it would be filled")
        content = array.reshape(-1).view(np.uint8)
        for start in range(0, content.size, len(_ZEROS)):
            piece = content[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: piece.size], piece.data)

    def words(self, *shape: int) -> NDArray[np.uint64]:
        """The next words of 64 bits, each value as likely as another."""
        words = np.empty(shape, "<u8")
        self.fill(words)
        return words


class NoiseSource:
    """Streams for the parts of a mechanism, each a function of a secret key and the step.

    What is drawn at a step does not depend on what was drawn before it. So a run that was killed
    repeats, from its key, the very steps that it lost: the same batches and the same noise, which
    release nothing that was not released before.

    Args:
        noise_seed: for tests and teaching: makes the key, where none is given. Whoever has the
            seed has the noise, so that nothing drawn with it has an ε.
        key: of the run, 32 bytes; None for a new one.
        attempt: how often the run was resumed where it could not repeat its steps to the bit;
            each attempt draws batches and gradient noise of its own.

    Attributes:
        reproducible: the noise can be repeated from something that a person chose.
    """

    def __init__(self, noise_seed: int | None, key: bytes | None = None, attempt: int = 0) -> None:
        self.reproducible = noise_seed is not None
        if key is None:
            key = new_key() if noise_seed is None else sha256(f"{noise_seed}".encode()).digest()
        self.key, self.attempt = key, attempt

    @property
    def assumption(self) -> str:
        """What a guarantee must assume about the key."""
        if self.reproducible:
            return "noise_seed was given: whoever has it can take the noise off"
        return (
            "the noise comes from a key of 256 bits from the operating system, kept only until the "
            "run was complete, readable by its owner alone; AES-256 cannot be distinguished from "
            "randomness"
        )

    def stream(self, purpose: str, step: int = 0) -> SecretStream:
        """Make the stream of a purpose.

        "sampling" or "gradient" at a step, "statistic" by its number, "answer", "laplace_train",
        or "laplace_test", whose key is no secret.

        The streams of local DP are the same in every attempt: images are released once.
        """
        if purpose not in _PURPOSES:
            raise ValueError(f"purpose {purpose!r}: allowed are {', '.join(_PURPOSES)}")
        attempt = 0 if purpose in _ONCE else self.attempt
        return SecretStream(_derive(self.key, f"{purpose} attempt {attempt} step {step}"))


def new_key() -> bytes:
    """256 bits from the operating system."""
    return secrets.token_bytes(KEY_BYTES)


def _derive(key: bytes, label: str) -> bytes:
    """A key for what ``label`` says: HMAC-SHA-256, a pseudo-random function of both."""
    return hmac.digest(key, label.encode(), "sha256")
