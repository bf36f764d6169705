import gc

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
