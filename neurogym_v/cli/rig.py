"""`neurogym-v rig serve | check | display | keys`: a rig to rehearse with, and a look at the real one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from neurogym_v.files import write_whole
from neurogym_v.noise import simulate
from neurogym_v.registry import SOURCES
from neurogym_v.rigs.build import build, display
from neurogym_v.rigs.config import read_rig
from neurogym_v.rigs.displays.server import DisplayServer
from neurogym_v.rigs.event_rig import EventRig
from neurogym_v.rigs.folder import Folder
from neurogym_v.rigs.virtual.config import FOLDER, HANDOFF, VirtualConfig
from neurogym_v.rigs.virtual.mischief import ANSWERS, FAULTS
from neurogym_v.rigs.window import Window
from neurogym_v.types import NeuroGymError

RIG_FILE = "rig.toml"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "rig",
        help="rehearse with a virtual rig, check a real one, run its display",
        description="The parts of a live neuron. With `rig serve` in one terminal and `neurogym-v live rig.toml` in another, a "
        "session can be rehearsed at a desk; docs/live.md goes from there to a real rig.",
    )
    parts = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(parts)
    checked = parts.add_parser(
        "check",
        help="connect to every part of a rig, and say what it delivers",
        description="Connect to presenter and acquisition, compare their clocks by flashes of the photodiode patch, listen to "
        "the channels for [policy] listen_s seconds, and print what each part delivers. No image is shown.",
    )
    checked.add_argument("rig", type=Path, metavar="RIG.TOML")
    checked.set_defaults(command=_check)
    screen = parts.add_parser(
        "display",
        help="run the display: on the machine with the screen",
        description="Show images on this machine's screen for a session that runs here or elsewhere, as [display] of the rig "
        "file says. Beyond this machine only with keys (neurogym-v rig keys).",
    )
    screen.add_argument("rig", type=Path, metavar="RIG.TOML")
    screen.add_argument("--address", default="tcp://127.0.0.1:5580", help="where to listen [%(default)s]")
    screen.add_argument("--secret-key", default="", metavar="FILE", help="of this display, for other machines to reach it")
    screen.add_argument("--client-keys", default="", metavar="FOLDER", help="public keys of the sessions that may connect")
    screen.set_defaults(command=_display)
    keys = parts.add_parser("keys", help="make the keys with which display and session know each other across machines",
                            description="Make a pair of keys for the display and one for the session, and say which file goes "
                            "where. Without keys a display is reached from its own machine only.")  # fmt: skip
    keys.add_argument("folder", type=Path, metavar="FOLDER", help="a new one, or one without keys")
    keys.set_defaults(command=_keys)


def _add_serve(parts: Any) -> None:
    serve = parts.add_parser(
        "serve",
        help="be a rig: a simulated neuron behind a real recording system's wire format",
        description="Show what a session sends to a simulated neuron, and answer over a real transport with spikes in time, "
        "photodiode edges and broken fixations. Writes the rig file that a session needs; with --log, what it ought to find.",
        epilog="example: neurogym-v rig serve --transport open_ephys --neuron v4 --sites 5 17 --noise session --fault drop",
    )
    serve.add_argument("--transport", choices=[*sorted(SOURCES), FOLDER], default="intan", help="whose wire format to "
                       "speak, or files in a folder [%(default)s]")  # fmt: skip
    serve.add_argument("--neuron", default="v4", help="name or weights file [%(default)s]")
    serve.add_argument(
        "--sites", type=int, nargs="+", default=(), metavar="N", help="which of the neuron's sites are recorded [all]"
    )
    serve.add_argument("--noise", default="poisson", metavar="EFFECT[:NUMBER]+...", help="what the session does to the "
                       "rates; what `lost` loses are broken fixations [%(default)s]")  # fmt: skip
    serve.add_argument("--window-ms", type=float, nargs=2, default=(70.0, 170.0), metavar=("START", "END"), help="after "
                       "the onset, in which the neuron's rates are meant [70 170]")  # fmt: skip
    serve.add_argument("--pace", type=float, default=1.0, help="seconds of the rig's time in a second [%(default)g]")
    serve.add_argument("--fault", choices=tuple(dict.fromkeys((*FAULTS, *ANSWERS))), default="", help="let something go "
                       f"wrong; with a folder: {', '.join(ANSWERS)} [nothing]")  # fmt: skip
    serve.add_argument("--every", type=int, help="messages, or blocks of a folder, from one misdeed to the next [100, or 4]")
    serve.add_argument("--after", type=int, help="messages, or blocks, before the first misdeed [50, or 2]")
    serve.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    serve.add_argument("--display-port", type=int, default=0, help="[a free one]")
    serve.add_argument("--folder", type=Path, default=HANDOFF, help="where images and answers are exchanged, with "
                       "--transport folder [%(default)s]")  # fmt: skip
    serve.add_argument("--rig-file", type=Path, default=Path(RIG_FILE), metavar="FILE", help="written for sessions to "
                       "connect with [%(default)s]")  # fmt: skip
    serve.add_argument("--log", type=Path, metavar="FILE", help="one line of JSON a presentation: what a reader ought to find")
    serve.set_defaults(command=_serve)


def _serve(chosen: argparse.Namespace) -> int:
    from neurogym_v.rigs.virtual.laboratory import VirtualLaboratory
    from neurogym_v.rigs.virtual.rig import VirtualRig

    if chosen.pace <= 0:
        raise NeuroGymError(f"pace: expected more than 0, got {chosen.pace:g}")
    (start_ms, end_ms), in_folder = chosen.window_ms, chosen.transport == FOLDER
    config = VirtualConfig(
        transport=chosen.transport,
        sites=tuple(chosen.sites),
        window=Window(response_s=(start_ms / 1000, end_ms / 1000)),
        pace=chosen.pace,
        fault=chosen.fault,
        every=(4 if in_folder else 100) if chosen.every is None else chosen.every,
        after=(2 if in_folder else 50) if chosen.after is None else chosen.after,
        seed=chosen.seed,
        display_port=chosen.display_port,
        folder=chosen.folder,
        log=chosen.log,
    )
    made = VirtualLaboratory if in_folder else VirtualRig
    rig, console = made(simulate(chosen.neuron, noise=chosen.noise), config), Console()
    try:
        rig.open()
        write_whole(chosen.rig_file, lambda file: file.write(rig.rig_file.encode()))
        console.print(
            f"a virtual rig: {chosen.neuron} behind {chosen.transport}, {len(rig.channels)} channels\n"
            f"rig file: {chosen.rig_file}\n"
            f"try: neurogym-v rig check {chosen.rig_file}, then: neurogym-v live {chosen.rig_file}\n"
            "Ctrl-C ends it",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        rig.wait()
    except KeyboardInterrupt:
        pass
    finally:
        rig.close()
    return 0


def _check(chosen: argparse.Namespace) -> int:
    from neurogym_v.rigs.check import check

    config = read_rig(chosen.rig)
    rig, console = build(config), Console()
    try:
        if isinstance(rig, Folder):
            rig.look()
            console.print(f"folder {rig.path}: it is there and can be written to; what answers is seen with the first block")
            return 0
        assert isinstance(rig, EventRig)
        began = time.monotonic()
        rig.open()
        opened_s = time.monotonic() - began
        found = check(rig, config)
    finally:
        rig.close()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
    table.add_row("connected and aligned", f"in {opened_s:.1f} s")
    table.add_row("display", f"{found.refresh_hz:.2f} Hz")
    table.add_row("clocks", f"acquisition - display = {found.offset_s:.4f} s")
    table.add_row("onsets", f"measured within {1000 * found.jitter_s:.2f} ms (s.d.) of where the display says")
    table.add_row("delivery", f"an onset arrives {1000 * found.lag_s:.0f} ms after the display's word of it, at most")
    for name, rate in zip(rig.channels, found.spikes_hz, strict=True):
        table.add_row(f"channel {name}", f"{rate:.1f} spikes/s" if np.isfinite(rate) else "not listened to")
    console.print(table)
    for warning in found.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _display(chosen: argparse.Namespace) -> int:
    server = DisplayServer(
        display(read_rig(chosen.rig)),
        address=chosen.address,
        secret_key=chosen.secret_key,
        client_keys=chosen.client_keys,
    )
    try:
        server.open()
        Console().print(f"display at {server.address}; Ctrl-C ends it", soft_wrap=True, markup=False, highlight=False)
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    return 0


def _keys(chosen: argparse.Namespace) -> int:
    from neurogym_v.rigs.displays.keys import make_keys

    files = make_keys(chosen.folder)
    said = (
        ("stays on the display's machine, for --secret-key", files.server_secret),
        ("beside it, for --client-keys", files.clients),
        ("goes to the session's machine, for server_key in [presenter]", files.server_public),
        ("goes there too, for client_key, and is for nobody else's eyes", files.client_secret),
    )
    for use, path in said:
        Console().print(f"{path}: {use}", soft_wrap=True, markup=False, highlight=False)
    return 0
