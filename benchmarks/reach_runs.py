"""The runs of `neurogym_v.benchmarks.reach`: one search each, one file each, and only those that are missing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from neurogym_v import weights
from neurogym_v.benchmarks.progress import progress
from neurogym_v.benchmarks.targets import BEST_HZ, WINDOW_S, Target, Unit
from neurogym_v.env import NeuronEnv
from neurogym_v.files import write_whole
from neurogym_v.generators import Generator
from neurogym_v.loop import run
from neurogym_v.neurons.effects.poisson import Poisson
from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.registry import load_generator, make_agent
from neurogym_v.render import to_pil
from neurogym_v.types import Images, NeuroGymError

BATCH = 40
EVERY = 5
"""Rounds between two points of a trajectory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One run: all that it depends on, and nothing else."""

    generator: str
    target: Target
    gain: float
    noise: str
    seed: int
    agent: str
    budget: int
    photographs: str
    """Digest of those the target is scaled by."""
    device: str = "cpu"

    @property
    def label(self) -> str:
        return Path(self.generator).stem

    @property
    def entropy(self) -> int:
        """Seed of all randomness: the same for every generator, another one for every target."""
        return int.from_bytes(hashlib.sha256(f"{self.seed} {self.target.name}".encode()).digest()[:8], "little")

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same in all runs of a folder, or at least in those of one generator or unit."""
        return {
            "agent": self.agent,
            "budget": self.budget,
            "batch_size": BATCH,
            "photographs": self.photographs,
            f"generator {self.label}": generator_digest(self.generator, self.device),
            f"unit {self.target.name}": Unit(self.target, self.gain, device=self.device).digest,
        }

    def file(self, folder: Path) -> Path:
        return folder / self.label / self.noise / f"{self.target.name}-{self.seed}.json"


@cache
def generator_digest(name: str, device: str) -> str:
    """Of the weights of a generator, or of its name and size where there are none."""
    generator = load_generator(name, device=device)
    what = f"{type(generator).__module__}.{type(generator).__qualname__} {generator.latent_dim} {generator.bound}"
    state = generator.state_dict() if isinstance(generator, torch.nn.Module) else {}
    return hashlib.sha256(f"{what} {weights.digest(state)}".encode()).hexdigest()[:12]


def search(
    neuron: SimulatedNeuron, generator: Generator, *, agent: str, budget: int, noise: str, seed: int
) -> tuple[Images, list[tuple[int, float]], float]:
    """(3, s, s) the image recommended at the end, [(presentations, clean spikes/s of the image recommended then)], and
    the seconds the agent itself took."""
    shown = Poisson(neuron, window_s=WINDOW_S) if noise == "poisson" else neuron
    env = NeuronEnv(neuron=shown, generator=generator, budget=budget, batch_size=BATCH)
    searcher = make_agent(agent, env.spec_for_agents, batch_size=BATCH, seed=seed)
    session = env.begin(seed)

    def recommended() -> Images:
        return session.draw(session.clip(searcher.recommend(1)))

    trajectory = []
    for feedback in run(searcher, env):
        if feedback.round % EVERY == 0 or not feedback.left:
            trajectory.append((feedback.spent, float(neuron.expected_rate(recommended())[0, 0])))
    return recommended()[0], trajectory, searcher.thinking_s


def do(asked: Search, folder: Path) -> None:
    """Do a run and write it: the image first, so that a run whose JSON is there is there whole."""
    began = time.perf_counter()
    unit = Unit(asked.target, asked.gain, device=asked.device)
    generator = load_generator(asked.generator, device=asked.device)
    how: dict[str, Any] = {"agent": asked.agent, "budget": asked.budget, "noise": asked.noise, "seed": asked.entropy}
    image, trajectory, agent_s = search(unit, generator, **how)
    found = {
        "settings": asked.settings,
        "ratio": trajectory[-1][1] / BEST_HZ,
        "trajectory": [[spent, round(rate / BEST_HZ, 4)] for spent, rate in trajectory],
        "wall_s": round(time.perf_counter() - began, 2),
        "agent_s": round(agent_s, 2),
    }
    file, picture = asked.file(folder), io.BytesIO()
    to_pil(image).save(picture, "png")
    write_whole(file.with_suffix(".png"), lambda out: out.write(picture.getvalue()))
    write_whole(file, lambda out: out.write(json.dumps(found, indent=1).encode()))


def read(asked: Search, folder: Path) -> dict[str, Any] | None:
    """What a finished run found, or None.

    Raises:
        NeuroGymError: it was made with other settings, or is no such file.
    """
    file = asked.file(folder)
    if not file.is_file() or not file.with_suffix(".png").is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        theirs: dict[str, Any] = found["settings"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise NeuroGymError(f"{file}: expected a finished run, found something else; remove it") from None
    for key, mine in asked.settings.items():
        if theirs.get(key) != mine:
            raise NeuroGymError(
                f"{file}: expected a run with {key} {mine}, found {theirs.get(key, 'none')}; "
                "choose another --out, or the settings that were used"
            )
    return found


def do_all(asked: Sequence[Search], folder: Path, *, jobs: int, console: Console) -> None:
    """Do these runs, `jobs` at a time, each process with its share of the cores; networks stay loaded in a process."""
    with progress(console) as bar:
        task = bar.add_task("searches", total=len(asked))
        if jobs == 1:  # needs no second process
            for one in asked:
                do(one, folder)
                bar.advance(task)
            return
        threads = max(1, (os.cpu_count() or 1) // jobs)
        spawn = get_context("spawn")  # a forked process inherits the threads of torch in an unknown state
        pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=torch.set_num_threads, initargs=(threads,))
        try:
            for done in as_completed([pool.submit(do, one, folder) for one in asked]):
                done.result()
                bar.advance(task)
        finally:  # the first error, or Ctrl-C, does not wait for hours of runs
            pool.shutdown(cancel_futures=True)
