"""The loop: an agent proposes, the neuron answers, the agent learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from neurogym_v.agent import Agent
from neurogym_v.env import NeuronEnv
from neurogym_v.types import Feedback


def run(agent: Agent, env: NeuronEnv) -> Iterator[Feedback]:
    """Run `agent` on a session that was reset, until its budget is spent or its site is lost; yields each round."""
    number, ended = 0, False
    while not ended:
        _, _, terminated, truncated, info = env.step(agent.ask())
        feedback = Feedback(round=number, latents=info["latents"], rates=info["rates"], spent=info["spent"], left=info["left"])
        agent.tell(feedback)
        yield replace(feedback, diagnostics=agent.diagnostics())
        number, ended = number + 1, terminated or truncated
