"""Where the randomness of a guarantee comes from.

Whoever knows the noise can subtract it. So the noise is seeded from the operating system unless a
``noise_seed`` is given, and it never comes from the run's public ``seed``, which records print.
"""

from __future__ import annotations

import numpy as np
import torch

CPU_GENERATORS = 4

# Layout of the state of torch's CPU generator: seed (8 bytes), words left and a flag (4 + 4), next
# word (8), and then the words of the Mersenne Twister, 32 bits each in 8 bytes.
_WORDS_START, _WORDS = 24, 624

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

    def torch(self, purpose: str, device: torch.device | str = "cpu") -> list[torch.Generator]:
        """Make independent torch generators on ``device``, for "sampling" or "gradient".

        Returns:
            On a CPU several, so that several threads can draw; on a GPU one.
        """
        if torch.device(device).type == "cpu":
            return [_mersenne_twister(s) for s in self._sequence(purpose).spawn(CPU_GENERATORS)]
        seed = int(self._sequence(purpose).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return [torch.Generator(device).manual_seed(seed)]


def _mersenne_twister(sequence: np.random.SeedSequence) -> torch.Generator:
    """A CPU generator whose whole state comes from ``sequence``.

    torch's own seeding takes 32 bits of a seed and no more: an attacker could try them all. So the
    624 words of the state are filled in place of that.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    state = generator.get_state().numpy()
    words = state[_WORDS_START : _WORDS_START + 8 * _WORDS].view(np.uint64)
    words[:] = sequence.generate_state(_WORDS, np.uint32)
    return generator.set_state(torch.from_numpy(state))
