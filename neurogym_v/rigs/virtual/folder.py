"""The other side of a folder hand-off: what a lab's loop does that shows the images it finds and leaves a file of rates."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from neurogym_v.naming import nearest
from neurogym_v.rigs.folder_files import NAMES, RESPONSES, write_h5, write_mat
from neurogym_v.rigs.virtual.mischief import ANSWERS

Respond = Callable[[NDArray[np.uint8], Sequence[int]], NDArray[np.float64]]
"""(n, 3, s, s) images and the numbers of their presentations -> (n, channels) rates; NaN: lost."""


class FolderRig:
    """Watches a folder in a thread, and answers each block that it finds there once it is whole.

    Args:
        channels: sites.
        answers: `mat` or `h5`.
        fault: one of `mischief.ANSWERS`.
        at: to which of the blocks that it answers, counted from 0, the fault happens first.
        every: to which after it; 0: to no other.
        told: called with each fault and its block.
        pause_s: for which it is late, or stops in the middle.

    Raises:
        NeuroGymError: no such fault or kind of answer.
    """

    def __init__(
        self,
        path: Path,
        channels: Sequence[str],
        respond: Respond,
        *,
        answers: str = "mat",
        fault: str = "",
        at: int = 0,
        every: int = 0,
        told: Callable[[str, int], None] = lambda _fault, _block: None,
        pause_s: float = 0.2,
        poll_s: float = 0.005,
        prefix: str = "block",
    ) -> None:
        if fault and fault not in ANSWERS:
            raise nearest("fault of a folder", fault, ANSWERS)
        if answers not in ("mat", "h5"):
            raise nearest("answers of a folder", answers, ("mat", "h5"))
        self.path, self.channels, self.respond, self.answers = path, tuple(channels), respond, answers
        self.fault, self.at, self.every, self.told, self.pause_s, self.poll_s = fault, at, every, told, pause_s, poll_s
        self.log: list[tuple[int, int, NDArray[np.float64]]] = []
        """Block, presentation and (channels,) rates of all that it was shown, also of what it then told wrongly."""
        self.failure: BaseException | None = None
        """What ended the thread before its time."""
        self._image = re.compile(rf"{prefix}(\d{{3,}})_\d{{3,}}_p(\d+)\.png(\.partial)?")
        self._prefix, self._done, self._before = prefix, set[int](), dict[int, set[str]]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="virtual folder", daemon=True)

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """May be called twice."""
        self._stop.set()
        if self._thread.ident:
            self._thread.join(5)

    def _run(self) -> None:
        try:
            while not self._stop.wait(self.poll_s):
                for block, names in sorted(self._whole().items()):
                    self._show(block, names)
        except BaseException as error:
            self.failure = error

    def _whole(self) -> dict[int, list[str]]:
        """Blocks without an answer, with their files, all there, and as they were in the look before."""
        blocks, partial = dict[int, set[str]](), set[int]()
        there = {path.name for path in self.path.iterdir()}
        for name in there:
            if found := self._image.fullmatch(name):
                blocks.setdefault(int(found[1]), set()).add(name)
                if found[3]:
                    partial.add(int(found[1]))
        before, self._before = self._before, blocks  # a folder that changes while it is listed may seem to lack a file
        answered = {block for block in blocks if f"{self._prefix}{block:03d}.{self.answers}" in there}
        left = blocks.keys() - partial - answered - self._done
        return {block: sorted(blocks[block]) for block in left if blocks[block] == before.get(block)}

    def _show(self, block: int, names: list[str]) -> None:
        try:
            images = np.stack([np.asarray(Image.open(self.path / name).convert("RGB")) for name in names])
        except FileNotFoundError:  # the other side has put it away
            return
        numbers = [int(found[2]) for name in names if (found := self._image.fullmatch(name))]
        rates = np.asarray(self.respond(images.transpose(0, 3, 1, 2), numbers), dtype=float)
        past = len(self._done) - self.at
        fault = self.fault if past == 0 or (past > 0 and self.every and past % self.every == 0) else ""
        if fault:
            self.told(fault, block)
        self._done.add(block)
        self.log += [(block, number, row) for number, row in zip(numbers, rates, strict=True)]
        if fault == "never" or (fault == "late" and self._stop.wait(self.pause_s)):
            return
        if fault == "ids":
            names = [name.replace("_p", "_q") for name in names]
        if fault == "rows":
            names, rates = names[:-1], rates[:-1]
        self._write(block, names, rates, fault)

    def _write(self, block: int, names: list[str], rates: NDArray[np.float64], fault: str) -> None:
        path = self.path / f"{self._prefix}{block:03d}.{self.answers}"
        temporary = path.with_suffix(".tmp")
        if fault == "v5":
            cells = np.array(names, dtype=object)[:, None]
            scipy.io.savemat(temporary, {NAMES: cells, RESPONSES: rates.T}, appendmat=False)
        elif self.answers == "mat":
            write_mat(temporary, names, rates)
        else:
            write_h5(temporary, rates, [len(names) + 7] * len(names) if fault == "ids" else None)
        if fault != "half":
            temporary.replace(path)
            return
        whole = temporary.read_bytes()
        with path.open("wb") as file:
            file.write(whole[: len(whole) // 2])
            file.flush()
            self._stop.wait(self.pause_s)
            file.write(whole[len(whole) // 2 :])
        temporary.unlink()
