import gc
import subprocess
import sys
import weakref

import pytest

from dpmi.base.loading import loading


@pytest.mark.parametrize("collecting", [True, False])
def test_no_garbage_is_collected_while_libraries_load_and_then_as_before(collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with loading():
            assert not gc.isenabled()
        assert gc.isenabled() == collecting
        with pytest.raises(ImportError), loading():
            import dpmi.nothing  # noqa: F401
        assert gc.isenabled() == collecting
    finally:
        gc.enable() if before else gc.disable()


class Cycle:
    def __init__(self):
        self.own = self


def test_what_was_loaded_is_passed_over_later_and_garbage_only_where_something_was(
    tmp_path, monkeypatch
):
    (tmp_path / "library_of_this_test.py").write_text("made = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    frozen = gc.get_freeze_count()
    garbage = weakref.ref(Cycle())
    with loading():
        import gc as _  # noqa: F401  # loaded before
    assert gc.get_freeze_count() <= frozen
    gc.collect()
    assert garbage() is None
    try:
        with loading():
            import library_of_this_test  # noqa: F401
        assert gc.get_freeze_count() > frozen + 1000
    finally:
        sys.modules.pop("library_of_this_test")


def test_at_the_end_of_the_process_nothing_is_passed_over():
    # Or nanobind, of which triton is made, prints a page of what it calls leaked.
    own = (
        "import atexit, gc\n"
        "atexit.register(lambda: print('passed over at the end:', gc.get_freeze_count()))\n"
        "from dpmi.base.loading import loading\n"
        "with loading():\n"
        "    import fractions\n"
        "print('passed over:', gc.get_freeze_count() > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", own], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["passed over: True", "passed over at the end: 0"]
