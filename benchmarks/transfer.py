"""Do images made with a model of a neuron drive the neuron? `python -m neurogym_v.benchmarks.transfer`.

The model looks through another network than the neuron is made of. Prints, for each such pair and agent, what Bashivan, Kar &
DiCarlo (2019) reported: the share of sites that are driven beyond their best natural image (68 %), by how much (39 %), the
share of sites driven alone better than by any natural image (76 %); and how well the model predicts crops of photographs of
which it saw none, and its own images. A site that is done is not done again: start the same command again after an
interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neurogym_v.env import NeuronEnv
from neurogym_v.experiment import RunConfig, agent_seed, is_sanity_check
from neurogym_v.files import write_json
from neurogym_v.generators import draw
from neurogym_v.loop import run
from neurogym_v.neurons.simulated import SimulatedNeuron
from neurogym_v.noise import simulate
from neurogym_v.projection import Projected
from neurogym_v.references import load_references, photograph
from neurogym_v.registry import agent_class, load_neuron, make_agent
from neurogym_v.stats import bootstrap_means, median, pearson
from neurogym_v.synthesis.driven import ModelDriven
from neurogym_v.synthesis.surrogate import TUNED_ON
from neurogym_v.types import Images, NeuroGymError, Rates, References
from neurogym_v.validation import FINAL, FINALISTS, REPEATS, SCREENING

PAIRS = ("v4=vgg16", "v4:vgg16=lite2", "v4=lite0")
"""NEURON=NETWORK: of the last, both are the same network, which is no more than a sanity check."""
AGENTS = ("bashivan2019", "inception_loop", "cma_es")
PUBLISHED = {"stretch": "68% of sites, median gain 39%", "one_hot": "76% of targets"}
HELD_OUT = 4
"""One photograph in so many is kept from all agents, with all of its crops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One site, with every agent."""

    neuron: str
    network: str
    objective: str
    site: int
    agents: tuple[str, ...] = AGENTS
    budget: int = 3000
    generator: str = "natural64"
    noise: str = "poisson"
    seed: int = 0

    @property
    def entropy(self) -> int:
        """Of the sessions: the same for all agents, another for every site."""
        return RunConfig(neuron=self.neuron, site=self.site, seed=self.seed).entropy

    def begin(self) -> NeuronEnv:
        """A fresh session."""
        env = NeuronEnv(
            neuron=simulated(self.neuron, self.noise),
            generator=self.generator,
            site=self.site,
            objective=self.objective,
            budget=self.budget,
            device="cpu",
        )
        env.begin(self.entropy)
        return env


@cache
def simulated(neuron: str, noise: str) -> Any:
    """Shared by the sessions of a process."""
    return simulate(neuron, noise=noise, device="cpu")


@cache
def photographs(size: int) -> References:
    """The same tensor for all sites, so that a process computes the rates of photographs once for all of them."""
    return load_references(size=size)


def run_task(task: Task, folder: Path) -> dict[str, Any]:
    """What natural images reach and what each agent does, from its file if it is done."""
    name = f"{task.neuron.replace(':', '-')}={task.network}-{task.objective}-{task.site}-{task.seed}.json"
    settings = json.loads(json.dumps(asdict(task) | {"entropy": task.entropy}))
    if (folder / name).exists():
        done: dict[str, Any] = json.loads((folder / name).read_text())
        if done["task"] != settings:
            raise NeuroGymError(f"{folder}: expected runs with these settings, found others; choose another --out")
        return done
    env = task.begin()
    every = photographs(env.generator.image_size)
    natural = measure(env, every)
    rows = [search(task, agent, every, natural) for agent in task.agents]
    result = {"task": settings, "natural": float(np.nanmean(natural)), "agents": rows}
    write_json(folder / name, result)
    return result


def measure(env: NeuronEnv, references: References) -> Rates:
    """(FINAL / 2,) scores of the best natural image, which was chosen on others than these."""

    def repeats(shown: References, count: int) -> Rates:
        order = np.tile(np.arange(len(shown.names)), count)
        return env.score(env.live.show_images(shown.images, shown.names, order, kind="natural")).reshape(count, -1)

    finalists = np.argsort(-np.nanmean(repeats(references, SCREENING), axis=0))[:FINALISTS]
    final = repeats(some(references, finalists), FINAL)
    best = int(np.nanmean(final[: FINAL // 2], axis=0).argmax())
    return final[FINAL // 2 :, best]


def some(references: References, which: NDArray[np.intp]) -> References:
    return References(references.images[which.copy()], tuple(references.names[i] for i in which))


def search(task: Task, name: str, every: References, natural: Rates) -> dict[str, Any]:
    """One agent: its search, fresh repeats of what it recommends, and how well its model predicts."""
    held = unseen(every)
    known = some(every, np.flatnonzero(~held))
    env = task.begin()
    if issubclass(agent_class(name)[0], ModelDriven):
        name += f",network={task.network}"
    cls, params = agent_class(name)
    if count := cls.references(task.budget, **params):
        env.show_references(known.spread(count))
    agent = make_agent(name, env.spec_for_agents, batch_size=env.batch_size, seed=agent_seed(task.entropy))
    for _ in run(agent, env):
        pass
    best = env.live.clip(agent.recommend(1))
    _, rates = env.live.show_latents(best, kind="validation", order=np.zeros(REPEATS, dtype=np.intp))
    rng = np.random.default_rng([task.entropy, 2])
    final = env.score(rates)
    gains = bootstrap_means(final, rng) / bootstrap_means(natural, rng) - 1
    row: dict[str, Any] = {
        "agent": name,
        "sanity_check": is_sanity_check(agent, env.neuron),
        "score": float(np.nanmean(final)),
        "gain": float(np.nanmean(final) / np.nanmean(natural) - 1),
        "low": float(np.quantile(gains, 0.025)),
        "high": float(np.quantile(gains, 0.975)),
        "agent_s": agent.thinking_s,
    }
    model = agent.agent if isinstance(agent, Projected) else agent
    if isinstance(model, ModelDriven) and model.synthesised:
        latents, predicted = (np.concatenate(parts) for parts in zip(*model.synthesised, strict=True))
        row["r_natural"] = r(model.surrogate.predict_images(every.images[held]), expected(env, every.images[held]))
        row["r_synthesised"] = r(predicted, expected(env, draw(env.generator, latents)))
        row["predicted"] = float(model.predict(best)[0])
    return row


def unseen(references: References) -> NDArray[np.bool_]:
    """(n,) whether an image is of a photograph that no agent is shown: crops overlap, so one would tell of the next."""
    sources = [photograph(name) for name in references.names]
    return np.isin(sources, sorted(set(sources))[::HELD_OUT])


def tuned_on(neuron: str) -> tuple[int, ...]:
    """Sites on which layers and defaults of the model-driven agents were chosen."""
    return TUNED_ON if neuron.partition(":")[0] == "v4" else ()


def choose_sites(neuron: str, count: int) -> list[int]:
    """`count` sites spread evenly over those of a neuron that nothing was chosen on."""
    untouched = [site for site in range(load_neuron(neuron).sites) if site not in tuned_on(neuron)]
    if not 1 <= count <= len(untouched):
        raise NeuroGymError(f"--count: expected 1 to {len(untouched)} sites of {neuron}, got {count}")
    return [untouched[int(place)] for place in np.linspace(0, len(untouched) - 1, count).round()]


def warn(tasks: list[Task]) -> None:
    """Say, in one line, which sites are no fair test."""
    if touched := sorted({task.site for task in tasks if task.site in tuned_on(task.neuron)}):
        which = ", ".join(map(str, touched))
        print(f"warning: layers and defaults of the agents were chosen on sites {which} of v4: no fair test", file=sys.stderr)


def expected(env: NeuronEnv, images: Images) -> Rates:
    """(n,) noise-free scores, for judging a model."""
    return env.score(cast(SimulatedNeuron, env.neuron).expected_rate(images))


def r(a: Rates, b: Rates) -> float:
    return float(pearson(a[:, None], b[:, None])[0])


def table(results: list[dict[str, Any]], objective: str) -> Table:
    """A row a pair and agent, over sites."""
    title = f"{objective}: images beside the best natural one, on fresh repeats (published: {PUBLISHED[objective]})"
    found = Table(title=title, box=None)
    headings = ("neuron", "model", "agent", "above natural", "95% interval above", "median gain [95% interval]")
    for heading in (*headings, "r natural", "r synthesised"):
        found.add_column(heading, justify="left" if heading in headings[:3] else "right")
    rows = [(result["task"], row) for result in results for row in result["agents"] if result["task"]["objective"] == objective]
    for key in dict.fromkeys((task["neuron"], task["network"], row["agent"]) for task, row in rows):
        of_sites = [row for task, row in rows if (task["neuron"], task["network"], row["agent"]) == key]
        gains = np.array([row["gain"] for row in of_sites])
        gain = median(gains, np.random.default_rng(0))
        sure = sum(row["low"] > 0 for row in of_sites)
        models = [[row.get(name, np.nan) for row in of_sites] for name in ("r_natural", "r_synthesised")]
        found.add_row(
            key[0],
            f"{key[1]} (sanity check)" if of_sites[0]["sanity_check"] else key[1] if ",network=" in key[2] else "none",
            key[2].partition(",network=")[0],
            f"{(gains > 0).sum()}/{len(gains)} = {(gains > 0).mean():.0%}",
            f"{sure}/{len(gains)} = {sure / len(gains):.0%}",
            f"{gain.value:+.0%} [{gain.low:+.0%}, {gain.high:+.0%}]",
            *("" if np.isnan(values).all() else f"{np.nanmedian(values):.2f}" for values in models),
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m neurogym_v.benchmarks.transfer", description=__doc__)
    parser.add_argument("--pair", action="append", dest="pairs", metavar="NEURON=NETWORK", help=f"repeatable {[*PAIRS]}")
    parser.add_argument("--agent", action="append", dest="agents", help=f"repeatable {[*AGENTS]}")
    parser.add_argument("--objective", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    parser.add_argument("--sites", type=int, nargs="*", help="which sites (default: --count of them, those not tuned on)")
    parser.add_argument("--count", type=int, default=12, help="how many sites, if not named [12]")
    parser.add_argument("--budget", type=int, default=Task.__dataclass_fields__["budget"].default, help="presentations [3000]")
    parser.add_argument("--generator", default="natural64")
    parser.add_argument("--noise", default="poisson")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="sites at a time [one a core]")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"), help="a JSON for each site [runs/transfer]")
    chosen = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 140)
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        tasks = [
            Task(neuron=neuron, network=network, objective=objective, site=site, agents=tuple(chosen.agents or AGENTS),
                 budget=chosen.budget, generator=chosen.generator, noise=chosen.noise, seed=chosen.seed)
            for objective in chosen.objective
            for neuron, network in map(parse, chosen.pairs or PAIRS)
            for site in chosen.sites or choose_sites(neuron, chosen.count)
        ]  # fmt: skip
        warn(tasks)
        tasks[0].begin()
        results = run_all(tasks, chosen.out, jobs=chosen.jobs, console=console)
    except NeuroGymError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    for objective in chosen.objective:
        console.print(table(results, objective))
    write_json(chosen.out / "table.json", results)


def parse(pair: str) -> tuple[str, str]:
    """`v4:vgg16=lite2` -> the neuron and the network of the model."""
    neuron, equals, network = pair.partition("=")
    if not (neuron and equals and network):
        raise NeuroGymError(f"--pair: expected NEURON=NETWORK, got {pair!r}")
    return neuron, network


def run_all(tasks: list[Task], folder: Path, *, jobs: int, console: Console) -> list[dict[str, Any]]:
    """All sites, `jobs` at a time, each process with its share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    spawn = get_context("spawn")  # a forked process inherits the threads of torch in an unknown state
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        running = [pool.submit(run_task, task, folder) for task in tasks]
        for done in track(as_completed(running), "sites", total=len(tasks), console=console):
            if error := done.exception():
                pool.shutdown(wait=False, cancel_futures=True)
                raise error
        return [future.result() for future in running]


if __name__ == "__main__":
    main()
