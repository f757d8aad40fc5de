"""What an experimenter sees of a session while it runs, and the keys that pause, resume and end it."""

from __future__ import annotations

import contextlib
import select
import signal
import sys
import threading
import time
from collections import deque
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from neurogym_v.experiment import AgentResult, RunConfig, Watcher
from neurogym_v.generators import Generator, draw
from neurogym_v.rigs.gate import Gate
from neurogym_v.rigs.live import LiveNeuron
from neurogym_v.types import Feedback
from neurogym_v.validation import Natural

ROUNDS = 48
"""In the curve."""
PIXELS = 14
"""Of a side of an image on a terminal."""
IMAGES = 4
BARS = "▁▂▃▄▅▆▇█"


class LiveView:
    """A panel that is drawn anew twice a second on a terminal; elsewhere a line for each stage and each round.

    Keys: p pauses after the fixation of now and goes on, q ends the session. Ctrl-C ends it too; a second one at once.
    """

    def __init__(self, config: RunConfig, neuron: LiveNeuron, console: Console, gate: Gate) -> None:
        self.config, self.neuron, self.console, self.gate = config, neuron, console, gate
        neuron.rig.gate, neuron.warn = gate, self._warning
        self.watcher = Watcher(self._stage, self._round, self._agent_done, self._search)
        self._stage_name, self._natural, self._generator = "", None, None  # type: str, Natural | None, Generator | None
        self._means = deque[float](maxlen=ROUNDS)
        self._spent, self._began = 0, time.monotonic()
        self._pictures: RenderableType = Text("")
        self._live: Live | None = None
        self._over = threading.Event()
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupted)
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._panel, console=self.console, refresh_per_second=2, transient=False)
            self._live.start()
            self._keyboard = threading.Thread(target=self._keys, name="keys", daemon=True)
            self._keyboard.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._live:
            self._live.stop()
            self._keyboard.join(timeout=1)  # it gives the terminal back
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, _number: int, _frame: FrameType | None) -> None:
        if self.gate.ending:
            raise KeyboardInterrupt
        self.gate.end()

    def _warning(self, what: str) -> None:
        self.console.print(f"warning: {what}", soft_wrap=True, highlight=False, markup=False)

    def _stage(self, name: str) -> None:
        self._stage_name, self._spent = name, 0
        self._means.clear()
        if not self._live:
            self.console.print(name, highlight=False, markup=False)

    def _search(self, _agent: str, natural: Natural, generator: Generator) -> None:
        self._natural, self._generator = natural, generator

    def _round(self, _agent: str, feedback: Feedback) -> None:
        self._means.append(feedback.mean_rate)
        self._spent = feedback.spent
        if self._live and self._generator is not None:
            best = np.argsort(-np.nan_to_num(feedback.rates, nan=-np.inf))[:IMAGES]
            self._pictures = _images(draw(self._generator, feedback.latents[best]).cpu().numpy(), feedback.rates[best])
        if not self._live:
            said = f"  round {feedback.round}: mean {feedback.mean_rate:.1f} spikes/s, {feedback.spent} presentations"
            self.console.print(said + (f", {self._lost()} lost" if self._lost() else ""), highlight=False, markup=False)

    def _agent_done(self, result: AgentResult) -> None:
        self.console.print(
            f"{result.agent}: {result.final.value:.0f} spikes/s, relative activation {result.relative_activation.value:.2f}",
            highlight=False,
            markup=False,
        )

    def _lost(self) -> int:
        return self.neuron.tally.total() - self.neuron.tally[""]

    def _panel(self) -> Group:
        """What is seen now."""
        tally, shown = self.neuron.tally, self.neuron.tally.total()
        rows = Table.grid(padding=(0, 2))
        state = "ending after this fixation" if self.gate.ending else "PAUSED" if self.gate.paused else "running"
        rows.add_row("session", f"{state}   [dim]p: pause or go on   q: end[/dim]")
        rows.add_row("stage", Text(self._stage_name))
        budget = self.config.budget
        if self._stage_name in self.config.agents:
            rows.add_row("budget", ProgressBar(total=budget, completed=self._spent, width=30))
            rows.add_row("", f"{self._spent} of {budget} presentations{self._left(budget - self._spent, shown)}")
        rows.add_row("mean rate of rounds", Text(f"{_bars(self._means)} {self._means[-1]:.1f} spikes/s" if self._means else ""))
        if self._natural:
            natural = self._natural
            said = f"best natural {natural.best.value:.1f}, spontaneous {natural.spontaneous.value:.1f} spikes/s"
            rows.add_row("references", said)
        if self.neuron.between_s:
            rows.add_row("between rounds", f"{np.median(self.neuron.between_s):.2f} s until the next images are ready")
        rows.add_row("shown", f"{shown}, of which {self._lost()} lost")
        for why, count in tally.most_common():
            if why:
                rows.add_row("", Text(f"{count} x {why}"))
        return Group(rows, self._pictures)

    def _left(self, presentations: int, shown: int) -> str:
        if not shown:
            return ""
        minutes = presentations * (time.monotonic() - self._began) / shown / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left"

    def _keys(self) -> None:
        """Hear keys without waiting for Enter, where there is a keyboard."""
        with contextlib.suppress(Exception):  # no terminal, or one without these modes: Ctrl-C still works
            import termios
            import tty

            keyboard = sys.stdin.fileno()
            before = termios.tcgetattr(keyboard)
            try:
                tty.setcbreak(keyboard)
                while not self._over.is_set():
                    if select.select([sys.stdin], [], [], 0.1)[0]:
                        self.pressed(sys.stdin.read(1))
            finally:
                termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

    def pressed(self, key: str) -> None:
        """What a key does."""
        if key == "p":
            (self.gate.resume if self.gate.paused else self.gate.pause)()
        elif key == "q":
            self.gate.end()


def _bars(values: deque[float]) -> str:
    """A curve of eight heights, from 0 to the highest; lost rounds are gaps."""
    top = max((v for v in values if np.isfinite(v)), default=0.0)
    if top <= 0:
        return ""
    return "".join(BARS[int(np.clip(7 * v / top, 0, 7))] if np.isfinite(v) else " " for v in values)


def _images(images: Any, rates: Any) -> RenderableType:
    """(n, 3, s, s) uint8 images beside each other, two pixels a character."""
    step = max(1, images.shape[-1] // PIXELS)
    small = images[:, :, ::step, ::step][:, :, :PIXELS, :PIXELS]
    text = Text()
    for rate in rates:
        text.append(f"{rate:<{small.shape[-1] + 2}.0f}")
    for row in range(0, small.shape[2] - 1, 2):
        text.append("\n")
        for image in small:
            for upper, lower in zip(image[:, row].T, image[:, row + 1].T, strict=True):
                text.append("▀", style=f"rgb({','.join(map(str, upper))}) on rgb({','.join(map(str, lower))})")
            text.append("  ")
    return text
