"""What the page of a run says in words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import numpy as np

from neurogym_v.experiment import RunConfig
from neurogym_v.registry import LIVE
from neurogym_v.report.record import AgentRecord, Record, RigRecord, Showing
from neurogym_v.stats import Estimate

NONE = "–"
COLOURS = 6
FINALS = (
    "The image that each agent recommends at the end, beside the natural image that drives the site most. Rates are means of "
    "fresh presentations with their 95% interval. A click enlarges an image."
)
NO_FINALS = "The natural image that drives the site most. No agent has come to its end."
FILMS = (
    "Of each round, the image of highest response, above its rate in spikes/s. That is one noisy presentation, and the highest "
    "of a round is lucky. The last frame is what the agent recommends, with its mean over fresh repeats."
)
TABLE = (
    "Relative activation of 1 is the best natural image, 0 the grey screen. Final and first round are means of fresh "
    "presentations, {unit}. A click on a heading sorts."
)
RATES = (
    "What the agents heard, one presentation an image, and at the end what their recommended images give in fresh repeats, "
    "with 95% intervals."
)
INCUMBENTS = (
    "The noise-free score of the image that each agent would have recommended after each round, which no agent hears of, and "
    "what fresh repeats say of those that were validated."
)
AMONG = (
    "First, means of fresh repeats with 95% intervals. Then the mean of each of {count} natural images over the few repeats of "
    "the screening: the highest of these are partly luck."
)
SITE = "What is known of the neuron that was searched."
SPIKES = (
    "What each agent recommends, in the rounds of its validation, and the best natural image and the grey screen that were "
    "shown in turn with it: spikes of channel {channel}. A row is a presentation, the first on top. Above, the mean rate of "
    "those that were answered, with its standard error, smoothed by a Gaussian of {smoothing:g} ms s.d.; all on one scale."
)
RIG = (
    "From the rig's log of every presentation. One that is lost is shown again, as often as the rig file says, and every "
    "showing is paid for; what stays without a response counts for nothing."
)
REPEAT = "The same command with the same versions gives the same run."
STARTED = "What the run was begun with. No two sessions of a live neuron are the same."
FOOT = "Made by neurogym-v report from the folder of the run. The page needs no network and no other file."


def number(value: float, decimals: int = 1) -> str:
    """NaN is a dash."""
    if np.isnan(value):
        return NONE
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")


def whole(value: int) -> str:
    return f"{value:,}"


def estimate(value: Estimate, decimals: int = 2) -> str:
    return f"{number(value.value, decimals)} [{number(value.low, decimals)}, {number(value.high, decimals)}]"


def listed(names: list[str]) -> str:
    """a, b and c"""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def colour(place: int) -> str:
    """Of the agent in this place, in the order in which they ran."""
    return f"c{place % COLOURS + 1}"


def scored(agent: AgentRecord) -> bool:
    """Whether there is a score of what it recommends."""
    return bool(np.isfinite(agent.final.value)) and not agent.site_lost


def named(agent: AgentRecord) -> str:
    return f"{agent.name} (sanity check)" if agent.sanity_check else agent.name


def live(config: RunConfig) -> bool:
    return config.neuron.startswith(LIVE)


def neuron_name(config: RunConfig) -> str:
    """A weights file by its name."""
    if live(config):
        return "a live neuron"
    return Path(config.neuron).name if config.neuron.endswith(".safetensors") else config.neuron


def title(record: Record) -> str:
    config = record.config
    who = f"{len(config.agents)} agents" if len(config.agents) > 1 else config.agents[0]
    where = f"channel {record.rig.channel}" if record.rig else f"site {config.site}"
    return f"Images evolved for {neuron_name(config)}{',' if record.rig else ''} {where} by {who}"


def lead(record: Record) -> str:
    config = record.config
    several = len(config.agents) > 1
    goal = "drives the site most" if config.objective == "stretch" else f"does best by the objective {config.objective}"
    start = "" if config.start == "prior" else " Searches begin at the latent of the best natural image."
    noise = "" if live(config) else "without noise; " if config.noise == "none" else f"noise: {config.noise}; "
    search = "each search" if several else "searches"
    return (
        f"{listed(list(config.agents))} {search}, with {whole(config.budget)} presentations in rounds of {config.batch_size}, "
        f"for the image that {goal}. The generator {Path(config.generator).name} draws the images "
        f"({noise}seed {config.seed}).{start}"
    )


def headline(record: Record) -> list[tuple[str, str, str]]:
    """The numbers to remember: those of the agent with the highest final score, sanity checks left out."""
    tiles = []
    fair = [agent for agent in record.agents if scored(agent) and not agent.sanity_check]
    if fair:
        best = max(fair, key=lambda agent: agent.final.value)
        found = best.relative_activation
        interval = f"[{number(found.low, 2)}, {number(found.high, 2)}]"
        tiles = [
            (number(found.value, 2), interval, f"relative activation of {best.name}; 1 is the best natural image"),
            (number(best.final.value, record.decimals), record.unit, f"at what {best.name} recommends"),
        ]
    if record.natural is not None:
        count = whole(len(record.natural.screened))
        tiles += [
            (number(record.natural.best.value, record.decimals), record.unit, f"at the best of {count} natural images"),
            (number(record.natural.spontaneous.value, record.decimals), record.unit, "spontaneous, at a grey screen"),
        ]
    return [*tiles, (whole(record.presentations), "", "presentations in all, natural images and validation included")]


def unfinished(record: Record) -> list[str]:
    """A sentence for each part of the run that is not there."""
    said = []
    if record.natural is None and not any(agent.searched for agent in record.agents):
        said.append("Natural images were still being shown: there is nothing yet to compare with.")
    for agent in record.agents:
        if agent.site_lost:
            said.append(f"{agent.name}: the site was lost before the validation was over, so there is no score.")
        elif not agent.finished and not scored(agent):
            said.append(f"{agent.name}: {state(agent, record.config)}.")
    if any(not agent.finished for agent in record.agents):
        folder = shlex.quote(str(record.folder))
        said.append(f"neurogym-v resume {folder} goes on with the run; nothing that was shown is shown again.")
    return said


def state(agent: AgentRecord, config: RunConfig) -> str:
    """How far an agent came, where that is not the end."""
    if agent.site_lost:
        return "site lost"
    if agent.finished or scored(agent):
        return ""
    if agent.validated:
        return "searched; its validation is not counted yet"
    return f"{whole(agent.searched)} of {whole(config.budget)} presentations searched" if agent.searched else "not started"


def remark(agent: AgentRecord, config: RunConfig) -> str:
    said = "sanity check: its model is made of the neuron's own kind of network" if agent.sanity_check else ""
    return "; ".join(part for part in (said, state(agent, config)) if part)


def scores(record: Record) -> str:
    """How the scores are made."""
    plan = record.config.plan
    shown = len(record.natural.screened) if record.natural else plan.finalists
    count = whole(shown) if record.natural else "the"
    few = min(plan.finalists, shown)
    return (
        "No score rests on the responses that the search saw: the image that an agent recommends is shown again in "
        f"{plan.repeats} rounds after the search, in turn with the best natural image and a grey screen, and relative "
        f"activation comes from these rounds, with a 95% bootstrap over them. Each of {count} natural images is shown "
        f"{plan.screening} times and the {few} most promising {plan.final} times more; the best is chosen on one half of these "
        "repeats and its own rate is estimated on the other, so that its luck does not count."
    )


def spikes(rig: RigRecord, smoothing_ms: float) -> str:
    said = SPIKES.format(channel=rig.channel, smoothing=smoothing_ms)
    return said if rig.window is None else f"{said} Shaded: the response window, {_span(rig.window.response_s)}."


def showings(shown: Sequence[Showing]) -> str:
    """What they gave, and how many were answered."""
    rates = [one.rate for one in shown if not one.lost]
    if not rates:
        return f"none of {whole(len(shown))} presentations was answered"
    answered = whole(len(rates)) if len(rates) == len(shown) else f"{whole(len(rates))} of {whole(len(shown))}"
    return f"{number(float(np.mean(rates)))} spikes/s, mean of {answered} presentations"


def rig(rig: RigRecord) -> dict[str, str]:
    """How the rig did."""
    lost, again = rig.lost, rig.shown - rig.asked
    said = {
        "channels": listed([f"{name} (driven)" if name == rig.channel else name for name in rig.channels]),
        "shown": f"{whole(rig.shown)} presentations, {whole(again)} of them again",
        "lost": f"{whole(lost)} of them, {number(100 * lost / max(1, rig.shown))}%",
        "without a response": f"{whole(rig.unanswered)} of {whole(rig.asked)} that were asked for",
        "first presentation": _when(rig.first),
        "last presentation": _when(rig.last),
    }
    if rig.window is not None:
        less = f", less the rate {_span(rig.window.baseline_s)}" if rig.window.baseline_s else ""
        said["response window"] = f"{_span(rig.window.response_s)} after the measured onset{less}"
    if rig.between_s:
        said["between blocks"] = (
            f"{number(float(np.median(rig.between_s)), 2)} s at the median until the next images were ready"
        )
    if rig.late:
        said["late frames"] = f"{whole(rig.late)} answered presentations came late or stood too long"
    if rig.offsets_s:
        said["clocks"] = _clocks(rig.offsets_s)
    if not rig.spikes:
        said["spikes"] = "none in the log: there are no rasters"
    return said


def _clocks(offsets_s: Sequence[float]) -> str:
    """How they compared."""
    first, last = (number(offset, 4) for offset in (offsets_s[0], offsets_s[-1]))
    if len(offsets_s) == 1:
        return f"compared once: acquisition less display {first} s"
    return f"compared {whole(len(offsets_s))} times: acquisition less display {first} s at first, {last} s at last"


def _span(window_s: tuple[float, float]) -> str:
    start, end = (f"{1000 * edge:g}".replace("-", "−") for edge in window_s)
    return f"{start} to {end} ms"


def _when(at: str) -> str:
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S} UTC" if at else NONE


def setup(record: Record) -> dict[str, str]:
    """The settings and the versions."""
    config = record.config
    shown = {
        "neuron": f"{config.neuron}, site {config.site}",
        "generator": config.generator,
        "noise": "the neuron's own" if live(config) else config.noise,
        "objective": config.objective,
        "searches begin at": "the generator's prior" if config.start == "prior" else "the best natural image",
        "budget": f"{whole(config.budget)} presentations an agent, {config.batch_size} a round",
        "seed": str(config.seed),
        "natural images": config.references or "crops of photographs inside installed packages",
        "normaliser images": str(config.normaliser) if config.normaliser else "none",
        "duration": f"{number(record.wall_s, 0)} s" if np.isfinite(record.wall_s) else "not known",
    }
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return shown | {"versions": versions or "not known before the run is finished"}


def command(config: RunConfig, channel: str = "CHANNEL") -> str:
    """What repeats the run: neuron, site, budget and seed, and whatever else is not the default; of a live neuron, what begins
    another one like it at a channel."""
    always = ["neuron", "site", "budget", "seed"]
    default, written, apart = RunConfig(), ["neurogym-v run"], ["agents"]
    if live(config):
        default = RunConfig(neuron=config.neuron)
        written = [f"neurogym-v live {shlex.quote(config.neuron.removeprefix(LIVE))} --channel {shlex.quote(channel)}"]
        apart += ["neuron", "site"]
    written += [f"--agent {shlex.quote(name)}" for name in config.agents]
    for field in fields(RunConfig):
        value = getattr(config, field.name)
        if field.name in apart or (value == getattr(default, field.name) and field.name not in always):
            continue
        values = value if isinstance(value, tuple) else (value,)
        written.append(f"--{field.name.replace('_', '-')} {' '.join(shlex.quote(str(v)) for v in values)}")
    return " ".join(written)
