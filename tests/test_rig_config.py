"""Rig files: what cannot work is refused before an image is shown, in words that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurogym_v.cli import main
from neurogym_v.env import NeuronEnv
from neurogym_v.experiment import RunConfig
from neurogym_v.noise import neuron_by_name
from neurogym_v.rigs.build import build, display, load
from neurogym_v.rigs.config import read_rig
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.folder import Folder
from neurogym_v.types import NeuroGymError
from tests.conftest import Cosines

GOOD = """
[acquisition]
kind = "open_ephys"
channels = ["E1", "E2#1"]

[presenter]
kind = "remote"

[timing]
on_ms = 100
off_ms = 100
per_fixation = 5

[window]
response_ms = [60, 160]
baseline_ms = [-40, 10]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rig.toml"
    path.write_text(text)
    return path


def test_a_rig_file_becomes_a_rig(tmp_path) -> None:
    config = read_rig(written(tmp_path, GOOD))
    rig = build(config)
    assert isinstance(rig, EventRig) and rig.channels == ("E1", "E2#1") and rig.per_fixation == 5
    assert rig.window.response_s == (0.06, 0.16) and rig.window.baseline_s == (-0.04, 0.01)
    assert rig.closing_s == 0 and not config.warnings


def test_a_stream_that_falls_silent_gets_a_closing_flash(tmp_path) -> None:
    rig = build(read_rig(written(tmp_path, GOOD.replace('"open_ephys"', '"event_broadcaster"\nbuffer_ms = 30'))))
    assert isinstance(rig, EventRig) and rig.closing_s > 0.16 + 0.03


def test_a_folder_is_a_rig_too(tmp_path) -> None:
    rig = build(read_rig(written(tmp_path, f'[folder]\npath = "{tmp_path}"\nchannels = ["a"]\n')))
    assert isinstance(rig, Folder) and tuple(rig.channels) == ("a",)


