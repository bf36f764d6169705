"""Where the randomness of a guarantee comes from.

Whoever knows the noise can subtract it. So the noise is seeded from the operating system unless a
``noise_seed`` is given, and it never comes from the run's public ``seed``, which records print.
"""

from __future__ import annotations

import numpy as np
import torch

_PURPOSES = ("sampling", "gradient", "laplace_train", "laplace_test")


class NoiseSource:
    """Independent generators for the parts of a mechanism.

    Args:
        noise_seed: reproduces the noise, and then must be kept as secret as the images; None
            draws 128 bits from the operating system, kept nowhere.
    """

    def __init__(self, noise_seed: int | None) -> None:
        self.reproducible = noise_seed is not None
        self._root = np.random.SeedSequence(noise_seed)

    @property
    def assumption(self) -> str:
        """What a guarantee must assume about the seed."""
        if self.reproducible:
            return "noise_seed was given: the guarantee holds only while it stays secret"
        return "the noise was seeded by the operating system and its seed was not kept"

    def _sequence(self, purpose: str) -> np.random.SeedSequence:
        key = (_PURPOSES.index(purpose),)
        return np.random.SeedSequence(self._root.entropy, spawn_key=key)

    def numpy(self, purpose: str) -> np.random.Generator:
        """Make a NumPy generator for one of "laplace_train" and "laplace_test"."""
        return np.random.default_rng(self._sequence(purpose))

    def torch(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Make a torch generator on ``device`` for one of "sampling" and "gradient"."""
        seed = int(self._sequence(purpose).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return torch.Generator(device).manual_seed(seed)
