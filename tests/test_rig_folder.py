"""The folder hand-off with its other side, over a real folder: every answer goes to its image, or is refused in one line."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neurogym_v.rigs import Asked, Outcome, RigError
from neurogym_v.rigs import folder as folder_module
from neurogym_v.rigs.folder import Folder
from neurogym_v.rigs.folder_files import read_answer, write_h5, write_mat
from neurogym_v.rigs.virtual.folder import FolderRig
from neurogym_v.types import NeuroGymError

CHANNELS = ("A-000", "A-001", "A-002")
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8))


def rates_of(image: np.ndarray, number: int) -> list[float]:
    """That tell which image and which presentation they are of."""
    return [float(image.sum()), float(number), -1.0]


def respond(images: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    assert images.dtype == np.uint8
    return np.array([rates_of(image, number) for image, number in zip(images, numbers, strict=True)])


def asked(*images: int, first: int = 0) -> list[Asked]:
    return [Asked(number=first + i, image=image) for i, image in enumerate(images)]


def show(rig: Folder, wanted: Sequence[Asked], begun: Callable[[Sequence[int]], None] = lambda _: None) -> list[Outcome]:
    return [outcome for known in rig.show(IMAGES, wanted, begun) for outcome in known]


def check(outcomes: Sequence[Outcome], wanted: Sequence[Asked]) -> None:
    assert [o.number for o in outcomes] == [a.number for a in wanted]
    for outcome, a in zip(outcomes, wanted, strict=True):
        assert outcome.rates is not None
        assert outcome.rates.tolist() == rates_of(IMAGES[a.image].numpy(), a.number)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Folder]]:
    made: list[Folder] = []

    def make(**options: Any) -> Folder:
        made.append(Folder(**{"channels": CHANNELS, "path": str(tmp_path), "timeout_s": 20.0, "poll_s": 0.002} | options))
        made[-1].open()
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[..., FolderRig]]:
    made: list[FolderRig] = []

    def make(responding: Callable[..., np.ndarray] = respond, **options: Any) -> FolderRig:
        made.append(FolderRig(tmp_path, CHANNELS, responding, **{"poll_s": 0.002, "pause_s": 0.1} | options))
        made[-1].open()
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert one.failure is None


@pytest.mark.parametrize("answers", ["mat", "h5"])
@pytest.mark.parametrize("expected", ["auto", "same"])
def test_blocks_are_shown_and_answered(tmp_path: Path, rig, lab, answers: str, expected: str) -> None:
    other = lab(answers=answers)
    folder = rig(answers=answers if expected == "same" else "auto")
    for block, wanted in enumerate([asked(3, 0, 5, first=10), asked(1, first=20), asked(2, 2, 4, 2, first=30)]):
        check(show(folder, wanted), wanted)
        assert [number for b, number, _ in other.log if b == block] == [a.number for a in wanted]
    assert show(folder, []) == []
    assert files(tmp_path) == [f"block{i:03d}.{answers}" for i in range(3)]
    shown = files(tmp_path / "answered")
    assert shown[:4] == [
        "block000_000_p000010.png",
        "block000_001_p000011.png",
        "block000_002_p000012.png",
        "block001_000_p000020.png",
    ]
    pixels = np.asarray(Image.open(tmp_path / "answered" / shown[0]))
    np.testing.assert_array_equal(pixels, IMAGES[3].permute(1, 2, 0))


def test_lost_trials(rig, lab) -> None:
    def responding(images: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
        rates = respond(images, numbers)
        rates[1], rates[2, 0] = np.nan, np.nan
        return rates

    lab(responding)
    first, second, third = show(rig(), asked(0, 1, 2))
    assert first.rates is not None
    assert (second.rates, second.lost) == (None, "no response in block000.mat")
    np.testing.assert_array_equal(third.rates, [np.nan, 2.0, -1.0])  # one site failed, not the trial


def test_a_thousand_images_keep_their_order_in_an_h5(rig, lab) -> None:
    other = lab(answers="h5")
    wanted = asked(*(i % 6 for i in range(1005)))
    check(show(rig(), wanted), wanted)
    assert [number for _, number, _ in other.log] == [a.number for a in wanted]


def test_begun_is_told_before_anything_can_be_seen(tmp_path: Path, rig, lab) -> None:
    lab()
    seen: list[Any] = []
    wanted = asked(0, 1, first=4)
    outcomes = rig().show(IMAGES, wanted, lambda numbers: seen.append((list(numbers), files(tmp_path))))
    assert seen == []
    check([outcome for known in outcomes for outcome in known], wanted)
    assert seen == [([4, 5], ["block000_000_p000004.png.partial", "block000_001_p000005.png.partial"])]


def test_if_it_cannot_be_noted_nothing_is_shown(tmp_path: Path, rig) -> None:
    def begun(_: Sequence[int]) -> None:
        raise NeuroGymError("journal full")

    with pytest.raises(NeuroGymError, match="journal full"):
        show(rig(), asked(0, 1), begun)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answers", ["mat", "h5"])
def test_an_answer_written_in_place_is_read_when_it_is_whole(rig, lab, monkeypatch: pytest.MonkeyPatch, answers: str) -> None:
    """Half a file is not refused for a rest in the middle of it."""
    monkeypatch.setattr(folder_module, "RESTS_S", 0.02)
    lab(answers=answers, fault="half", pause_s=0.3)
    wanted = asked(0, 1, 2)
    check(show(rig(), wanted), wanted)


def test_a_late_answer_is_waited_for(rig, lab) -> None:
    lab(fault="late")
    wanted = asked(0, 1, 2)
    check(show(rig(), wanted), wanted)


def test_a_renamed_answer_is_read_at_once_and_a_growing_one_rests(tmp_path: Path, rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The growing one has all its numbers from the start, as zeros: only that it does not rest tells that it is not done."""
    monkeypatch.setattr(folder_module, "RESTS_S", 60.0)
    reads: list[str] = []
    monkeypatch.setattr(
        folder_module, "read_answer", lambda path, *rest: (reads.append(path.name), read_answer(path, *rest))[1]
    )
    wanted, truth, folder = asked(0, 1), respond(IMAGES[:2].numpy(), [0, 1]), rig()

    def read_again(times: int) -> None:
        seen = len(reads)
        until(lambda: len(reads) >= seen + times)

    def answer(block: str, *, grows: bool) -> list[Outcome]:
        got: list[Outcome] = []
        thread = threading.Thread(target=lambda: got.extend(show(folder, wanted)))
        thread.start()
        until(lambda: (tmp_path / f"{block}_001_p000001.png").exists())
        names = [f"{block}_{i:03d}_p{i:06d}.png" for i in range(2)]
        path = tmp_path / f"{block}.mat"
        if grows:
            write_mat(tmp_path / "zeros", names, np.zeros_like(truth))
            zeros = (tmp_path / "zeros").read_bytes()
            path.write_bytes(zeros[:-10])
            read_again(1)
            path.write_bytes(zeros)
            read_again(3)
        write_mat(tmp_path / "whole", names, truth)
        if grows:
            path.write_bytes((tmp_path / "whole").read_bytes())
            read_again(3)
            assert not got
            monkeypatch.setattr(folder_module, "RESTS_S", 0.05)
        else:
            (tmp_path / "whole").rename(path)
        thread.join(20)
        return got

    check(answer("block000", grows=False), wanted)
    check(answer("block001", grows=True), wanted)


