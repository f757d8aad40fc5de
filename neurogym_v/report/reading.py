"""From a run folder to its record: the journal first, then the numbers of summary.json, which a run that was stopped lacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurogym_v.experiment import RunConfig
from neurogym_v.journal import Block, Journal
from neurogym_v.report import logged, recount
from neurogym_v.report.record import NAN, UNKNOWN, AgentRecord, Curve, NaturalRecord, Record, Round
from neurogym_v.stats import Estimate
from neurogym_v.types import Latents, NeuroGymError, Rates

SUMMARY = "summary.json"
Stored = Mapping[str, Any]


def read(folder: Path, journal: Journal) -> Record:
    """The record of a run.

    Raises:
        NeuroGymError: a journal that is not a run's, or a summary without its numbers.
    """
    config = RunConfig.from_json(journal.config)
    summary, missing = _summary(folder / SUMMARY, journal.config)
    blocks = {name: journal.blocks(name) for name in ("natural", *config.agents)}
    sites = min((block.rates.shape[1] for session in blocks.values() for block in session), default=config.site + 1)
    if not 0 <= config.site < sites:
        raise NeuroGymError(f"journal {journal.path}: expected rates of site {config.site}, found {sites} sites")
    measured = None if summary else recount.natural(blocks["natural"], config)
    if not summary and config.objective != "stretch":
        missing.append(f"Scores of the objective {config.objective} are counted when the run is finished.")
    if not summary and config.normaliser:
        missing.append("Rates are as they were recorded: the slow gain is taken out when the run is finished.")
    try:
        stored = {str(agent["agent"]): agent for agent in summary.get("agents", ())}
        agents = [_agent(name, blocks[name], config, stored.get(name), measured) for name in config.agents]
        natural = _natural(summary["natural"]) if summary else measured
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise NeuroGymError(
            f"{folder / SUMMARY}: expected the numbers of a run, found others ({error!r}); without the file, the page is made "
            "from the journal alone"
        ) from None
    rig, unread = logged.read(folder, blocks, config, natural.best_image if natural else None)
    missing += unread
    return Record(
        folder=folder,
        config=config,
        natural=natural,
        agents=tuple(agents),
        presentations=sum(_spent(session) for session in blocks.values()),
        wall_s=_number(summary.get("wall_s")),
        versions={str(name): str(version) for name, version in (summary.get("versions") or {}).items()},
        missing=tuple(missing),
        rig=rig,
    )


def _summary(path: Path, config: Stored) -> tuple[Stored, list[str]]:
    """summary.json, or nothing and why."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = found["config"] == config and {"natural", "agents"} <= found.keys()
    except FileNotFoundError:
        return {}, [f"The run is not finished: there is no {SUMMARY}. Numbers are counted from the journal alone."]
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        return {}, [f"{SUMMARY} is not that of this journal and was left aside. Numbers are counted from the journal alone."]
    return found, []


def _natural(stored: Stored) -> NaturalRecord:
    return NaturalRecord(
        best_image=str(stored["best_image"]),
        best=_estimate(stored["best"]),
        spontaneous=_estimate(stored["spontaneous"]),
        screened=np.array(stored["screened"], dtype=np.float64),
        expected_best=_number(stored.get("expected_best")),
        expected_spontaneous=_number(stored.get("expected_spontaneous")),
    )


