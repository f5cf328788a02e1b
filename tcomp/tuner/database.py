"""Records of tuning: one SQLite file, which several processes may use at once.

A record is the best accepted plan of a kernel for a target and a number of threads, with the ratio to the default; trials are what was tried on
the way, so that a run that was ended goes on.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TcompError
from ..target import CpuTarget
from ..version import __version__
from .measure import Interval
from .space import Candidate

VERSION = 2
"""Of the tables; since 2, records have traces."""
NEAR = 6
"""Records of other kernels that are worth a try."""
_TABLES = """
CREATE TABLE IF NOT EXISTS records (
  kernel TEXT NOT NULL, target TEXT NOT NULL, threads INTEGER NOT NULL, name TEXT NOT NULL, candidate TEXT NOT NULL,
  low REAL NOT NULL, ratio REAL NOT NULL, high REAL NOT NULL, seconds REAL NOT NULL, tcomp TEXT NOT NULL, conditions TEXT NOT NULL, made REAL NOT NULL,
  trace TEXT NOT NULL DEFAULT '', PRIMARY KEY (kernel, target, threads)
);
CREATE TABLE IF NOT EXISTS trials (
  kernel TEXT NOT NULL, target TEXT NOT NULL, threads INTEGER NOT NULL, candidate TEXT NOT NULL, program TEXT NOT NULL, ratio REAL, reason TEXT NOT NULL,
  tcomp TEXT NOT NULL, PRIMARY KEY (kernel, target, threads, candidate)
);
"""


@dataclass(frozen=True, slots=True)
class Key:
    """What a record is of: the kernel's structure, the target, the threads that it was measured with (0 for all)."""

    kernel: str
    target: str
    threads: int

    @staticmethod
    def of(kernel: str, target: CpuTarget, threads: int | None) -> Key:
        return Key(kernel, target.text, threads or 0)


@dataclass(frozen=True, slots=True)
class Record:
    """An accepted plan.

    Attributes:
        name: of the kernel where it was tuned. ratio: time of the default divided by its own. seconds: of a call. trace: the steps of the
            schedule, as JSON. made: Unix time.
    """

    key: Key
    name: str
    candidate: Candidate
    ratio: Interval
    seconds: float
    conditions: Mapping[str, Any]
    trace: str = ""
    made: float = 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """Something tried. ratio: time of the default divided by its own; None where it failed, for this reason."""

    candidate: Candidate
    program: str
    ratio: float | None
    reason: str = ""


