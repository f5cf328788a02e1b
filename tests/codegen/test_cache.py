"""The object cache: hits, damage, several processes, switched off."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tcomp
from tcomp import te
from tcomp.codegen.cache import ObjectCache
from tcomp.codegen.llvm import generator

CODE = """
import numpy as np, tcomp
from tcomp import te
a = te.placeholder((33, 5), name="A")
exe = tcomp.compile(te.create_prim_func([a, te.compute((33, 5), lambda i, j: a[i, j] * 3.0 + 1.0, name="out")], "cached"))
x = np.arange(165, dtype="float32").reshape(33, 5)
assert np.array_equal(exe(x), x * 3 + 1)
print("ok")
"""


def run(folder: Path) -> subprocess.CompletedProcess:
    env = {**os.environ, "TCOMP_CACHE_DIR": str(folder)}
    return subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=120)


def test_entries_are_written_once_and_survive_damage(tmp_path: Path) -> None:
    assert run(tmp_path).stdout == "ok\n"
    entries = sorted(tmp_path.rglob("*.o"))
    assert len(entries) == 2  # the kernel and the entry function
    whole = [p.read_bytes() for p in entries]
    for damage in (b"", b"garbage", whole[0][:-10], whole[0][:60] + b"\0" * (len(whole[0]) - 60)):
        for p in entries:
            p.write_bytes(damage)
        done = run(tmp_path)
        assert done.stdout == "ok\n", done.stderr
        assert [p.read_bytes() for p in entries] == whole
    assert not list(tmp_path.rglob(".tmp-*"))


def test_several_processes_at_once(tmp_path: Path) -> None:
    env = {**os.environ, "TCOMP_CACHE_DIR": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", CODE], env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [p.communicate(timeout=120)[0] for p in running] == ["ok\n"] * 4


def test_an_unwritable_cache_is_only_a_miss(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert run(blocked).stdout == "ok\n"


def test_a_hit_needs_no_code_generation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a = te.placeholder((7, 9), name="A")
    f = te.create_prim_func([a, te.compute((7, 9), lambda i, j: a[i, j] - 4.0, name="out")], "hit")
    x = np.ones((7, 9), "float32")
    tcomp.compile(f)(x)
    monkeypatch.setattr(generator, "emit_object", lambda *a: pytest.fail("generated code again"))
    assert np.array_equal(tcomp.compile(f)(x), x - 4)


def test_keys_and_payloads(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    assert cache.get("ab" * 20) is None
    cache.put("ab" * 20, b"payload")
    assert cache.get("ab" * 20) == b"payload"
    cache.enabled = False
    assert cache.get("ab" * 20) is None


def test_an_entry_under_another_key_is_refused(tmp_path: Path) -> None:
    """As one that was made for another program or CPU, renamed."""
    cache = ObjectCache(tmp_path)
    cache.put("ab" * 20, b"payload")
    cache.path("cd" * 20).parent.mkdir()
    cache.path("ab" * 20).rename(cache.path("cd" * 20))
    assert cache.get("cd" * 20) is None and not cache.path("cd" * 20).exists()


def test_entries_of_a_real_program_swapped(tmp_path: Path) -> None:
    assert run(tmp_path).stdout == "ok\n"
    a, b = sorted(tmp_path.rglob("*.o"))
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    done = run(tmp_path)
    assert done.stdout == "ok\n", done.stderr
    assert (a.read_bytes(), b.read_bytes()) == (first, second)


def test_a_pipe_in_place_of_an_entry_does_not_hang(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    cache.path("ab" * 20).parent.mkdir()
    os.mkfifo(cache.path("ab" * 20))
    assert cache.get("ab" * 20) is None


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_is_not_trusted(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.warns(UserWarning, match="others own it or may write to it"):
        cache = ObjectCache(folder)
    cache.put("ab" * 20, b"payload")
    assert cache.get("ab" * 20) is None and not list(folder.rglob("*"))


def test_a_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    ObjectCache(tmp_path / "new").put("ab" * 20, b"payload")
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
