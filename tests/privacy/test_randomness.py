import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from scipy import stats

from dpmi.privacy.randomness import NoiseSource, SecretStream, new_key

PURPOSES = ("sampling", "gradient", "laplace_train", "laplace_test")
KEY = bytes(range(32))


def hmac_sha256(key, label):
    """By its definition (RFC 2104), for a key of 32 bytes."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded) + label).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in padded) + inner).digest()


def first_words(source, purpose="gradient", step=0):
    return source.stream(purpose, step).words(8)


def test_the_words_of_a_stream_are_those_of_aes_256_in_counter_mode():
    """Counted by hand, block by block, and derived from the run's key by HMAC."""
    key = hmac_sha256(hmac_sha256(KEY, b"gradient attempt 2 step 7"), b"stream")
    aes = Cipher(AES256(key), ECB()).encryptor()
    blocks = b"".join(aes.update(counter.to_bytes(16, "big")) for counter in range(5000))
    expected = np.frombuffer(blocks, "<u8")
    stream = NoiseSource(None, KEY, attempt=2).stream("gradient", 7)
    parts = [stream.words(3), stream.words(2, 1000).reshape(-1), stream.words(4000)]
    np.testing.assert_array_equal(np.concatenate(parts), expected[:6003])


def test_a_part_of_a_stream_has_a_key_of_its_own_and_none_is_given_out_twice():
    key = hmac_sha256(KEY, b"stream")
    assert hmac_sha256(KEY, b"part 0") != key
    parts = [*SecretStream(KEY).spawn(3), *SecretStream(KEY).spawn(1)]
    assert (parts[0].words(4) == parts[3].words(4)).all()  # of the same stream, anew
    again = SecretStream(KEY)
    parts = [again, *again.spawn(2), *again.spawn(2), *again.spawn(1)[0].spawn(1)]
    assert len({part.words(2).tobytes() for part in parts}) == len(parts)


def test_each_bit_of_the_key_matters():
    """NumPy's SeedSequence made four words of 128 bits from 32 bits each, which were tried."""
    seen = {first_words(NoiseSource(None, KEY)).tobytes()}
    for bit in range(256):
        other = bytearray(KEY)
        other[bit // 8] ^= 1 << bit % 8
        seen.add(first_words(NoiseSource(None, bytes(other))).tobytes())
    assert len(seen) == 257


def test_a_key_has_256_bits_of_the_operating_system(monkeypatch):
    assert len(NoiseSource(None).key) == len(new_key()) == 32
    assert NoiseSource(None).key != NoiseSource(None).key
    key = new_key()
    assert (
        len({key[at : at + 4] for at in range(0, 32, 4)}) == 8
    )  # no 32 bits are repeated; by chance in 1e-8
    monkeypatch.setattr("secrets.token_bytes", lambda size: bytes(size))
    assert NoiseSource(None).key == bytes(32)


def test_purposes_steps_and_attempts_have_streams_that_have_nothing_in_common():
    sources = [NoiseSource(None, KEY, attempt) for attempt in range(3)]
    words = np.stack(
        [
            source.stream(purpose, step).words(2000)
            for purpose in ("sampling", "gradient")
            for step in (0, 1, 10, 11)
            for source in sources
        ]
        + [sources[0].stream(purpose).words(2000) for purpose in PURPOSES[2:]]
    )
    bits = np.unpackbits(words.view(np.uint8), axis=1) * 2.0 - 1
    together = bits @ bits.T / bits.shape[1]
    # 27 streams, 351 pairs of 128,000 bits: beyond 6 standard deviations once in 10^6 times.
    assert np.abs(together - np.eye(len(bits))).max() < 6.5 / np.sqrt(bits.shape[1])
    assert stats.binomtest(int((bits > 0).sum()), bits.size).pvalue > 1e-6


def test_a_stream_is_that_of_its_key_purpose_and_step_in_any_order():
    one, other = NoiseSource(None, KEY), NoiseSource(None, KEY)
    forward = [first_words(one, step=step) for step in range(5)]
    backward = [first_words(other, step=step) for step in reversed(range(5))]
    np.testing.assert_array_equal(forward, backward[::-1])


def test_local_dps_noise_is_the_same_in_every_attempt():
    """Its images are released once: a second draw would be a second release."""
    for purpose in PURPOSES[2:]:
        first, second = (first_words(NoiseSource(None, KEY, a), purpose) for a in (0, 3))
        np.testing.assert_array_equal(first, second)


def test_a_noise_seed_makes_the_key_and_is_known_to_be_reproducible():
    assert NoiseSource(3).key == NoiseSource(3).key != NoiseSource(4).key
    assert NoiseSource(3).reproducible
    assert NoiseSource(3, KEY).key == KEY
    assert not NoiseSource(None).reproducible


def test_a_purpose_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="allowed are sampling"):
        NoiseSource(1).stream("noise")


def test_an_array_that_would_be_filled_as_a_copy_is_refused():
    with pytest.raises(ValueError, match="contiguous"):
        SecretStream(KEY).fill(np.zeros((4, 4), np.int32)[:, ::2])


def test_what_is_secret_is_drawn_by_no_generator_made_for_simulation():
    """No file of the privacy ground, nor a mechanism, names one; but for public questions."""
    from pathlib import Path

    import dpmi.mechanisms
    import dpmi.privacy.noise

    folders = [Path(dpmi.privacy.noise.__file__).parent, Path(dpmi.mechanisms.__file__).parent]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert len(files) > 20
    for file in files:
        if file.name == "interview.py":  # who is asked what is public, and a constant
            continue
        text = file.read_text(encoding="utf-8")
        for name in ("np.random", "torch.rand", "torch.Generator", "normal_(", "SeedSequence"):
            assert name not in text, (file.name, name)