class Database:
    """Records in a file, or in memory for this object alone (path None).

    Raises:
        TcompError: the file cannot be opened, is no database of records, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        with self._told():
            self._connection = sqlite3.connect(
                ":memory:" if path is None else path, timeout=60, check_same_thread=False
            )
            self._connection.isolation_level = None  # transactions are where they are written
            self._refuse_foreign()
            self._write_ahead()
            with self._transaction():  # another process may be at it, too
                self._refuse_foreign()
                for statement in _TABLES.split(";"):
                    self._connection.execute(statement)
                if self._version() == 1:
                    self._connection.execute("ALTER TABLE records ADD COLUMN trace TEXT NOT NULL DEFAULT ''")
                self._connection.execute(f"PRAGMA user_version = {VERSION}")

    def _write_ahead(self) -> None:
        """Readers and a writer at once. SQLite does not wait for others who open the file at the same time, so this does."""
        for _ in range(1000):
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                time.sleep(0.01)
        self._connection.execute("PRAGMA journal_mode = WAL")

    def _refuse_foreign(self) -> None:
        version = self._version()
        known = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version not in (1, VERSION) and (version or known):
            raise sqlite3.DatabaseError(f"it holds other tables, or those of version {version}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; others wait."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise TcompError(
                f"cannot use {self.path or 'the database'} for records of tuning", why=str(error)
            ) from error

    def close(self) -> None:
        self._connection.close()

    def record(self, key: Key) -> Record | None:
        """The accepted plan; None where there is none, or it cannot be read."""
        with self._told():
            row = self._connection.execute(
                f"SELECT {_COLUMNS} FROM records WHERE kernel = ? AND target = ? AND threads = ?",
                (key.kernel, key.target, key.threads),
            ).fetchone()
        return None if row is None else _record(row)

    def records(self) -> list[Record]:
        """All that can be read, by target, kernel and threads."""
        with self._told():
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM records ORDER BY target, name, kernel, threads"
            ).fetchall()
        return [r for r in map(_record, rows) if r is not None]

    def near(self, key: Key, name: str) -> list[Record]:
        """Records of other kernels, which have steps, for the same target and threads: of that name first, then the latest."""
        with self._told():
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM records WHERE target = ? AND threads = ? AND kernel != ? AND trace != '' ORDER BY name = ? DESC, made DESC LIMIT {NEAR}",
                (key.target, key.threads, key.kernel, name),
            ).fetchall()
        return [r for r in map(_record, rows) if r is not None]

    def accept(self, r: Record) -> bool:
        """Keep a record, unless the one that is there has a higher lower bound; whether it was kept."""
        values = (
            r.key.kernel, r.key.target, r.key.threads, r.name, r.candidate.to_json(), r.ratio.low, r.ratio.middle, r.ratio.high, r.seconds,
            __version__, json.dumps(r.conditions, sort_keys=True), r.made or time.time(), r.trace,
        )  # fmt: skip
        with self._told(), self._transaction():
            done = self._connection.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET name = excluded.name, "
                "candidate = excluded.candidate, low = excluded.low, ratio = excluded.ratio, high = excluded.high, "
                "seconds = excluded.seconds, tcomp = excluded.tcomp, conditions = excluded.conditions, made = excluded.made, trace = excluded.trace "
                "WHERE excluded.low > records.low",
                values,
            )
        return done.rowcount > 0

    def forget(self, key: Key) -> None:
        """Drop a record."""
        with self._told(), self._transaction():
            where = "kernel = ? AND target = ? AND threads = ?"
            self._connection.execute(f"DELETE FROM records WHERE {where}", (key.kernel, key.target, key.threads))

    def trials(self, key: Key) -> list[Trial]:
        """What was tried before by this version of tcomp."""
        with self._told():
            rows = self._connection.execute(
                "SELECT candidate, program, ratio, reason FROM trials WHERE kernel = ? AND target = ? AND threads = ? AND tcomp = ? "
                "ORDER BY rowid",
                (key.kernel, key.target, key.threads, __version__),
            ).fetchall()
        found = []
        for text, program, ratio, reason in rows:
            candidate = _candidate(text)
            if candidate is not None:
                found.append(Trial(candidate, program, ratio, reason))
        return found

    def add(self, key: Key, trials: Sequence[Trial]) -> None:
        """Note trials, all or none."""
        where = (key.kernel, key.target, key.threads)
        rows = [(*where, t.candidate.to_json(), t.program, t.ratio, t.reason, __version__) for t in trials]
        with self._told(), self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def merge(self, other: Database) -> int:
        """Take over another file's records; how many were kept."""
        return sum(self.accept(r) for r in other.records())


_COLUMNS = "kernel, target, threads, name, candidate, low, ratio, high, seconds, conditions, trace, made"


def _record(row: tuple[Any, ...]) -> Record | None:
    kernel, target, threads, name, text, low, ratio, high, seconds, conditions, trace, made = row
    candidate = _candidate(text)
    if candidate is None:
        return None
    try:
        told = json.loads(conditions)
    except ValueError:
        told = {}
    return Record(Key(kernel, target, threads), name, candidate, Interval(low, ratio, high), seconds, told, trace, made)


def _candidate(text: str) -> Candidate | None:
    try:
        return Candidate.from_json(text)
    except (ValueError, KeyError, TypeError):
        return None
