"""A virtual rig, whole: a screen that a remote presenter can reach, a neuron before it, and a recording system beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.registry import SOURCES, resolve
from neurogym_v.rigs.displays.server import DisplayServer
from neurogym_v.rigs.virtual import Source
from neurogym_v.rigs.virtual.config import VirtualConfig, toml
from neurogym_v.rigs.virtual.mischief import WORLDS, Mischief
from neurogym_v.rigs.virtual.screen import VirtualScreen
from neurogym_v.rigs.virtual.world import World

TICK_S = 0.004
"""From one stretch of the stream to the next."""
HELD_UP_S = 0.1
"""The same, on a machine that cannot keep up with the pace: then time waits for the stream."""
DRIFT = 5e-5
"""Of the clocks with the fault `drift`: as of two bad quartzes."""
EXTRA_EDGES = 2.0
"""A second, with the fault `extra_edges`."""


class VirtualRig:
    """Runs in threads from `open` to `close`.

    Raises:
        NeuroGymError: a config that no rig can have.
        RigError: a port that is taken.
    """

    def __init__(self, neuron: SimulatedNeuron, config: VirtualConfig, **ports: Any) -> None:
        self.config = config
        sites, self.channels = config.recorded(neuron)
        self.world = World(
            neuron,
            self.channels,
            sites=sites,
            window=config.window,
            sample_rate=config.sample_rate,
            pace=config.pace,
            ahead_s=HELD_UP_S,
            drift=DRIFT if config.fault == "drift" else 0.0,
            unplugged_after=config.after if config.fault == "no_edges" else None,
            extra_edges=EXTRA_EDGES if config.fault == "extra_edges" else 0.0,
            seed=config.seed,
            log=config.log,
        )
        mischief = Mischief(
            "" if config.fault in WORLDS else config.fault,
            every=config.every,
            after=config.after,
            seed=config.seed,
            told=self.world.misdeed,
        )
        mischief.begun, self.world.began = False, partial(setattr, mischief, "begun", True)
        names = tuple(f"B-{site:03d}" for site in sites) if config.fault == "channels" else self.channels
        source: Callable[..., Source] = resolve("transport", config.transport, SOURCES)
        self.source = source(names, sample_rate=config.sample_rate, mischief=mischief, **ports)
        self.display = DisplayServer(VirtualScreen(self.world), address=f"tcp://127.0.0.1:{config.display_port}")
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        self.source.open()
        self.display.open()
        for run in (self._pump, self._present):
            self._threads.append(threading.Thread(target=self._guarded, args=(run,), name=run.__name__, daemon=True))
            self._threads[-1].start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it is closed or fails, or this long.

        Raises:
            Exception: whatever stopped one of its parts.
        """
        self._stop.wait(timeout_s)
        if self._error:
            raise self._error

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2)
        self.display.close()
        self.source.close()
        self.world.close()

    @property
    def rig_file(self) -> str:
        """TOML: what `live` must be given to be connected to it."""
        config, window = self.config, self.config.window
        lines = ["[acquisition]", f'kind = "{config.transport}"', f"channels = {toml(list(self.channels))}"]
        lines += [f"{key} = {toml(value)}" for key, value in self.source.settings.items()]
        lines += ["", "[presenter]", 'kind = "remote"', f'address = "{self.display.address}"']
        lines += ["", "[policy]", f"listen_s = {min(60.0, 3.0 / config.pace):g}"]
        lines += ["", "[window]", f"response_ms = {toml([round(1000 * s, 3) for s in window.response_s])}"]
        return "\n".join(lines) + "\n"

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:
            self._error = error
            self._stop.set()

    def _pump(self) -> None:
        try:
            while not self._stop.wait(TICK_S):
                self.source.write(self.world.stretch())
        finally:
            self.world.clock.free()  # for who still waits for a frame

    def _present(self) -> None:
        self.display.serve(self._stop)
