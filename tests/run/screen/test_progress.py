import io
import os
import pty
import re
import threading

import pytest
from rich.console import Console

from dpmi.privacy.guarantee import printed_epsilon
from dpmi.run.job import Run
from dpmi.run.screen.progress import EpochLines, TrainingBar, progress_callback

pytestmark = pytest.mark.usefixtures("one_thread")
DPSGD = ("mechanism=dpsgd", "mechanism.accountant=rdp", "trainer.max_epochs=2")


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines():
    assert isinstance(progress_callback(Console(force_terminal=True)), TrainingBar)
    assert isinstance(progress_callback(Console(file=io.StringIO())), EpochLines)


def test_the_lines_tell_loss_accuracy_epsilon_and_the_time_left(composed, tiny, tmp_path):
    console = Console(width=1000, file=io.StringIO(), record=True)
    config = composed(*tiny, *DPSGD, f"cache_dir={tmp_path / 'cache'}")
    record = Run(config, tmp_path, console).execute()
    lines = [line for line in console.export_text().splitlines() if line.startswith("epoch")]
    pattern = (
        r"epoch (\d)/2  loss \d+\.\d{3}  accuracy [01]\.\d{3}  val accuracy [01]\.\d{3}  "
        r"ε (\d[\d.]*)  (\d+) s left"
    )
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [match[1] for match in found] == ["1", "2"]
    assert [match[3] for match in found][-1] == "0"
    assert float(found[0][2]) < float(found[1][2])
    assert found[1][2] == printed_epsilon(record.guarantee.epsilon)


def test_the_lines_of_a_run_without_privacy_tell_no_epsilon(composed, tiny, tmp_path):
    console = Console(width=1000, file=io.StringIO(), record=True)
    config = composed(*tiny, "mechanism=none", "data.val_images=0", f"cache_dir={tmp_path / 'c'}")
    Run(config, tmp_path, console).execute()
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("epoch")]
    assert re.fullmatch(r"epoch 1/1  loss \S+  accuracy \S+  \d+ s left", line)


@pytest.mark.slow
def test_the_bar_shows_loss_accuracy_epsilon_and_the_time_left(place, tiny):
    """On a terminal of its own, as a person sees it."""
    reader, terminal = pty.openpty()
    shown = []

    def read():
        while True:
            try:
                shown.append(os.read(reader, 65536))
            except OSError:  # the terminal was closed
                return

    process = place.start(*tiny, *DPSGD, stdout=terminal, TERM="xterm-256color", COLUMNS="200")
    os.close(terminal)
    thread = threading.Thread(target=read)
    thread.start()
    assert process.wait(timeout=240) == 0
    thread.join()
    os.close(reader)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(shown).decode())
    for pattern in (r"Epoch 1/1", r"6/6", r"loss: \d", r"accuracy: [01]\.\d", r"ε: 0\.\d+"):
        assert re.search(pattern, text), pattern
    assert re.search(r"\d:\d\d:\d\d • \d:\d\d:\d\d", text)  # elapsed and left
    assert "dpsgd-beta1-seed42  test accuracy" in text
    assert "Traceback" not in text