def _agent(
    name: str, blocks: Sequence[Block], config: RunConfig, stored: Stored | None, natural: NaturalRecord | None
) -> AgentRecord:
    until = max((i + 1 for i, block in enumerate(blocks) if block.kind in recount.SEARCH), default=0)
    searched = _spent(blocks[:until])
    lost = [np.isnan(block.rates[:, config.site]).sum() for block in blocks[:until] if block.kind in recount.SEARCH]
    told: Sequence[Stored] = stored["rounds"] if stored else ()
    known: dict[str, Any] = {
        "name": name,
        "rounds": tuple(_rounds(blocks, config, told)),
        "searched": searched,
        "validated": _spent(blocks) - searched,
        "lost": int(sum(lost)),
    }
    if stored is None:
        return AgentRecord(**known, **recount.final(blocks, config, natural))
    recommended = np.array(stored["recommended"], dtype=np.float32)
    estimates = {key: _estimate(stored[key]) for key in ("final", "first_round", "relative_activation")}
    numbers = {key: _number(stored.get(key)) for key in ("expected_final", "expected_relative_activation", "agent_s")}
    milestones: Sequence[Stored] = stored.get("milestones") or ()
    rest = {
        "lost": int(stored["lost_presentations"]),
        "recommended": recommended.reshape(-1, recommended.shape[-1]),
        "sanity_check": bool(stored["sanity_check"]),
        "site_lost": bool(stored["site_lost"]),
        "finished": True,
        "diagnostics": {str(key): _number(value) for key, value in stored["diagnostics"].items()},
        "curves": _curves(told),
        "contrast_matched": _estimate(milestones[-1]["contrast_matched"]) if milestones else UNKNOWN,
        "milestones": tuple((int(one["spent"]), _estimate(one["score"])) for one in milestones),
        "incumbents": np.array(stored.get("incumbents", []), dtype=np.float64).reshape(-1, 2),
    }
    return AgentRecord(**(known | estimates | numbers | rest))


def _rounds(blocks: Sequence[Block], config: RunConfig, told: Sequence[Stored]) -> list[Round]:
    """The search, round by round; a round of more images than a normaliser lets pass is several blocks of the journal."""
    ends = {int(one["spent"]): one for one in told}
    rounds: list[Round] = []
    pieces: list[Block] = []
    rows = 0
    for block in blocks:
        rows += len(block.rates)
        spent = rows + _again(block)
        if block.kind != "search":
            continue
        pieces.append(block)
        whole = not config.normaliser or sum(len(piece.rates) for piece in pieces) >= config.batch_size
        if spent in ends if ends else whole:
            rates = np.concatenate([piece.rates[:, config.site] for piece in pieces])
            latents = np.concatenate([piece.latents for piece in pieces if piece.latents is not None])
            rounds.append(_round(len(rounds) + 1, spent, latents, rates, ends.get(spent), config))
            pieces = []
    return rounds


def _spent(blocks: Sequence[Block]) -> int:
    """Presentations of the first blocks of a session, normaliser images and what was shown again included."""
    return sum(len(block.rates) for block in blocks) + (_again(blocks[-1]) if blocks else 0)


def _again(block: Block) -> int:
    """Presentations that a live neuron had lost, and was shown again, from the session's first to this block."""
    return int(block.state.get("repeated", 0))


def _round(number: int, spent: int, latents: Latents, rates: Rates, told: Stored | None, config: RunConfig) -> Round:
    """With what the summary says of it, rates are as the agent heard them: without the slow gain, and none of a lost site."""
    valid = rates[np.isfinite(rates)]
    mean, best = (float(valid.mean()), float(valid.max())) if len(valid) else (NAN, NAN)
    if told:
        heard = _number(told["mean"])
        if config.objective == "stretch":
            rates = rates * (heard / mean if mean > 0 else 1.0) if np.isfinite(heard) else np.full_like(rates, NAN)
        mean, best = heard, _number(told["best"])
    elif config.objective != "stretch":  # rates are no scores
        mean = best = NAN
    return Round(number=number, spent=spent, latents=latents, rates=rates, mean=mean, best=best)


def _curves(told: Sequence[Stored]) -> dict[str, Curve]:
    """Each of the agent's own numbers by presentations, where the rounds keep them."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in told:
        for name, value in (one.get("diagnostics") or {}).items():
            found.setdefault(str(name), []).append((float(one["spent"]), _number(value)))
    return {name: np.array(points) for name, points in found.items()}


def _estimate(stored: Stored) -> Estimate:
    value, low, high = (_number(stored[key]) for key in ("value", "low", "high"))
    return Estimate(value, low, np.inf if np.isnan(high) and np.isfinite(value) else high)  # JSON knows no infinity


def _number(value: Any) -> float:
    """Null stands for a number that no one knows."""
    return float(value) if isinstance(value, int | float) else NAN
