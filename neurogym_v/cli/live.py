"""`neurogym-v live`: evolve images for a neuron behind a rig."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neurogym_v.cli.run import add_minutes, add_track, gate_of, start
from neurogym_v.experiment import RunConfig
from neurogym_v.registry import LIVE
from neurogym_v.rigs.config import RigConfig, read_rig
from neurogym_v.types import NeuroGymError

AGENTS = ("cma_es",)
"""What searches if none is named: an animal's hour is short."""


def add(commands: Any) -> None:
    live = commands.add_parser(
        "live",
        help="evolve images for a live neuron, behind the rig of a rig file",
        description="Show images to a neuron through a rig, and let agents search for those that drive it, against natural "
        "images that are measured first. What is about to be shown is on disk before it is, and each response as soon as it is "
        "counted; after a crash of either side, `neurogym-v resume` goes on. Keys: p pauses and goes on, q ends the session "
        "after the fixation of now.",
        epilog="rehearse with `neurogym-v rig serve`, check with `neurogym-v rig check rig.toml`; docs/live.md has the rest",
    )
    default = RunConfig(neuron=f"{LIVE}rig.toml", agents=AGENTS)
    live.add_argument("rig", type=Path, metavar="RIG.TOML", help="what the rig consists of")
    live.add_argument("--agent", action="append", dest="agents", metavar="NAME[:PRESET][,KEY=VALUE...]", help="repeat for "
                      f"several, one after the other [{' '.join(AGENTS)}]")  # fmt: skip
    live.add_argument("--channel", metavar="NAME", help="which of the rig's channels is to be driven [the first]")
    live.add_argument("--generator", default=default.generator, metavar="NAME[:VARIANT]", help="[%(default)s]")
    live.add_argument("--budget", type=int, default=1000, help="presentations of each agent's search; about 550 more "
                      "measure natural images before and validate afterwards [%(default)s]")  # fmt: skip
    add_minutes(live)
    live.add_argument("--batch-size", type=int, default=default.batch_size, help="images a round [%(default)s]")
    live.add_argument("--seed", type=int, default=default.seed, help="of agents [%(default)s]")
    live.add_argument("--references", metavar="FOLDER", help="natural images to compare with, of which 40 are shown "
                      "[crops of photographs inside installed packages]")  # fmt: skip
    live.add_argument("--normaliser", type=int, default=default.normaliser, metavar="IMAGES", help="natural images that come "
                      "back all through the session, to take slow changes of gain out of the rates [%(default)s]")  # fmt: skip
    live.add_argument("--recommend", type=int, default=default.recommend, metavar="K", help="images that each agent recommends "
                      "[%(default)s]")  # fmt: skip
    live.add_argument("--out", type=Path, help="folder of the run [a new one under runs]")
    add_track(live, "none")
    live.set_defaults(command=_live)


def _live(chosen: argparse.Namespace) -> int:
    rig = read_rig(chosen.rig)
    config = RunConfig(
        agents=tuple(chosen.agents or AGENTS),
        neuron=f"{LIVE}{chosen.rig.resolve()}",
        site=_site(rig, chosen.channel),
        generator=chosen.generator,
        budget=chosen.budget,
        batch_size=chosen.batch_size,
        seed=chosen.seed,
        references=chosen.references,
        normaliser=chosen.normaliser,
        recommend=chosen.recommend,
    )
    return start(config, chosen.out, chosen.track, gate_of(chosen.minutes))


def _site(rig: RigConfig, channel: str | None) -> int:
    names = (rig.folder or rig.acquisition)["channels"]
    if channel is None:
        return 0
    if channel not in names:
        raise NeuroGymError(f"channel: expected one of {', '.join(names)}, got {channel!r}")
    return int(names.index(channel))