def test_an_answer_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, rig, lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(path: Path, names: Sequence[str], channels: int) -> np.ndarray:
        rates = read_answer(path, names, channels)
        if rates[0, 0] < 0:
            write_mat(tmp_path / "better", names, -rates)
            (tmp_path / "better").rename(path)
        return rates

    monkeypatch.setattr(folder_module, "read_answer", changing)
    lab(lambda images, numbers: -respond(images, numbers))
    wanted = asked(0, 1)
    check(show(rig(), wanted), wanted)


WRONG = {
    "ids": r"block000.mat: expected in stimulusID the names of the images that were shown, found 'block000_000_q000007.png'",
    "rows": r"block000.mat: expected all 3 images in stimulusID, found 2 of them; block000_002_p000009.png is missing",
    "v5": r"block000.mat: expected HDF5, found a MAT-file of version 5 or 7; save with -v7.3",
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_answer_is_refused_in_one_line(tmp_path: Path, rig, lab, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(folder_module, "RESTS_S", 0.05)
    monkeypatch.setattr(folder_module, "BREAKS_OFF_S", 60.0)
    lab(fault=fault)
    folder = rig()
    with pytest.raises(RigError, match=WRONG[fault]) as caught:
        show(folder, asked(0, 1, 2, first=7))
    assert str(caught.value).startswith(f"folder {tmp_path}: block000.mat: ")  # not that none came in time
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["block000.mat"]
    assert len(files(tmp_path / "unanswered")) == 3
    wanted = asked(0, 1, 2, first=17)  # the next one is right
    check(show(folder, wanted), wanted)


def test_one_that_stays_half_is_refused(tmp_path: Path, rig, lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "BREAKS_OFF_S", 0.1)
    lab(fault="half", pause_s=60)
    with pytest.raises(RigError, match="block000.mat: expected a whole HDF5 file, found one that breaks off .* rename it when"):
        show(rig(), asked(0, 1, 2))


def test_no_answer_in_time_says_what_is_there_instead(tmp_path: Path, rig, lab) -> None:
    lab(fault="never")
    (tmp_path / "answer000.mat").write_text("a wrong name")
    message = (
        rf"folder {tmp_path}: expected the answer block000.mat or block000.h5 within 0.1 s, "
        r"found 2 of its 2 images and answer000.mat$"
    )
    with pytest.raises(RigError, match=message):
        show(rig(timeout_s=0.1), asked(0, 1))
    assert files(tmp_path) == ["answer000.mat"]


def test_no_answer_of_the_kind_that_was_agreed(tmp_path: Path, rig) -> None:
    def begun(_: Sequence[int]) -> None:
        (tmp_path / "block000.mat").write_text("another kind")

    with pytest.raises(RigError, match="the answer block000.h5 within 0.05 s, found 1 of its 1 images and block000.mat$"):
        show(rig(timeout_s=0.05, answers="h5"), asked(0), begun)


def test_no_answer_but_an_unfinished_one(tmp_path: Path, rig) -> None:
    def begun(_: Sequence[int]) -> None:
        (tmp_path / "block000.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))

    with pytest.raises(RigError, match="within 2 s, found block000.h5: expected a whole HDF5 file, found one that breaks off"):
        show(rig(timeout_s=2), asked(0), begun)


def test_two_answers_are_one_too_many(tmp_path: Path, rig) -> None:
    def begun(_: Sequence[int]) -> None:
        write_mat(tmp_path / "block000.mat", ["block000_000_p000000.png"], np.zeros((1, 3)))
        write_h5(tmp_path / "block000.h5", np.zeros((1, 3)))

    with pytest.raises(RigError, match="expected one answer, found block000.mat and block000.h5; set `answers`"):
        show(rig(), asked(0), begun)


@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_the_folder_vanishes(tmp_path: Path, rig, when: str) -> None:
    path = tmp_path / "drive"
    path.mkdir()
    folder = rig(path=str(path))
    if when == "before":
        path.rmdir()
    thread = threading.Thread(target=lambda: (until(lambda: (path / "block000_000_p000000.png").exists()), shutil.rmtree(path)))
    if when != "before":
        thread.start()
    with pytest.raises(RigError, match=r"drive: expected it to be there; is its drive still connected\?, got: No such file"):
        show(folder, asked(0))


def test_what_was_mounted_is_gone_but_not_the_folder(tmp_path: Path, rig) -> None:
    folder = rig()
    folder._drive = -1
    with pytest.raises(RigError, match="expected it on the drive where it was opened, found another"):
        show(folder, asked(0))


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, rig) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a disk that is really full needs the right to mount one")
    other = FolderRig(disk, CHANNELS, respond, poll_s=0.002)
    try:
        folder, began = rig(path=str(disk)), list[int]()
        large = torch.randint(0, 256, (4, 3, 200, 200), dtype=torch.uint8)
        with pytest.raises(
            RigError, match="expected it to take block000_00[1-3]_p00000[1-3].png, got: No space left on device"
        ):
            list(folder.show(large, asked(0, 1, 2, 3), began.extend))
        assert (began, list(disk.iterdir())) == ([], [])
        other.open()
        wanted = asked(0, 1, first=4)
        check(show(folder, wanted), wanted)
    finally:
        other.close()
        subprocess.run(["umount", str(disk)], check=True)


def test_numbers_go_on_where_any_file_is_left(tmp_path: Path, rig, lab) -> None:
    """Ours of a killed session are put away, half-written ones let go; nothing else is touched."""
    (tmp_path / "unanswered").mkdir()
    left = ["block003_000_p000005.png", "block003_001_p000006.png", "block004_000_p000007.png.partial"]
    others = ["block000.mat", "blocks.txt", "holiday.png", "block001_000_gen007.png", "myblock099.mat"]
    for name in (*left, *others, "unanswered/block009_000_p000009.png"):
        (tmp_path / name).write_bytes(b"x")
    folder = rig()
    assert files(tmp_path) == sorted(others)
    assert files(tmp_path / "unanswered") == [*left[:2], "block009_000_p000009.png"]
    other = lab()
    wanted = asked(0, 1, first=10)
    check(show(folder, wanted), wanted)
    (tmp_path / "block017.mat").write_bytes(b"an answer from nowhere")
    wanted = asked(2, first=12)
    check(show(folder, wanted), wanted)
    shutil.rmtree(tmp_path / "answered")
    for path in tmp_path.glob("*.mat"):  # somebody tidied up
        path.unlink()
    wanted = asked(3, first=13)
    check(show(folder, wanted), wanted)
    assert [block for block, *_ in other.log] == [10, 10, 18, 19]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answers": "matlab"}, "unknown answers of a folder 'matlab': did you mean 'mat'"),
        ({"timeout_s": 0}, "expected timeout_s > 0"),
        ({"timeout_s": float("nan")}, "expected timeout_s > 0"),
        ({"channels": ()}, "channels with different names, got none"),
        ({"channels": ("a", "a")}, "channels with different names, got a, a"),
        ({"prefix": "../x"}, "expected a prefix of letters"),
        ({"prefix": "run1"}, "expected a prefix of letters"),
        ({"path": "/nowhere/at/all"}, "/nowhere/at/all: expected it to be there; .* No such file or directory"),
    ],
)
def test_what_makes_no_sense_is_refused(rig, options: dict[str, Any], message: str) -> None:
    with pytest.raises(NeuroGymError, match=message):
        rig(**options)


def test_images_of_another_kind_are_refused(rig) -> None:
    folder = rig()
    for images in (IMAGES.float(), IMAGES[0], IMAGES[:, :2]):
        with pytest.raises(RigError, match="uint8 images, got"):
            list(folder.show(images, asked(0), lambda _: None))


def test_another_prefix(tmp_path: Path, rig, lab) -> None:
    lab(prefix="evo-a")
    wanted = asked(0, 1)
    check(show(rig(prefix="evo-a"), wanted), wanted)
    assert files(tmp_path) == ["evo-a000.mat"]
