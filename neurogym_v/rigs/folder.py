"""A rig behind a folder: images are put there, and what presents them and counts the spikes puts a file of rates beside them.

So labs that run MonkeyLogic have served XDream (github.com/willwx/XDream, `EPhysScorer`; Ponce et al. 2019), and whatever
answered it can answer here:

- A block is as many images as were asked for, `block017_003_p000123.png`: block, place in it, presentation. They are written
  under names that end in `.partial` and renamed together: a block is whole when none of these is left, in two looks.
- The answer is `block017.mat` or `block017.h5` (see `folder_files`), best written under another name and renamed.
- Once it is read, the images are moved into `answered/`; those of a block that will not be waited for any more, because the
  session failed or was killed, into `unanswered/`. What lies in the folder itself is to be shown.

A number is never used twice, also by the next session. One folder serves one session at a time.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from neurogym_v.naming import nearest
from neurogym_v.render import to_pil
from neurogym_v.rigs import Asked, Outcome, RigError
from neurogym_v.rigs.folder_files import UnfinishedError, read_answer
from neurogym_v.rigs.gate import Gate
from neurogym_v.types import Images

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

FORMATS = ("mat", "h5")
ANSWERED, UNANSWERED, PARTIAL = "answered", "unanswered", ".partial"
RESTS_S = 0.5
"""A file that is not right at first sight may be written in place: it is believed once it did not change for so long."""
BREAKS_OFF_S = 10.0
"""One that is not even whole is refused only after so long without a change: a network drive takes its time."""


@dataclass(slots=True)
class _Watched:
    """An answer that has appeared."""

    state: tuple[int, int, int] | None = None
    """inode, bytes, modified"""
    since: float = 0.0
    in_place: bool = False
    """It was seen before it was done."""
    wrong: str = ""


class Folder:
    """A rig that answers with files.

    Args:
        channels: the sites, in the order of the answers' columns.
        path: a folder that both sides see; it must be there.
        answers: `mat`, `h5`, or `auto`: whichever comes.
        timeout_s: for the answer to a block.
        poll_s: from one look to the next.
        prefix: of all names.

    Raises:
        RigError: one of them makes no sense.
    """

    def __init__(
        self,
        *,
        channels: Sequence[str],
        path: str,
        answers: str = "auto",
        timeout_s: float = 600.0,
        poll_s: float = 0.02,
        prefix: str = "block",
    ) -> None:
        if answers not in (*FORMATS, "auto"):
            raise nearest("answers of a folder", answers, (*FORMATS, "auto"))
        if not (timeout_s > 0 and poll_s > 0):
            raise RigError(f"folder {path}: expected timeout_s > 0 and poll_s > 0, got {timeout_s} and {poll_s}")
        if not channels or len(set(channels)) != len(channels):
            raise RigError(f"folder {path}: expected channels with different names, got {', '.join(channels) or 'none'}")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*(?<![0-9_])", prefix):
            raise RigError(f"folder {path}: expected a prefix of letters, got {prefix!r}")
        self.channels, self.path, self.prefix = tuple(channels), Path(path), prefix
        self.endings = FORMATS if answers == "auto" else (answers,)
        self.timeout_s, self.poll_s = timeout_s, poll_s
        self._next, self._pending = 0, list[str]()
        self.note: Callable[[str], None] = lambda _: None
        self.gate = Gate()
        self._drive: int | None = None
        self._lock: BinaryIO | None = None

    def open(self) -> None:
        """Put away what a killed session has left, and see that files can be written.

        Raises:
            RigError: the folder is not there, or not ours to write to, or another session of this machine uses it.
        """
        self.look()
        self._take()
        try:
            for name in self._names():
                if found := re.fullmatch(rf"{self.prefix}\d{{3,}}_\d{{3,}}_p\d{{6,}}\.png({PARTIAL})?", name):
                    with self._said(f"to let go of {name}"):
                        (self.path / name).unlink() if found[1] else self._move(name, UNANSWERED)
        except BaseException:
            self._release()
            raise

    def look(self) -> None:
        """See that the folder is there and can be written to; nothing in it is touched.

        Raises:
            RigError: it is not, or cannot.
        """
        self._drive = None
        self._names()
        with self._said("to be on a drive"):
            self._drive = self.path.stat().st_dev
        trial = self.path / f"{self.prefix}{PARTIAL}"
        with self._said("to be writable"):
            trial.write_bytes(b"")
            trial.unlink()

    def show(
        self, images: Images, asked: Sequence[Asked], begun: Callable[[Sequence[int]], None]
    ) -> Iterator[Sequence[Outcome]]:
        """One block of all that is asked for; see `Rig.show`. Rates are as the answer has them, NaN for a site without any.

        Raises:
            RigError: the images cannot be written, no answer comes in time, or it does not fit, or the folder is gone.
        """
        if not asked:
            return
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise RigError(f"folder {self.path}: expected (n, 3, s, s) uint8 images, got {tuple(images.shape)} {images.dtype}")
        while not self.gate.open:
            self.gate.wait()
        block = self._free_number()
        called, width = f"{self.prefix}{block:03d}", max(3, len(str(len(asked) - 1)))
        # of one width, for an answer in .h5 goes by the sorted names
        self._pending = [f"{called}_{place:0{width}d}_p{a.number:06d}.png" for place, a in enumerate(asked)]
        try:
            self._write(images, asked)
            begun([a.number for a in asked])
            with self._said(f"to take the images of {called}"):
                for name in self._pending:
                    (self.path / f"{name}{PARTIAL}").rename(self.path / name)
            file, rates = self._answer(called)
            self._put_away(ANSWERED)
        finally:
            self._put_away(UNANSWERED)
        yield [
            Outcome(number=a.number, lost=f"no response in {file}")
            if np.isnan(row).all()
            else Outcome(number=a.number, rates=row)
            for a, row in zip(asked, rates, strict=True)
        ]

    def close(self) -> None:
        """Let go of a block that nobody waits for any more; may be called twice."""
        self._put_away(UNANSWERED)
        self._release()

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # a forked process may still hold the file
            lock.close()

    def _take(self) -> None:
        """Hold the folder against other sessions of this machine, as long as this process lives.

        Raises:
            RigError: one of them holds it.
        """
        if fcntl is None or self._lock:
            return
        digest = hashlib.sha256(f"{self.path.resolve()}/{self.prefix}".encode()).hexdigest()[:16]
        with suppress(OSError):  # no place for it: go without
            self._lock = (Path(tempfile.gettempdir()) / f"neurogym-v-folder-{digest}.lock").open("ab")
        if self._lock:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                self._lock = None
                raise RigError(f"folder {self.path}: expected no other session to use it, one does; end that first") from None
            except OSError:  # no locks there
                self._release()

    def _free_number(self) -> int:
        """Above every number that any file of the two sides has, and every one that was used."""
        names = self._names()
        for folder in (ANSWERED, UNANSWERED):
            if folder in names:
                with self._said(f"to show what is in {folder}"):
                    names += [path.name for path in (self.path / folder).iterdir()]
        used = [int(found[1]) for name in names if (found := re.match(rf"{self.prefix}(\d{{3,9}})(?!\d)", name))]
        number = max([self._next, *(n + 1 for n in used)])
        self._next = number + 1
        return number

    def _write(self, images: Images, asked: Sequence[Asked]) -> None:
        encoded: dict[int, bytes] = {}
        for name, a in zip(self._pending, asked, strict=True):
            if a.image not in encoded:
                to_pil(images[a.image]).save(held := io.BytesIO(), "PNG", compress_level=1)
                encoded[a.image] = held.getvalue()
            with self._said(f"to take {name}"):
                (self.path / f"{name}{PARTIAL}").write_bytes(encoded[a.image])

    def _answer(self, called: str) -> tuple[str, NDArray[np.float64]]:
        """The name of the file, and (n, channels) rates."""
        expected, watched = [f"{called}.{ending}" for ending in self.endings], _Watched()
        until = time.monotonic() + self.timeout_s
        while True:
            names = self._names()
            there = [name for name in expected if name in names]
            if len(there) > 1:
                raise RigError(f"folder {self.path}: expected one answer, found {' and '.join(there)}; set `answers`")
            if there and (rates := self._read(self.path / there[0], watched)) is not None:
                return there[0], rates
            if time.monotonic() > until:
                break
            time.sleep(self.poll_s)
        found = watched.wrong if there else self._instead(names)
        answer = f"{' or '.join(expected)} within {self.timeout_s:g} s"
        raise RigError(f"folder {self.path}: expected the answer {answer}, found {found}")

    def _read(self, path: Path, watched: _Watched) -> NDArray[np.float64] | None:
        """The rates, if the file is done: it looks the same twice, and is right, after a rest if it was ever seen otherwise."""
        state, now = self._state(path), time.monotonic()
        if state is None or state != watched.state:
            watched.in_place = watched.state is not None and state is not None and state[0] == watched.state[0]
            watched.state, watched.since, watched.wrong = state, now, f"{path.name} still growing"
            return None
        quiet = now - watched.since
        try:
            rates = read_answer(path, self._pending, len(self.channels))
        except RigError as error:
            watched.in_place, watched.wrong = True, str(error)
            if quiet >= (BREAKS_OFF_S if isinstance(error, UnfinishedError) else RESTS_S):
                raise RigError(f"folder {self.path}: {error}") from None
            return None
        settled = quiet >= RESTS_S or not watched.in_place
        return rates if settled and self._state(path) == state else None

    def _state(self, path: Path) -> tuple[int, int, int] | None:
        with self._said(f"to show {path.name}"), suppress(FileNotFoundError):  # if the folder is gone, the next look tells
            stat = path.stat()
            return stat.st_ino, stat.st_size, stat.st_mtime_ns
        return None

    def _instead(self, names: Sequence[str]) -> str:
        ours = set(self._pending)
        others = sorted(name for name in names if name not in ours and name not in (ANSWERED, UNANSWERED))
        left = f"{sum(name in ours for name in names)} of its {len(ours)} images"
        shown = ", ".join(others[-5:]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        return f"{left} and {shown}" if others else f"{left} and nothing else"

    def _put_away(self, folder: str) -> None:
        """The images of the block, as far as they are there; without a word, for there may be an error to be told already."""
        names, self._pending = self._pending, []
        for name in names:
            with suppress(OSError):
                (self.path / f"{name}{PARTIAL}").unlink(missing_ok=True)
            with suppress(OSError):
                self._move(name, folder)

    def _move(self, name: str, folder: str) -> None:
        if (self.path / name).exists():
            (self.path / folder).mkdir(exist_ok=True)
            (self.path / name).replace(self.path / folder / name)

    def _names(self) -> list[str]:
        """All there is in the folder. Asking for it also makes a network drive look again, as asking for one file may not."""
        with self._said("to be there; is its drive still connected?"):
            names, drive = [path.name for path in self.path.iterdir()], self.path.stat().st_dev
        if drive != self._drive is not None:  # what a drive was mounted on stays when it goes
            raise RigError(f"folder {self.path}: expected it on the drive where it was opened, found another; connect it again")
        return names

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RigError(f"folder {self.path}: expected it {what}, got: {error.strerror or error}") from None
