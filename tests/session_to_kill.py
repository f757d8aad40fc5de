"""A session of one agent, slow enough to be killed within any round; `test_kill_agents` runs this in a process of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from neurogym_v.env import NeuronEnv
from neurogym_v.journal import Journal
from neurogym_v.loop import run
from neurogym_v.neurons.gabor import Gabor
from neurogym_v.noise import with_noise
from neurogym_v.references import load_references
from neurogym_v.registry import agent_class, make_agent
from tests.conftest import Cosines  # (only a script: nothing else puts it on the path)

BUDGET, BATCH = 96, 8


class Slow(Gabor):
    """A cell that takes its time for a round."""

    def __init__(self, seconds: float) -> None:
        super().__init__(size=32)
        self.seconds = seconds

    def expected_rate(self, images):
        time.sleep(self.seconds)
        return super().expected_rate(images)


def session(name: str, journal: Path, seconds: float) -> list[list[float]]:
    """Run, or resume, the whole session; gives what is recommended at the end."""
    torch.set_num_threads(1)
    with Journal(journal, config={}) as kept:
        env = NeuronEnv(
            neuron=with_noise(Slow(seconds), "modulated:0.15+lost:0.3"), generator=Cosines(), budget=BUDGET, batch_size=BATCH,
            journal=kept, session=name,
        )  # fmt: skip
        env.begin(5)
        cls, params = agent_class(name)
        if count := cls.references(BUDGET, **params):
            env.show_references(load_references(count=count, size=32))
        agent = make_agent(name, env.spec_for_agents, batch_size=BATCH, seed=3)
        with journal.with_suffix(".rounds").open("w") as told:  # a journal has one reader
            for _ in run(agent, env):
                told.write(".")
                told.flush()
    return agent.recommend(2).tolist()


if __name__ == "to be killed":
    session(*ARGUMENTS)  # type: ignore[name-defined]  # noqa: F821 (given by whoever runs this file)
