"""Random and damaged packets through every parser of the live neuron: none may raise but its own error, hang, or hoard.

python -m neurogym_v.benchmarks.rigs_fuzz --packets 100000
"""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from neurogym_v.rigs import RigError
from neurogym_v.rigs.acquisitions.intan_stream import SpikeParser, WaveformParser
from neurogym_v.rigs.acquisitions.lsl_parser import Parser, onset_of
from neurogym_v.rigs.acquisitions.open_ephys_messages import event_broadcaster, zmq_interface
from neurogym_v.rigs.displays import messages as display
from neurogym_v.rigs.folder_files import read_answer, write_h5, write_mat

Packet: TypeAlias = list[bytes]
"""Parts of a message, or one piece of a stream."""
RANDOM, HOARD = 0.2, 1 << 16
"""Share of packets that are random altogether, and what a parser may keep of a stream, bytes."""
SLOW_S = 2.0
"""Longer for one packet is a hang."""
CHANNELS = ("A-000", "A-001", "A-002")
NAMES = ("block000_000_p000000.png", "block000_001_p000001.png")


def intan_spikes() -> tuple[Packet, Callable[[Packet], None]]:
    records = [struct.pack("<I5sIB", 0x3AE2710F, CHANNELS[i % 3].encode(), 90 * i, 1) for i in range(40)]
    return [b"".join(records)], lambda packet: _stream(SpikeParser(CHANNELS), packet[0])


def intan_waveforms() -> tuple[Packet, Callable[[Packet], None]]:
    block = np.zeros(4, np.dtype([("magic", "<u4"), ("frame", [("at", "<u4"), ("word", "<u2", (3,))], (128,))]))
    block["magic"], block["frame"]["at"] = 0x2EF07A08, np.arange(512).reshape(4, 128)
    return [block.tobytes()], lambda packet: _stream(WaveformParser(2), packet[0])


def open_ephys_data() -> tuple[Packet, Callable[[Packet], None]]:
    content = {
        "stream": "s",
        "channel_num": 0,
        "channel_name": "CH1",
        "num_samples": 5,
        "sample_num": 9,
        "sample_rate": 30000.0,
    }
    header = {"message_num": 7, "type": "data", "content": content, "data_size": 20, "timestamp": 1}
    return [b"DATA\0", json.dumps(header).encode(), bytes(20)], lambda packet: _call(zmq_interface, packet)


def open_ephys_events() -> tuple[Packet, Callable[[Packet], None]]:
    content = {"stream": "s", "source_node": 100, "type": 3, "sample_num": 1003}
    header = {"message_num": 8, "type": "event", "content": content, "data_size": 10, "timestamp": 1}
    return [b"EVENT\0", json.dumps(header).encode(), struct.pack("<BBQ", 2, 1, 5)], lambda packet: _call(zmq_interface, packet)


def broadcaster_spikes() -> tuple[Packet, Callable[[Packet], None]]:
    spike = {"event_type": "spike", "stream": "s", "source_node": 1, "electrode": "E1", "num_channels": 1,
             "sample_rate": 30000.0, "sample_number": 990, "sorted_id": 0, "amp1": -80.0}  # fmt: skip
    return [b"\1\0", json.dumps(spike).encode()], lambda packet: _call(event_broadcaster, packet)


