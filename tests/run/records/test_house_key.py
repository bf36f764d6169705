import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from dpmi.base.errors import UserError
from dpmi.run.records.house_key import KEY_FILE, keyed_digest


def test_a_house_gives_the_same_text_the_same_digest_and_another_house_another(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    digest = keyed_digest(one, "data", "x")
    assert digest == keyed_digest(one, "data", "x")
    assert len({digest, keyed_digest(one, "data", "y"), keyed_digest(one, "config", "x")}) == 3
    assert digest != keyed_digest(other, "data", "x")


def test_the_key_is_readable_by_its_owner_alone_and_of_256_bits(tmp_path):
    keyed_digest(tmp_path, "data", "x")
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(path.read_text())) == 32


def test_processes_that_come_at_once_make_one_key(tmp_path):
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        digests = set(pool.map(keyed_digest, [tmp_path] * 16, ["data"] * 16, ["x"] * 16))
    assert digests == {keyed_digest(tmp_path, "data", "x")}


@pytest.mark.parametrize("text", ["", "no key", "00" * 16, "00" * 33, "ö"])
def test_a_damaged_key_is_refused_by_name(tmp_path, text):
    (tmp_path / KEY_FILE).write_text(text)
    with pytest.raises(UserError, match=KEY_FILE):
        keyed_digest(tmp_path, "data", "x")


def test_a_cache_that_can_keep_no_key_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache_dir=.*file: house\.key cannot be kept there"):
        keyed_digest(tmp_path / "file", "data", "x")