def test_a_live_neuron_goes_by_the_name_of_its_file(tmp_path) -> None:
    path = written(tmp_path, GOOD)
    neuron = neuron_by_name(f"live:{path}")
    assert neuron.sites == 2 and load(path).again == 2
    env = NeuronEnv(neuron=f"live:{path}", generator=Cosines(), site=1)
    assert env.neuron.sites == 2
    assert RunConfig(neuron=f"live:{path}", noise="session").noise == "none"
    with pytest.raises(NeuroGymError, match="expected size and position of images where its display is set up"):
        neuron_by_name(f"live:{path}", image_deg=3.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[timing]", "[timings]"), "unknown section 'timings': did you mean 'timing'?"),
        (("on_ms", "on_s"), "unknown key of [timing] 'on_s': did you mean 'on_ms'?"),
        (("on_ms = 100", "on_ms = 0.1"), "[timing] on_ms: expected 4 to 60000 milliseconds, got 0.1 (seconds?)"),
        (("[60, 160]", "[0.06, 0.16]"), "[window] response_ms: expected milliseconds, got [0.06, 0.16] (seconds?)"),
        (("[60, 160]", "[160, 60]"), "response_ms: expected [start, end], got [160, 60]"),
        (("[60, 160]", "[60, 300]"), "or those of two images overlap, got 240 ms"),
        (("[60, 160]", "60"), "response_ms: expected [start, end] in milliseconds, got 60"),
        (("per_fixation = 5", "per_fixation = 2.5"), "per_fixation: expected a whole number, got 2.5"),
        (("per_fixation = 5", 'per_fixation = "5"'), "per_fixation: expected a whole number, got '5'"),
        (('["E1", "E2#1"]', '["E1", "E1"]'), "channels: expected a list of names, each once, got ['E1', 'E1']"),
        (('["E1", "E2#1"]', "[]"), "channels: expected a list of names, each once, got []"),
        (('"open_ephys"', '"open_ephy"'), "unknown acquisition 'open_ephy': did you mean 'open_ephys'?"),
        (('"open_ephys"', '"open_ephys"\nadress = "x"'), "unknown parameter of [acquisition] open_ephys 'adress'"),
        (('"remote"', '"remote"\non_ms = 50'), "[presenter]: expected on_ms in [timing], found it here"),
        (('[presenter]\nkind = "remote"', ""), "found no [presenter]"),
        (("[timing]", "[policy]\nagain = -1\n[timing]"), "[policy] again: expected 0 or more, got -1"),
        (("off_ms = 100", "off_ms = -100"), "[timing] off_ms: expected 0, or 4 to 60000 milliseconds, got -100"),
        (
            ("off_ms = 100", "inter_trial_ms = 0.8"),
            "inter_trial_ms: expected 0, or 4 to 600000 milliseconds, got 0.8 (seconds?)",
        ),
        (("on_ms = 100", "on_ms = nan"), "[timing] on_ms: expected a number, got nan"),
        (("off_ms = 100", "refresh_hz = 16.67"), "[timing] refresh_hz: expected 20 to 500, got 16.67"),
        (("per_fixation = 5", "per_fixation = 5000"), "[timing] per_fixation: expected 1 to 1000, got 5000"),
        (("[60, 160]", "[-70, 30]"), "[window] response_ms: expected [start, end] within 0 to 5000 ms of the onset, got [-70"),
        (("[-40, 10]", "[-4000, 0]"), "[window] baseline_ms: expected [start, end] within -1000 to 5000 ms of the onset"),
        (("response_ms", "tolerance_ms = 0.008\nresponse_ms"), "[window] tolerance_ms: expected 0.5 or more"),
        (('["E1", "E2#1"]', '"E1"'), "channels: expected a list of names, each once, got 'E1'"),
        (('["E1", "E2#1"]', "3"), "channels: expected a list of names, each once, got 3"),
        (('channels = ["E1", "E2#1"]', ""), "[acquisition] open_ephys: expected a value for channels, found none"),
        (('"remote"', '"remote"\nresponse_ms = 50'), "[presenter]: expected response_ms in [window], found it here"),
        (
            ("[timing]", "[display]\nkind = 'pygame'\n[timing]"),
            "pygame: expected a value for distance_cm, found none",
        ),
        (
            ("[timing]", "[display]\nkind = 'pygame'\nposition_deg = 2.0\n[timing]"),
            "[float, float] as position_deg, got 2.0",
        ),
        (("[timing]", "[subject]\nspecies = 3\n[timing]"), "[subject] species: expected text, got 3; put it in quotes"),
        (("[timing]", "[subject]\nname = 'M'\n[timing]"), "unknown key of [subject] 'name'"),
        (("[timing]", "[display]\nkind = 'pygam'\n[timing]"), "did you mean 'pygame'?"),
        (("[timing]", "[window"), "expected TOML, got"),
        (("[timing]", "[folder]\npath = '.'\nchannels = ['a']\n[timing]"), "or [folder], got acquisition, presenter, folder"),
        (("response_ms", "tolerance_ms = 120\nresponse_ms"), "and less than half of on_ms + off_ms = 200 ms"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change: tuple[str, str], said: str) -> None:
    path = written(tmp_path, GOOD.replace(*change))
    with pytest.raises(NeuroGymError) as error:
        read_rig(path)
    assert said in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_one_line_of_the_command(tmp_path, capsys) -> None:
    for command in (["live"], ["rig", "check"], ["rig", "display"]):
        assert main([*command, str(tmp_path / "none.toml")]) == 2
        assert "expected a TOML file, got: No such file" in capsys.readouterr().err


def test_a_window_that_reaches_into_the_next_response_is_a_warning(tmp_path) -> None:
    text = GOOD.replace("off_ms = 100", "off_ms = 0").replace("[60, 160]", "[70, 170]").replace("baseline_ms = [-40, 10]", "")
    config = read_rig(written(tmp_path, text))
    assert len(config.warnings) == 1 and "when the next image has been on for 70 ms" in config.warnings[0]


@pytest.mark.parametrize(
    ("baseline_ms", "said"),
    [
        ([-25, 25], None),
        ([-50, 0], "meets the response window of an image before, from -140 to -40 ms"),
        ([-190, -145], None),
        ([-300, -280], "from -340 to -240 ms"),
        ([100, 200], "baseline_ms overlaps response_ms"),
    ],
)
def test_a_baseline_within_a_response_is_a_warning(tmp_path, baseline_ms: list[int], said: str | None) -> None:
    config = read_rig(written(tmp_path, GOOD.replace("[-40, 10]", str(baseline_ms))))
    assert [said in warning for warning in config.warnings] == ([True] if said else [])


def test_what_is_measured_is_more_than_windows(tmp_path) -> None:
    """A run that is resumed has the same images and the same counts."""
    before = load(written(tmp_path, GOOD)).measures
    for change in (
        ("on_ms = 100", "on_ms = 50"),
        ("per_fixation = 5", "per_fixation = 4"),
        ('"open_ephys"', '"open_ephys"\nline = 2'),
    ):
        assert load(written(tmp_path, GOOD.replace(*change))).measures != before, change
    for change in (
        ("[-40, 10]", "[-40.0, 10.0]"),
        ("off_ms = 100", ""),
        ('"open_ephys"', '"open_ephys"\nline = 1'),
        ('"remote"', '"remote"\naddress = "tcp://127.0.0.1:6000"'),
        ('"open_ephys"', '"open_ephys"\naddress = "tcp://127.0.0.1:6001"\nsettle_ms = 20'),
        ("[timing]", "[policy]\nagain = 3\n[timing]"),
    ):
        assert load(written(tmp_path, GOOD.replace(*change))).measures == before, change


def test_files_are_found_from_where_the_rig_file_is(tmp_path, monkeypatch) -> None:
    (tmp_path / "handoff").mkdir()
    path = written(tmp_path, '[folder]\npath = "handoff"\nchannels = ["a"]\n')
    monkeypatch.chdir("/")
    rig = build(read_rig(path))
    rig.open()
    rig.close()


def test_a_folder_has_no_times(tmp_path) -> None:
    path = written(tmp_path, f'[folder]\npath = "{tmp_path}"\nchannels = ["a"]\n[window]\nresponse_ms = [50, 150]\n')
    with pytest.raises(NeuroGymError, match=r"\[window\]: expected none beside \[folder\]"):
        read_rig(path)


OWN = """
from neurogym_v.rigs.acquisitions.open_ephys import OpenEphys
from neurogym_v.rigs.displays.headless import Headless


class Positional(OpenEphys):
    def __init__(self, channels, port=9000):
        super().__init__(channels=channels)
        self.port = port


class Tracked(Headless):
    def fixating(self):
        return False


class Asks:
    def __init__(self, *, on_ms, off_ms, fixation_ms, inter_trial_ms, response_ms, patience_s, screen):
        self.screen, self.refresh_hz = screen, 60.0


NONE = 3


class Channels(OpenEphys):
    def __init__(self, *, channels=("A",)):
        super().__init__(channels=channels)


class Half:
    def __init__(self, *, channels):
        self.channels = channels


class Failing:
    def __init__(self, *, channels):
        raise OSError("no such amplifier")
"""


def test_parts_of_ones_own(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_rig_parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    rig = build(read_rig(written(tmp_path, GOOD.replace('"open_ephys"', '"own_rig_parts:Positional"\nport = 9001'))))
    assert rig.acquisition.port == 9001
    screen = display(read_rig(written(tmp_path, GOOD + '\n[display]\nkind = "own_rig_parts:Tracked"\n')))
    assert not screen.fixating()
    elsewhere = read_rig(written(tmp_path, GOOD + '\n[display]\nkind = "of_the_other_machine:Tracked"\n'))
    assert isinstance(build(elsewhere), EventRig), "the display's class need only be where the screen is"
    asks = build(read_rig(written(tmp_path, GOOD.replace('"remote"', '"own_rig_parts:Asks"\nscreen = 2'))))
    assert asks.presenter.screen == 2
    for name, said in (
        ("Half", "expected quiet_s, open, arm, events, close too, found none"),
        ("Failing", "got OSError: no such amplifier"),
        ("NONE", "[acquisition] own_rig_parts:NONE: expected a class, found 3"),
    ):
        path = written(tmp_path, GOOD.replace('"open_ephys"', f'"own_rig_parts:{name}"'))
        with pytest.raises(NeuroGymError) as error:
            build(read_rig(path))
        assert said in str(error.value) and str(path) in str(error.value)
    path = written(tmp_path, GOOD.replace('"open_ephys"\nchannels = ["E1", "E2#1"]', '"own_rig_parts:Channels"'))
    with pytest.raises(NeuroGymError, match="channels: expected a list of names"):
        read_rig(path)


def test_a_display_is_made_of_its_section(tmp_path) -> None:
    path = written(tmp_path, GOOD)
    with pytest.raises(NeuroGymError, match=r"expected a section \[display\], found none"):
        display(read_rig(path))
    screen = display(read_rig(written(tmp_path, GOOD + '\n[display]\nkind = "headless"\nrefresh_hz = 120.0\n')))
    assert screen.refresh_hz == 120


def test_a_channel_of_the_rig_is_chosen_by_its_name(tmp_path, capsys) -> None:
    path = written(tmp_path, GOOD)
    assert main(["live", str(path), "--channel", "E9"]) == 2
    assert "channel: expected one of E1, E2#1, got 'E9'" in capsys.readouterr().err
