"""Runs to export: a live one behind a scripted rig, and a simulated one; small, and as they come from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from neurogym_v.cli import export, main
from neurogym_v.experiment import Experiment, RunConfig
from neurogym_v.journal import Journal
from neurogym_v.references import load_references
from neurogym_v.render import to_pil
from neurogym_v.rigs import RigError
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.live import LiveNeuron
from neurogym_v.rigs.log import LiveLog, Logged
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError
from neurogym_v.validation import Plan
from tests.scripted_rig import ScriptedAcquisition, ScriptedPresenter, Trial

AGENTS = ("random", "cma_es")
CHANNELS = ("A-003", "A-017", "A-019")
BASELINE_S, RESPONSE_S = (-0.05, 0.0), (0.07, 0.17)
RIG = """
[acquisition]
kind = "somewhere:Else"
channels = ["A-003", "A-017", "A-019"]
[presenter]
kind = "remote"
[timing]
on_ms = 120
off_ms = 80
[window]
response_ms = [70, 170]
baseline_ms = [-50, 0]
[subject]
subject_id = "M1"
species = "Macaca mulatta"
sex = "male"
age = "P7Y"
weight = "9.5 kg"
[electrode]
description = "Utah array, 96 channels"
location = "V4"
group = "array/1"
manufacturer = "Blackrock"
reference = "a screw"
filtering = ""
[session]
experimenter = "Weiss, Anna; Li, Bo"
institution = "An institute"
lab = "A lab"
keywords = "V4, closed loop"
notes = "The animal was awake."
"""


@dataclass
class Trials:
    """All that the screen showed, as it was."""

    every: list[Trial] = field(default_factory=list)
    fail_at: int = -1
    acquisition: ScriptedAcquisition | None = None

    def __call__(self, trial: Trial) -> None:
        trial.broken = trial.number % 17 == 5
        if trial.number % 41 == 7:
            trial.onsets = []
        self.every.append(trial)
        if trial.number == self.fail_at:
            self.acquisition.queue.append(RigError("acquisition: gone"))


def respond(image: int) -> list[tuple[float, int]]:
    """Spikes of two channels; those after 150 ms also stand just before the next image, where the baseline is counted."""
    some = [(0.0712 + 0.0041 * i, 0) for i in range(image)] + [(0.1003, 1)] * (image > 4)
    return [*some, (0.16, 0), (0.16, 1), (0.1603, 1), (0.185, 1)]


def carry_out(folder: Path, *, fail_at: int = -1, **changes: Any) -> Trials:
    """A run, or the rest of one, behind a scripted rig."""
    acquisition = ScriptedAcquisition(CHANNELS)
    trials = Trials(fail_at=fail_at, acquisition=acquisition)
    window = Window(response_s=RESPONSE_S, baseline_s=BASELINE_S)
    rig = EventRig(ScriptedPresenter(acquisition, respond, trials), acquisition, window=window, patience_s=0.1)
    neuron = LiveNeuron(rig, folder / "unused", rig_file=RIG)
    neuron.keep(folder)
    config = RunConfig(
        neuron="live:rig.toml", agents=AGENTS, generator="tests.conftest:Cosines", budget=30, batch_size=15, report_at=(15,),
        references=str(folder.parent / "photographs"), device="cpu", **changes,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neurogym_v.experiment.neuron_by_name", lambda *_, **__: neuron)
        experiment = Experiment(config)
    folder.mkdir(exist_ok=True)
    known = None if (folder / "journal.sqlite").is_file() else asdict(config)
    with Journal(folder / "journal.sqlite", config=known) as journal:
        try:
            experiment.run(journal)
        except RigError:
            assert fail_at >= 0
        finally:
            neuron.close()
    return trials


def laboratory(folder: Path) -> Path:
    """The folder with photographs in it, beside which runs are made."""
    (folder / "photographs").mkdir()
    for number, image in enumerate(load_references(count=4, size=32).images):
        to_pil(image).save(folder / "photographs" / f"{number}.png")
    return folder


def simulate(folder: Path) -> Path:
    """A simulated run."""
    small = ["--neuron", "gabor", "--site", "2", "--budget", "30", "--batch-size", "15", "--agent", "random", "--noise"]
    small += ["poisson+lost:0.1", "--generator", "tests.conftest:Cosines", "--references", str(folder.parent / "photographs")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neurogym_v.experiment.FULL", Plan(spontaneous=5, screening=1, finalists=2, final=4, repeats=2))
        assert main(["run", *small, "--out", str(folder)]) == 0
    return folder


@contextmanager
def short() -> Iterator[None]:
    """Meanwhile less is shown for the sake of scores in live runs."""
    plan = Plan(spontaneous=5, screening=1, finalists=2, final=4, repeats=2, references=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neurogym_v.experiment.SHORT", plan)
        yield


def command(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    export.add(parser.add_subparsers())
    chosen = parser.parse_args(["export", *map(str, arguments)])
    return int(chosen.command(chosen))


def exported(folder: Path, *options: str | Path, name: str = "x.nwb") -> Path:
    path = folder.parent / name
    assert command(folder, "--nwb", path, *options) == 0
    return path


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    import pynwb

    with pynwb.NWBHDF5IO(str(path), "r") as io:
        yield io.read()


def logged(folder: Path) -> list[Logged]:
    with closing(LiveLog(folder / "live.sqlite")) as log:
        return log.presentations()


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(NeuroGymError) as caught:
        command(*arguments)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400, line
    return line
