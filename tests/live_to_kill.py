"""A rig and a session on it, each for a process of its own; `test_live_kill` starts and kills them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from neurogym_v.files import write_whole
from neurogym_v.journal import Journal
from neurogym_v.neurons.gabor import Gabor
from neurogym_v.noise import with_noise
from neurogym_v.registry import make_agent
from neurogym_v.rigs import RigError
from neurogym_v.rigs.build import load
from neurogym_v.rigs.virtual.config import VirtualConfig
from neurogym_v.rigs.virtual.rig import VirtualRig
from neurogym_v.session import Session
from neurogym_v.types import Feedback, LoopSpec
from tests.conftest import Cosines

BUDGET, BATCH, PACE = 600, 20, 40.0


def serve(folder: Path, transport: str, seed: int) -> None:
    """A virtual rig, until it is killed. Its log is that of all rigs before it, too."""
    torch.set_num_threads(1)
    neuron = with_noise(Gabor(size=32), "modulated:0.15+lost:0.1")
    rig = VirtualRig(neuron, VirtualConfig(transport=transport, sites=(0, 1), pace=PACE, seed=seed, log=folder / "rig.jsonl"))
    rig.open()
    write_whole(folder / "rig.toml", lambda file: file.write(rig.rig_file.encode()))
    rig.wait()


def search(folder: Path) -> None:
    """A session on the rig whose file is in the folder; one that was killed goes on."""
    torch.set_num_threads(1)
    generator, neuron = Cosines(), load(folder / "rig.toml")
    neuron.keep(folder)
    try:
        with Journal(folder / "journal.sqlite", config={}) as journal:
            session = Session(generator, neuron, seed=1, journal=journal, name="cma_es")
            spec = LoopSpec(latent_dim=generator.latent_dim, bound=generator.bound, budget=BUDGET)
            agent = make_agent("cma_es", spec, batch_size=BATCH, seed=1)
            for number in range(BUDGET // BATCH):
                latents, rates = session.show_latents(agent.ask(), kind="search")
                spent = session.shown.total()
                agent.tell(Feedback(round=number, latents=latents, rates=rates[:, 0], spent=spent, left=max(0, BUDGET - spent)))
        (folder / "done").write_text(str(np.float64(spent)))
    except RigError as error:
        (folder / "stopped").write_text(str(error))
    finally:
        neuron.close()


if __name__ == "rig":
    serve(*ARGUMENTS)  # type: ignore[name-defined]  # noqa: F821 (given by whoever runs this file)
elif __name__ == "session":
    search(*ARGUMENTS)  # type: ignore[name-defined]  # noqa: F821
