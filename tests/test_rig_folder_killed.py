# ruff: noqa: F811 (fixtures that come from the other file)
"""The folder hand-off when a session dies: no number is used again, no late answer is taken for another block's."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from neurogym_v.rigs import RigError
from neurogym_v.rigs import folder as folder_module
from neurogym_v.rigs.folder import Folder
from neurogym_v.rigs.folder_files import write_mat
from tests.test_rig_folder import CHANNELS, IMAGES, asked, check, files, lab, rates_of, respond, rig, show, until  # noqa: F401 (fixtures)


def test_a_session_that_stops_in_the_middle_puts_its_block_away(tmp_path: Path, rig) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    folder = rig()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder_module.time, "sleep", interrupt)
        show(folder, asked(0, 1))
    assert files(tmp_path) == []
    assert len(files(tmp_path / "unanswered")) == 2


WAITS = """
import sys, torch
from neurogym_v.rigs import Asked
from neurogym_v.rigs.folder import Folder

rig = Folder(channels=("A-000", "A-001", "A-002"), path=sys.argv[1])
rig.open()
list(rig.show(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [Asked(0, 0), Asked(1, 1)], lambda _: None))
"""


def test_killed_while_it_waits_the_late_answer_is_nobodys(tmp_path: Path, rig, lab) -> None:
    waits = subprocess.Popen([sys.executable, "-c", WAITS, str(tmp_path)], cwd=Path(__file__).parents[1])
    until(lambda: (tmp_path / "block000_001_p000001.png").exists())
    assert waits.poll() is None
    waits.kill()
    waits.wait()

    def begun(_: Sequence[int]) -> None:
        write_mat(tmp_path / "block000.mat", ["block000_000_p000000.png", "block000_001_p000001.png"], np.zeros((2, 3)))

    folder = rig()
    assert files(tmp_path) == []
    other = lab()
    wanted = asked(2, 3, first=2)
    check(show(folder, wanted, begun), wanted)
    assert [block for block, *_ in other.log] == [1, 1]
    assert files(tmp_path / "unanswered") == ["block000_000_p000000.png", "block000_001_p000001.png"]


SESSIONS = """
import os, random, signal, sys, time
import numpy as np, torch
from neurogym_v.rigs import Asked
from neurogym_v.rigs.folder import Folder

path, told, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8))

def session():
    with open(told, "a+", buffering=1) as out:
        out.seek(0)
        first = 1 + max([int(line.split()[1]) for line in out], default=-1)  # a resumed run goes on with new numbers
        rig = Folder(channels=("A-000", "A-001", "A-002"), path=path, timeout_s=30, poll_s=0.002)
        rig.open()
        for block in range(8):
            asked = [Asked(number=first + 5 * block + i, image=(block + i) % 6) for i in range(5)]
            noted = lambda numbers: out.write("".join(f"begun {n}\\n" for n in numbers))
            for o in (outcome for known in rig.show(images, asked, noted) for outcome in known):
                out.write(f"rates {o.number} {asked[o.number - asked[0].number].image} {' '.join(map(str, o.rates))}\\n")
        out.write("done -1\\n")

for kill in range(kills + 1):
    child = os.fork()
    if not child:
        session()
        os._exit(0)
    if kill < kills:
        time.sleep(random.uniform(0.0, 0.12))
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_sessions_killed_at_random_moments_reuse_no_number_and_mix_nothing_up(tmp_path: Path, lab) -> None:
    told = tmp_path.with_suffix(".told")
    other = lab(lambda images, numbers: (time.sleep(0.005), respond(images, numbers))[1])
    run = subprocess.run(
        [sys.executable, "-c", SESSIONS, str(tmp_path), str(told), "15"],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = [line.split() for line in told.read_text().splitlines()]
    begun = [int(number) for what, number, *_ in lines if what == "begun"]
    assert len(begun) == len(set(begun))
    assert ["done", "-1"] in lines, run.stderr
    for what, number, *rest in lines:
        if what == "rates":
            assert [float(r) for r in rest[1:]] == rates_of(IMAGES[int(rest[0])].numpy(), int(number))
    shown = Counter(block for block, *_ in other.log)
    assert max(shown.values()) == 5  # a number that is used twice would be shown twice
    assert {number for _, number, _ in other.log} <= set(begun)
    images = [path.name for path in tmp_path.rglob("*.png")]
    assert len(images) == len(set(images))
    owners = {int(re.findall(r"_p(\d+)", name)[0]): name[:8] for name in images}
    assert len(owners) == len(images)
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.glob("*.png"))
    assert set(files(tmp_path / "answered")).isdisjoint(files(tmp_path / "unanswered"))


def test_a_second_session_is_refused_and_a_look_takes_nothing_away(tmp_path: Path, rig) -> None:
    first = rig()
    (tmp_path / "block000_000_p000000.png").write_bytes(b"of the session that runs")
    second = Folder(channels=CHANNELS, path=str(tmp_path))
    second.look()
    with pytest.raises(RigError, match="expected no other session to use it, one does"):
        second.open()
    assert files(tmp_path) == ["block000_000_p000000.png"]
    first.close()
    second.open()
    assert files(tmp_path) == [] and files(tmp_path / "unanswered") == ["block000_000_p000000.png"]
    second.close()
