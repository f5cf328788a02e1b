"""Candidates built by other engines than processes of this machine."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import softmax

import tcomp
from tcomp.tuner.database import Database

ROOT = Path(__file__).parents[2]


def test_dask_builds(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        report = tcomp.tune(softmax(), budget_s=6, trials=8, num_threads=1, executor=client.get_executor(), database=tmp_path / "t.db")  # fmt: skip
    assert report.tasks[0].trials > 0 and report.tasks[0].refused == 0


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from helpers import softmax
from mpi4py.futures import MPICommExecutor
import tcomp

with MPICommExecutor() as executor:
    if executor is not None:
        report = tcomp.tune(softmax(), budget_s=6, trials=8, num_threads=1, executor=executor, database=sys.argv[2])
        assert report.tasks[0].trials > 0 and report.tasks[0].refused == 0, report
        print("tuned")
"""


def test_mpi_builds(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    if shutil.which("mpiexec") is None:
        pytest.skip("no mpiexec")
    (tmp_path / "program.py").write_text(PROGRAM)
    words = ["mpiexec", "-n", "3", "--allow-run-as-root", "--oversubscribe", sys.executable]
    done = subprocess.run(
        [*words, tmp_path / "program.py", Path(__file__).parent, tmp_path / "tune.db"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0 and "tuned" in done.stdout, done.stderr[-2000:]
    assert Database(tmp_path / "tune.db").path is not None
