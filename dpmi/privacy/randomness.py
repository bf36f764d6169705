"""Where the randomness of a guarantee comes from.

Whoever knows the noise can subtract it. So the noise is seeded from the operating system unless a
``noise_seed`` is given, and it never comes from the run's public ``seed``, which records print.
"""

from __future__ import annotations

import secrets

import numpy as np
import torch

CPU_GENERATORS = 4

# Layout of the state of torch's CPU generator: seed (8 bytes), words left and a flag (4 + 4), next
# word (8), and then the words of the Mersenne Twister, 32 bits each in 8 bytes.
_WORDS_START, _WORDS = 24, 624

_PURPOSES = ("sampling", "gradient", "laplace_train", "laplace_val", "laplace_test")


class NoiseSource:
    """Generators for the parts of a mechanism, each a function of a secret key and the step.

    What is drawn at a step does not depend on what was drawn before it. So a run that was killed
    repeats, from its key, the very steps that it lost: the same batches and the same noise, which
    release nothing that was not released before.

    Args:
        noise_seed: reproduces the noise, and then must be kept as secret as the images; None
            draws a key of 128 bits from the operating system.
        key: of the run that is resumed, in place of a new one.
        attempt: how often the run was resumed where it could not repeat its steps to the bit;
            each attempt draws batches and gradient noise of its own.
    """

    def __init__(self, noise_seed: int | None, key: int | None = None, attempt: int = 0) -> None:
        self.reproducible = noise_seed is not None
        self.key = key if key is not None else noise_seed
        if self.key is None:
            self.key = secrets.randbits(128)
        self.attempt = attempt

    @property
    def assumption(self) -> str:
        """What a guarantee must assume about the key."""
        if self.reproducible:
            return "noise_seed was given: the guarantee holds only while it stays secret"
        return (
            "the noise was seeded by the operating system; its key was kept only until the run was "
            "complete, readable by its owner alone"
        )

    def _sequence(self, purpose: str, *place: int) -> np.random.SeedSequence:
        spawn_key = (_PURPOSES.index(purpose), *place)
        return np.random.SeedSequence(self.key, spawn_key=spawn_key)

    def numpy(self, purpose: str) -> np.random.Generator:
        """Make a NumPy generator for one of "laplace_train", "laplace_val" and "laplace_test".

        The same in every attempt: images are released once.
        """
        return np.random.default_rng(self._sequence(purpose))

    def torch(
        self, purpose: str, step: int, device: torch.device | str = "cpu"
    ) -> list[torch.Generator]:
        """Make independent torch generators on ``device`` for "sampling" or "gradient" at a step.

        Returns:
            On a CPU several, so that several threads can draw; on a GPU one.
        """
        sequence = self._sequence(purpose, self.attempt, step)
        if torch.device(device).type == "cpu":
            return [_mersenne_twister(s) for s in sequence.spawn(CPU_GENERATORS)]
        seed = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
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