def lsl_samples() -> tuple[Packet, Callable[[Packet], None]]:
    samples = np.column_stack([np.arange(20), np.arange(20) % 4 - 1, np.zeros(20)]).astype("<i4")
    stamps = np.linspace(5, 6, 20)

    def parse(packet: Packet) -> None:
        found = np.frombuffer(packet[0][: len(packet[0]) // 12 * 12], dtype="<i4").reshape(-1, 3)
        at = np.resize(np.frombuffer(packet[1][: len(packet[1]) // 8 * 8], dtype="<f8"), len(found))
        Parser(CHANNELS, CHANNELS).read(found, at)

    return [samples.tobytes(), stamps.tobytes()], parse


def lsl_markers() -> tuple[Packet, Callable[[Packet], None]]:
    return [b'{"event": "onset", "number": 17}'], lambda packet: _call(onset_of, packet[0])


def display_requests() -> tuple[Packet, Callable[[Packet], None]]:
    show = display.Show(
        numbers=(3, 4),
        names=("0" * 32, "1" * 32),
        on_s=0.1,
        off_s=0.1,
        fixation_s=0.3,
        inter_trial_s=0.8,
        response_s=0.17,
        flash_after_s=0.2,
    )
    return display.encode(show), lambda packet: _call(display.decode, packet)


def display_replies() -> tuple[Packet, Callable[[Packet], None]]:
    return display.encode_reply(3, display.Onset(4, 1.25, 0)), lambda packet: _call(display.decode_reply, packet)


def _answers(write: Callable[[Path], None], ending: str, folder: Path) -> tuple[Packet, Callable[[Packet], None]]:
    """A file of the folder hand-off; on disk, as its reader takes it."""
    file = folder / f"block000.{ending}"
    write(file)

    def parse(packet: Packet) -> None:
        file.write_bytes(packet[0])
        read_answer(file, NAMES, len(CHANNELS))

    return [file.read_bytes()], parse


def damaged(packet: Packet, rng: np.random.Generator) -> Packet:
    """Random bytes, or a good packet with one to four things done to it: bytes changed, cut out, put in, repeated."""
    if rng.random() < RANDOM:
        return [rng.bytes(int(rng.integers(0, 300))) for _ in packet]
    parts = [bytearray(part) for part in packet]
    for _ in range(rng.integers(1, 5)):
        part = parts[int(rng.integers(len(parts)))]
        at, length = int(rng.integers(len(part) + 1)), int(rng.integers(1, 40))
        match rng.integers(4):
            case 0:
                part[at : at + 1] = rng.bytes(1)
            case 1:
                del part[at : at + length]
            case 2:
                part[at:at] = rng.bytes(length)
            case _:
                part[at:at] = part[max(0, at - length) : at]
    return [bytes(part) for part in parts]


def fuzz(good: Packet, parse: Callable[[Packet], None], packets: int, seed: int, name: str = "") -> Counter[str]:
    """How many packets were read and how many refused; whatever else happened, by its type."""
    rng, found = np.random.default_rng(seed), Counter[str]()
    parse(good)  # undamaged it is read
    for _ in track(range(packets), name, transient=True) if name else range(packets):
        packet, began = damaged(good, rng), time.perf_counter()
        try:
            parse(packet)
            found["read"] += 1
        except RigError:
            found["refused"] += 1
        except Exception as error:
            found[type(error).__name__] += 1
        found["hangs"] += time.perf_counter() - began > SLOW_S
    return found


def _stream(parser: SpikeParser | WaveformParser, data: bytes) -> None:
    """In three pieces."""
    for at in range(0, len(data) + 1, len(data) // 3 + 1):
        parser.feed(data[at : at + len(data) // 3 + 1])
        if len(parser._rest) > HOARD:
            raise MemoryError(f"a parser keeps {len(parser._rest)} bytes")


def _call(parse: Callable[..., object], packet: object) -> None:
    parse(packet)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packets", type=int, default=100_000, help="for each parser [%(default)s]")
    parser.add_argument("--files", type=int, default=5_000, help="for each kind of answer file, which cost more [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    chosen = parser.parse_args(arguments)
    table, failed = Table(box=box.SIMPLE_HEAD), False
    for heading in ("parser", "packets", "read", "refused", "hangs", "other errors"):
        table.add_column(heading, justify="left" if heading == "parser" else "right")
    with tempfile.TemporaryDirectory() as temporary:
        folder, rates = Path(temporary), np.arange(6.0).reshape(2, 3)
        parsers = {make.__name__.replace("_", " "): (*make(), chosen.packets) for make in MESSAGES}
        parsers["folder .mat"] = (*_answers(lambda file: write_mat(file, NAMES, rates), "mat", folder), chosen.files)
        parsers["folder .h5"] = (*_answers(lambda file: write_h5(file, rates), "h5", folder), chosen.files)
        for name, (good, parse, packets) in parsers.items():
            found = fuzz(good, parse, packets, chosen.seed, name)
            others = {key: n for key, n in found.items() if key not in ("read", "refused", "hangs")}
            failed |= bool(others) or found["hangs"] > 0
            said = ", ".join(f"{n} {key}" for key, n in others.items()) or "none"
            table.add_row(name, str(packets), *(str(found[key]) for key in ("read", "refused", "hangs")), said)
    Console().print(table)
    return int(failed)


MESSAGES = (
    intan_spikes,
    intan_waveforms,
    open_ephys_data,
    open_ephys_events,
    broadcaster_spikes,
    lsl_samples,
    lsl_markers,
    display_requests,
    display_replies,
)

if __name__ == "__main__":
    raise SystemExit(main())
