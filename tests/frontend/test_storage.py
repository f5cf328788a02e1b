"""Files of arrays: whole or not there, whoever writes, and refused before anything changes where they cannot be."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from frontend import nn, optim, train
from frontend.storage import read_safetensors, write_safetensors


def test_several_savers_of_one_name_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"

    def save(n: int) -> None:
        for _ in range(20):
            write_safetensors({"x": np.full(5000, n)}, path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(4)))
    found = read_safetensors(path)["x"]
    assert len(set(found.tolist())) == 1 and list(tmp_path.iterdir()) == [path]


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".a.safetensors.part").symlink_to(victim)
    write_safetensors({"x": np.ones(3)}, tmp_path / "a.safetensors")
    assert victim.read_text() == "mine"


def test_the_targets_mode_and_link_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    write_safetensors({"x": np.ones(3)}, real)
    real.chmod(0o600)
    link.symlink_to(real)
    write_safetensors({"x": np.zeros(3)}, link)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o600
    assert np.array_equal(read_safetensors(real)["x"], [0, 0, 0])


def test_what_killed_writers_left_goes_with_the_next_write(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (tmp_path / f".a.{child.pid}.xyz.part").write_text("half")
    (tmp_path / f".a.{os.getppid()}.xyz.part").write_text("at work")
    write_safetensors({"x": np.ones(3)}, tmp_path / "a")
    assert {p.name for p in tmp_path.iterdir()} == {"a", f".a.{os.getppid()}.xyz.part"}


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(OSError, match="no regular file"):
            write_safetensors({"x": np.ones(3)}, place)
        with pytest.raises(ValueError, match="no regular file"):
            read_safetensors(place)


BATCH = (np.ones((4, 3), "float32"), np.array([0, 1, 0, 1]))
BAD = {
    "place beyond": {"numpy.random place": np.array([1e9, 0, 0])},
    "place below": {"numpy.random place": np.array([-5.0, 0, 0])},
    "place just beyond": {"numpy.random place": np.array([700.0, 0, 0])},
    "place is no number": {"numpy.random place": np.array([np.nan, 0, 0])},
    "three words": {"numpy.random words": np.ones(3, np.uint32)},
    "words of another type": {"numpy.random words": np.ones(624, np.int64)},
    "steps below zero": {"seed, steps, skipped": np.array([0, -5, 0])},
    "two counts": {"seed, steps, skipped": np.array([0, 5])},
}


@pytest.mark.parametrize("name", [*BAD, "no checksum"])
def test_a_hostile_checkpoint_changes_nothing(name: str, tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    step = train.compile_step(model, nn.SoftmaxLoss(), optim.Adam(model.parameters(), 0.1), BATCH)
    step(*BATCH)
    good, bad = tmp_path / "good", tmp_path / "bad"
    step.save(good)
    arrays = read_safetensors(good, needs_checksum=True)
    if name in BAD:
        write_safetensors(arrays | BAD[name], bad)
    else:
        save_file(arrays, bad)
    step(*BATCH)
    before, draws = model.state_dict(), np.random.get_state()[1].copy()
    with pytest.raises(ValueError, match="bad"):
        step.load(bad)
    assert step.steps == 2 and all(np.array_equal(before[k], v) for k, v in model.state_dict().items())
    assert np.array_equal(np.random.get_state()[1], draws)
    step.load(good)
    assert step.steps == 1
