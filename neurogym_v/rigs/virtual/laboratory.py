"""A laboratory that shows and counts by itself, whole: a simulated neuron at the other side of a folder hand-off."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.rigs import RigError
from neurogym_v.rigs.virtual.config import VirtualConfig, toml
from neurogym_v.rigs.virtual.folder import FolderRig
from neurogym_v.rigs.virtual.truth import Truth

CYCLE_S = 0.2
"""From one image to the next, seconds of the rig's time."""
PATIENCE_S = 10.0
"""That a session must have at least for the answer to a block."""
LARGEST = 1000
"""Images in a block that are answered within the time that the rig file gives."""


class VirtualLaboratory:
    """Runs in a thread from `open` to `close`; a *message* of its config is the answer to a block.

    Raises:
        NeuroGymError: a config that it cannot have.
    """

    def __init__(self, neuron: SimulatedNeuron, config: VirtualConfig) -> None:
        self.config = config
        self.sites, self.channels = config.recorded(neuron)
        self._neuron, self._rng = neuron.begin(np.random.default_rng([config.seed, 8])), np.random.default_rng([config.seed, 7])
        self._stop = threading.Event()
        self._truth = Truth(None)
        self._other = FolderRig(
            config.folder,
            self.channels,
            self._respond,
            fault=config.fault,
            at=config.after,
            every=config.every,
            told=self._misdeed,
        )

    def open(self) -> None:
        """Look for images from now on.

        Raises:
            RigError: the folder cannot be made.
        """
        try:
            self.config.folder.mkdir(parents=True, exist_ok=True)
            self._truth = Truth(self.config.log)
        except OSError as error:
            raise RigError(f"folder {error.filename}: expected it to be writable, got: {error.strerror}") from None
        self._other.open()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it is closed or fails, or this long.

        Raises:
            Exception: whatever stopped it.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._stop.wait(0.1) and (until is None or time.monotonic() < until):
            if self._other.failure:
                raise self._other.failure

    def close(self) -> None:
        self._stop.set()
        self._other.close()
        self._truth.close()

    @property
    def rig_file(self) -> str:
        """TOML: what `live` must be given to be connected to it."""
        timeout_s = PATIENCE_S + LARGEST * CYCLE_S / self.config.pace
        lines = ["[folder]", f"path = {toml(str(self.config.folder.resolve()))}", f"channels = {toml(list(self.channels))}"]
        return "\n".join([*lines, f"timeout_s = {timeout_s:g}"]) + "\n"

    def _respond(self, images: NDArray[np.uint8], numbers: Sequence[int]) -> NDArray[np.float64]:
        pictures, order = torch.from_numpy(images.copy()), np.arange(len(images))
        rates = self._neuron.present(pictures, order, self._rng)[:, self.sites]
        self._stop.wait(len(numbers) * CYCLE_S / self.config.pace)
        for number, row in zip(numbers, rates, strict=True):
            broken = bool(np.isnan(row).any())
            self._truth.write(number=number, rates=None if broken else row.tolist(), broken=broken)
        return np.where(np.isnan(rates).any(axis=1, keepdims=True), np.nan, rates)

    def _misdeed(self, fault: str, block: int) -> None:
        self._truth.write(fault=fault, block=block, at=time.time())
