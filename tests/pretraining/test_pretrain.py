import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.data.phantoms.public import CLASSES, draw_public
from dpmi.models.network import build_network
from dpmi.pretraining.pretrain import PretrainRecipe, phantom_weights, pretrain

TINY = PretrainRecipe("chests", images=40, size=32, epochs=1, batch_size=20)


def quiet():
    return Console(file=open("/dev/null", "w"))


def file_of(cache_dir):
    return cache_dir / "weights" / TINY.file_name


def test_the_weights_are_torchvisions_resnet18_and_are_made_once(tmp_path):
    first = phantom_weights(tmp_path, quiet(), TINY)
    made = file_of(tmp_path).stat().st_mtime_ns
    net = build_network("resnet18", 2, "frozen_batch", first)
    assert torch.isfinite(net(torch.rand(2, 1, 32, 32))).all()
    again = phantom_weights(tmp_path, quiet(), TINY)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert file_of(tmp_path).stat().st_mtime_ns == made
    assert not list(file_of(tmp_path).parent.glob("*.part"))


def test_pretraining_says_what_it_does_and_that_it_costs_no_privacy(tmp_path):
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    phantom_weights(tmp_path, console, TINY)
    printed = console.export_text()
    assert "no privacy spent" in printed
    assert TINY.file_name in printed.replace("\n", "")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_weights_are_reported_and_made_anew(tmp_path, damage):
    first = phantom_weights(tmp_path, quiet(), TINY)
    file = file_of(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    for message in (f"{file}: damaged; made anew", ""):
        console = Console(record=True, width=1000, file=open("/dev/null", "w"))  # noqa: SIM115
        again = phantom_weights(tmp_path, console, TINY)
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert (message in console.export_text()) if message else console.export_text() == ""


def test_a_full_disk_is_one_line_and_leaves_no_half_written_weights(tmp_path, disk):
    with disk(tmp_path / "small", "size=1m") as cache_dir:
        with pytest.raises(UserError, match=r"cache_dir=.*No space left"):
            phantom_weights(cache_dir, quiet(), TINY)
        assert [path.suffix for path in (cache_dir / "weights").iterdir()] in ([], [".lock"])


def test_pretraining_repeats_itself_and_leaves_the_callers_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = pretrain(TINY, quiet()), pretrain(TINY, quiet())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_recipe_is_another_file():
    others = [replace(TINY, subject="retinas"), replace(TINY, images=41)]
    assert len({recipe.file_name for recipe in (TINY, *others)}) == 3


def _ask(folder, queue):
    console = Console(record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    state = phantom_weights(Path(folder), console, TINY)
    total = sum(float(value.double().sum()) for value in state.values())
    queue.put((total, "once on" in console.export_text()))


@pytest.mark.slow
def test_processes_that_ask_at_once_pretrain_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_ask, args=(str(tmp_path), queue)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    first, second = (total for total, _ in answers)
    assert first == pytest.approx(second, rel=1e-12)  # as a sum rounds
    assert [made for _, made in answers].count(True) == 1


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cache_dir"):
        phantom_weights(tmp_path / "cache", quiet(), TINY)


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["chests", "retinas"])
def test_pretraining_learns_the_public_classes(subject):
    recipe = PretrainRecipe(subject)
    state = pretrain(recipe, quiet())
    net = build_network("resnet18", len(CLASSES[subject]), "batch", state).eval()
    drawn = [draw_public(subject, 99, index, recipe.size) for index in range(400)]  # another seed
    images = torch.stack([torch.from_numpy(i).permute(2, 0, 1) for i, _ in drawn]).float() / 255
    with torch.no_grad():
        predicted = net(images).argmax(1)
    accuracy = (predicted == torch.tensor([label for _, label in drawn])).float().mean()
    assert accuracy > 0.75  # of chests 0.5 by chance, of retinas 0.2; 400 images: +- 0.02
