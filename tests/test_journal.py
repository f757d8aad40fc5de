"""The journal: on disk first, replayed exactly, refused when it cannot be trusted, and never made worse."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from neurogym_v.journal import SCHEMA, VERSION, Block, Journal, JournalError
from neurogym_v.vector import NeuronVectorEnv


def block(kind: str = "search", n: int = 4, seed: int = 0) -> Block:
    rng = np.random.default_rng(seed)
    rates = rng.standard_normal((n, 2))
    rates[0] = np.nan
    return Block(kind, None, rng.standard_normal((n, 6), dtype=np.float32), rates)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with three blocks of two sessions."""
    path = tmp_path / "journal.sqlite"
    with Journal(path, config={"seed": 3}) as journal:
        journal.append("a", 0, block(seed=0))
        journal.append("b", 0, Block("reference", ("x.png", "y.png"), None, np.ones((2, 2))))
        journal.append("a", 1, block(seed=1))
    return path


def edit(path: Path, statement: str) -> None:
    """Change a database behind the journal's back."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


def test_what_is_written_is_read_back(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.config == {"seed": 3}
        read = journal.blocks("a")
        for i in range(2):
            np.testing.assert_array_equal(read[i].latents, block(seed=i).latents)
            np.testing.assert_array_equal(read[i].rates, block(seed=i).rates)
        (reference,) = journal.blocks("b")
        assert (reference.kind, reference.images, reference.latents) == ("reference", ("x.png", "y.png"), None)
        assert journal.blocks("c") == []


def test_a_block_cannot_be_written_twice(path: Path) -> None:
    with Journal(path) as journal, pytest.raises(JournalError, match="UNIQUE"):
        journal.append("a", 1, block(seed=2))
    with Journal(path) as journal:
        np.testing.assert_array_equal(journal.blocks("a")[1].rates, block(seed=1).rates)


def test_a_session_that_is_forgotten_can_be_run_anew(path: Path) -> None:
    with Journal(path) as journal:
        journal.forget("a")
        assert journal.blocks("a") == [] and len(journal.blocks("b")) == 1
        journal.append("a", 0, block(seed=5))
    with Journal(path) as journal:  # whole: none of what was forgotten is left
        np.testing.assert_array_equal(journal.blocks("a")[0].rates, block(seed=5).rates)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM presentation").fetchone() == (4 + 2,)


def test_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="expected the journal of a run, found no file"):
        Journal(tmp_path / "none.sqlite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("made", [False, True])
def test_a_journal_that_was_killed_while_it_was_made_is_as_good_as_before(made: bool, tmp_path: Path) -> None:
    """As files of a transaction that is under way: SQLite has to roll it back, and only someone who may write can."""
    before = tmp_path / "before.sqlite"
    with closing(sqlite3.connect(before, isolation_level=None)) as db:
        if made:
            db.executescript(SCHEMA)
            db.executemany("INSERT INTO meta VALUES (?, ?)", [("version", str(VERSION)), ("config", '{"seed": 3}')])
        db.execute("PRAGMA cache_size = 1")  # so that it is written before it is committed
        db.execute("BEGIN")
        db.execute("CREATE TABLE more (text TEXT)")
        db.executemany("INSERT INTO more VALUES (?)", [(str(i) * 4000,) for i in range(50)])
        for end in ("", "-journal"):
            shutil.copy(f"{before}{end}", tmp_path / f"killed.sqlite{end}")  # a name that means more in an address
    with Journal(tmp_path / "killed.sqlite", config={"seed": 3}) as journal:
        assert journal.config == {"seed": 3} and journal.blocks("a") == []
        journal.append("a", 0, block())
    assert not (tmp_path / "killed.sqlite-journal").exists()


def test_a_name_that_means_more_in_an_address_is_just_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory%41#b.sqlite"
    for count in (0, 1):
        with Journal(path, config={}) as journal:
            assert len(journal.blocks("a")) == count
            journal.append("a", count, block())
    assert all(file.name.startswith(path.name) for file in tmp_path.iterdir())
    path.write_bytes(b"no database at all, but long enough for its heading" * 40)
    with pytest.raises(JournalError):
        Journal(path)


def test_another_version(path: Path) -> None:
    edit(path, "UPDATE meta SET value = '99' WHERE key = 'version'")
    with pytest.raises(JournalError, match="expected version 2, found version 99"):
        Journal(path)


def test_another_database(tmp_path: Path) -> None:
    edit(tmp_path / "other.sqlite", "CREATE TABLE people (name TEXT)")
    with pytest.raises(JournalError, match="found another SQLite database"):
        Journal(tmp_path / "other.sqlite", config={})


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a database, but a text that somebody put there" * 100)
    with pytest.raises(JournalError, match="not a database"):
        Journal(tmp_path / "text.sqlite", config={})


@pytest.mark.parametrize("harm", ["truncated", "overwritten"])
def test_damage_at_the_end_is_refused_and_the_file_left_as_it_is(path: Path, harm: str) -> None:
    with Journal(path) as journal:
        for i in range(2, 60):
            journal.append("a", i, block(n=40, seed=i))
    whole = path.read_bytes()
    damaged = whole[: len(whole) // 2 + 100] if harm == "truncated" else whole[:-9000] + b"\xff" * 9000
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match="journal .*expected a whole"):
        Journal(path)
    assert path.read_bytes() == damaged


def test_a_block_with_missing_presentations_is_damage(path: Path) -> None:
    edit(path, "DELETE FROM presentation WHERE block = 1 AND place = 3")
    with pytest.raises(JournalError, match="block 0 is not whole"):
        Journal(path)


def test_a_missing_block_is_damage(path: Path) -> None:
    edit(path, "DELETE FROM block WHERE session = 'a' AND number = 0")
    with Journal(path) as journal, pytest.raises(JournalError, match="one missing in 'a'"):
        journal.blocks("a")


def test_two_processes_cannot_continue_one_run(path: Path) -> None:
    with Journal(path):
        code = f"from pathlib import Path; from neurogym_v.journal import Journal; Journal(Path({str(path)!r}))"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process has it open" in run.stderr


def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a disk that is really full needs the right to mount one")
    try:
        written = 0
        with Journal(disk / "journal.sqlite", config={}) as journal, pytest.raises(JournalError, match="full|I/O"):
            for written in range(1000):
                journal.append("a", written, block(n=40, seed=written))
        assert 0 < written < 1000
        shutil.copytree(disk, tmp_path / "copy")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    with Journal(tmp_path / "copy" / "journal.sqlite") as journal:
        blocks = journal.blocks("a")
        assert len(blocks) == written
        np.testing.assert_array_equal(blocks[-1].rates, block(n=40, seed=written - 1).rates)
        journal.append("a", written, block(seed=written))


@pytest.mark.parametrize("cut", [0, 1, 3, 9])
@pytest.mark.parametrize("noise", ["poisson+lost:0.1", "multi_unit+retuning:0.02+dying:mean_h=0.02,notice=5+session"])
def test_a_session_replays_what_its_journal_has_and_then_goes_on(tmp_path: Path, make_env, noise: str, cut: int) -> None:
    rng = np.random.default_rng(0)
    rounds = rng.standard_normal((12, 10, 36)).astype(np.float32)

    def run(path: Path, count: int) -> list[np.ndarray]:
        with Journal(path, config={}) as journal:
            env = make_env(journal=journal, noise=noise, site=5, budget=200)
            env.reset(seed=1, options={"references": 5})
            steps = [env.step(latents) for latents in rounds[:count]]
            return [np.append(info["rates"], terminated) for _, _, terminated, _, info in steps]

    whole = run(tmp_path / "whole.sqlite", 12)
    assert (whole[0][-1], whole[-1][-1]) == (0, "dying" in noise)  # lost in round 8
    run(tmp_path / "part.sqlite", cut)
    np.testing.assert_array_equal(run(tmp_path / "part.sqlite", 12), whole)
    with Journal(tmp_path / "part.sqlite") as part, Journal(tmp_path / "whole.sqlite") as full:
        for a, b in zip(part.blocks("session"), full.blocks("session"), strict=True):
            assert a.asks_for() == b.asks_for()
            np.testing.assert_array_equal(a.rates, b.rates)


def test_replay_shows_nothing(tmp_path: Path, make_env, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = np.random.default_rng(0).standard_normal((10, 36)).astype(np.float32)
    for shown in (1, 0):
        with Journal(tmp_path / "journal.sqlite", config={}) as journal:
            env = make_env(journal=journal)
            calls = []
            present = env.neuron.present
            monkeypatch.setattr(env.neuron, "present", lambda *a, present=present, calls=calls: calls.append(1) or present(*a))
            env.reset(seed=1)
            env.step(latents)
            assert len(calls) == shown


def test_replay_that_diverges_is_reported(tmp_path: Path, make_env) -> None:
    latents = np.random.default_rng(0).standard_normal((10, 36)).astype(np.float32)
    with Journal(tmp_path / "journal.sqlite", config={}) as journal:
        env = make_env(journal=journal)
        env.reset(seed=1)
        env.step(latents)
        env = make_env(journal=journal)
        env.reset(seed=1)
        with pytest.raises(JournalError, match="diverged in session 'session': block 0"):
            env.step(latents + np.float32(1e-6))


def test_every_reset_is_a_session_of_its_own(tmp_path: Path, make_env, cosines) -> None:
    latents = np.random.default_rng(0).standard_normal((2, 10, 36)).astype(np.float32)
    with Journal(tmp_path / "journal.sqlite", config={}) as journal:
        for _ in range(2):  # the second time all of it is replayed
            env = make_env(journal=journal)
            for seed in (1, 2):
                env.reset(seed=seed)
                env.step(latents[0])
        sessions = NeuronVectorEnv(2, neuron="gabor", generator=cosines, budget=20, batch_size=10, journal=journal)
        sessions.reset(seed=1)
        sessions.step(latents)
        names = ("session", "session#1", "session-0", "session-1")
        assert [len(journal.blocks(name)) for name in names] == [1, 1, 1, 1]
