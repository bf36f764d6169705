import pytest

from dpmi.base.errors import UserError
from dpmi.benchmarks import guard
from dpmi.benchmarks.guard import (
    Ratios,
    Recorded,
    compared,
    of_this_machine,
    processor,
    read,
    write,
)


def recorded(speed, memory=(1.1, 1.12, 1.11, 1.1, 1.13), of=None, side=64):
    ratios = Ratios(image_size=side, batch_size=64, speed=tuple(speed), memory=tuple(memory))
    return Recorded(processor=of or processor(), about={"threads": 2}, ratios=(ratios,))


BEFORE = (0.78, 0.79, 0.77, 0.78, 0.785)


def test_what_moved_by_more_than_its_noise_is_reported_and_what_did_not_is_not():
    cases = {
        "worse": (0.70, 0.71, 0.69, 0.70, 0.705),
        "better": (0.85, 0.86, 0.84, 0.85, 0.85),
        "no": (0.775, 0.79, 0.785, 0.78, 0.77),
    }
    for verdict, now in cases.items():
        speed, memory = compared(recorded(BEFORE), recorded(now))
        assert (speed.what, memory.what) == ("speed", "memory")
        assert speed.moved == (verdict != "no")
        assert speed.worse == (verdict == "worse")
        assert not memory.moved


def test_more_memory_is_worse_and_less_is_not():
    more, less = (1.3, 1.31, 1.32, 1.3, 1.31), (1.0, 1.01, 1.02, 1.0, 1.01)
    _, memory = compared(recorded(BEFORE), recorded(BEFORE, more))
    assert memory.worse
    _, memory = compared(recorded(BEFORE), recorded(BEFORE, less))
    assert memory.moved
    assert not memory.worse


def test_a_noisy_change_of_the_same_size_is_no_verdict():
    noisy = (0.60, 0.80, 0.66, 0.84, 0.62)
    speed, _ = compared(recorded(BEFORE), recorded(noisy))
    assert speed.now < speed.then - 0.05
    assert not speed.moved


def test_shapes_that_were_not_recorded_are_not_compared():
    assert compared(recorded(BEFORE), recorded(BEFORE, side=128)) == []


def test_each_kind_of_machine_has_its_own_record(tmp_path):
    file = tmp_path / "bench.json"
    write(file, recorded(BEFORE, of="another processor"))
    with pytest.raises(UserError, match="recorded of another processor, and this is"):
        of_this_machine(file)
    write(file, recorded(BEFORE))
    write(file, own := recorded((0.8, 0.81)))
    assert of_this_machine(file) == own
    assert len(read(file)) == 2


def test_a_file_of_something_else_is_refused_in_one_line(tmp_path):
    (file := tmp_path / "bench.json").write_text('{"rows": []}')
    with pytest.raises(UserError, match=r"no record of python -m dpmi\.bench"):
        read(file)


def test_the_commands_record_and_check_and_exit_with_1_where_a_ratio_is_worse(
    tmp_path, monkeypatch, capsys
):
    from dpmi import bench

    file, now = tmp_path / "bench.json", iter([BEFORE, BEFORE, (0.5, 0.51, 0.5, 0.5, 0.52)])
    monkeypatch.setattr(guard, "measured", lambda *_: recorded(next(now)))
    for words, status in ((["--record"], 0), (["--check"], 0), (["--check"], 1)):
        monkeypatch.setattr("sys.argv", ["bench", *words, str(file)])
        assert bench.main() == status
    assert "worse" in capsys.readouterr().out


@pytest.mark.slow
def test_ratios_are_measured_in_processes_of_their_own():
    done = []
    shape = guard.Shape(32, 4)
    its = guard.measured([shape], 2, 1, lambda: done.append(1))
    assert len(done) == 2
    (ratios,) = its.ratios
    assert len(ratios.speed) == len(ratios.memory) == 2
    assert min(ratios.speed + ratios.memory) > 0
