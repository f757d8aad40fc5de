"""Remote presenters: against a display server, one that is killed, and one that says what it must not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zmq

from neurogym_v.rigs import Fixation, Reports, RigError, Shown
from neurogym_v.rigs.displays import messages as m
from neurogym_v.rigs.displays.headless import Headless
from neurogym_v.rigs.displays.keys import make_keys
from neurogym_v.rigs.presenters import remote
from neurogym_v.rigs.presenters.remote import Remote
from neurogym_v.types import NeuroGymError
from tests.test_rig_display_server import HZ, Frames, Peer, Watched, serving, show, wait_for

TIMING = {"on_ms": 100, "off_ms": 50, "fixation_ms": 300, "inter_trial_ms": 100, "response_ms": 170}


def some(count: int = 3, size: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@contextmanager
def presenting(address: str, **options: Any) -> Iterator[Remote]:
    presenter = Remote(address=address, **(TIMING | options))
    try:
        presenter.open()
        yield presenter
    finally:
        presenter.close()
        presenter.close()


def until_over(presenter: Remote, first: int) -> Reports:
    """All that is reported up to the end of a fixation, in one."""
    shown: list[Shown] = []
    flashes: list[float] = []
    while True:
        reports = presenter.reports(1.0)
        shown += reports.shown
        flashes += reports.flashes_s.tolist()
        if reports.over:
            assert reports.over == (first,)
            return Reports(shown=tuple(shown), over=reports.over, flashes_s=np.array(flashes))


def test_what_is_shown_is_reported() -> None:
    display = Frames(late={1: 1})
    with serving(display) as server, presenting(server.address) as presenter:
        assert presenter.refresh_hz == HZ
        presenter.prepare(some())
        presenter.show(Fixation(images=(2, 0), numbers=(5, 6), flash_after_s=0.25))
        reports = until_over(presenter, 5)
    start = display.log[0][2]
    assert reports.shown == (Shown(5, (start + 31) / HZ, 1), Shown(6, (start + 46) / HZ, 0))
    assert reports.flashes_s.tolist() == [(start + 46 + 25) / HZ]
    pixels = some().numpy()
    assert [image for image, _, _ in display.log if image] == [m.name_of(pixels[2]), m.name_of(pixels[0])]


def test_flashes_are_reported() -> None:
    with serving(Frames()) as server, presenting(server.address) as presenter:
        presenter.flash(np.array([0.05, 0.15, 0.3]))  # type: ignore[arg-type]
        times: list[float] = []
        while len(times) < 3:
            times += presenter.reports(1.0).flashes_s.tolist()
        np.testing.assert_allclose(np.diff(times), [0.1, 0.15])


def test_images_that_broke_are_reported_with_what_was_known() -> None:
    display = Frames(leaves=lambda frames: sum(patch for _, patch, _ in frames.log) == 2)
    with serving(display) as server, presenting(server.address, response_ms=90) as presenter:
        presenter.prepare(some())
        presenter.show(Fixation((0, 1, 2), (10, 11, 12)))
        *onsets, second, third = until_over(presenter, 10).shown
        assert [shown.number for shown in onsets] == [10, 11] and not any(shown.broken for shown in onsets)
        assert (second.number, second.onset_s, second.broken) == (11, onsets[1].onset_s, True)
        assert (third.number, third.broken) == (12, True) and np.isnan(third.onset_s)
        presenter.show(Fixation((0,), (13,)))  # and on
        display.leaves = lambda _: False
        until_over(presenter, 13)


def sent(monkeypatch: pytest.MonkeyPatch) -> list[m.Images]:
    """The images that presenters send from now on."""
    messages: list[m.Images] = []
    send = Remote._send

    def spy(self: Remote, message: m.FromClient) -> None:
        if isinstance(message, m.Images):
            messages.append(message)
        send(self, message)

    monkeypatch.setattr(Remote, "_send", spy)
    return messages


def test_only_images_that_are_new_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = sent(monkeypatch)
    monkeypatch.setattr(remote, "MESSAGE_BYTES", 2 * 3 * 8 * 8)
    display, first, second = Frames(), some(3), some(2, seed=1)
    with serving(display) as server, presenting(server.address) as presenter:
        presenter.prepare(first)
        assert [message.count for message in messages] == [2, 1]
        presenter.prepare(torch.cat([first[1:], second, second]))  # one image twice is one
        assert [message.count for message in messages] == [2, 1, 2]
        presenter.show(Fixation((0, 4), (0, 1)))
        until_over(presenter, 0)
    assert [image for image, _, _ in display.log if image] == [m.name_of(first[1].numpy()), m.name_of(second[0].numpy())]


def test_images_that_were_let_go_of_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = sent(monkeypatch)
    with serving(Frames(), kept=4) as server, presenting(server.address) as presenter:
        presenter.prepare(some(3))
        presenter.prepare(torch.cat([some(3), some(1, seed=1)]))
        presenter.prepare(some(3, seed=2))
        presenter.prepare(torch.cat([some(2), some(2, seed=2)]))  # two were let go of; to make room, so are these two in turn
        presenter.show(Fixation((0, 1, 2, 3), (0, 1, 2, 3)))
        until_over(presenter, 0)
        with pytest.raises(RigError, match="expected it to keep 5 images ready, it lets go of some; show fewer in one go"):
            presenter.prepare(some(5, seed=3))
    assert [message.count for message in messages[:2]] == [3, 1]


def test_images_are_prepared_while_a_fixation_runs() -> None:
    display = Watched(pace=4.0)
    with serving(display) as server, presenting(server.address, on_ms=2000, response_ms=2500) as presenter:
        presenter.prepare(some())
        presenter.show(Fixation((0,), (0,)))
        while not presenter.reports(0.2).shown:
            pass
        presenter.prepare(some(seed=1))
        assert display.log[-1][0] is not None  # the image is still on
        reports = until_over(presenter, 0)
        assert reports.shown == ()
        presenter.show(Fixation((1,), (1,)))
        assert until_over(presenter, 1).shown[0].number == 1


@pytest.mark.parametrize("images", [some().float(), some()[0], some()[:, :2], some()[:, :, :4]])
def test_images_that_are_none(images: torch.Tensor) -> None:
    with serving(Frames()) as server, presenting(server.address) as presenter:
        with pytest.raises(RigError, match=r"expected images of \(n, 3, s, s\) uint8, got"):
            presenter.prepare(images)
        with pytest.raises(RigError, match="expected images among the 0 prepared"):
            presenter.show(Fixation((0,), (0,)))


def test_time_in_which_an_agent_thinks_is_no_silence() -> None:
    with serving(Headless()) as server, presenting(server.address, patience_s=0.3) as presenter:
        time.sleep(0.5)
        for _ in range(5):  # all that came meanwhile, and then heartbeats
            presenter.reports(0.1)


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "OPEN_S", 0.2)
    with pytest.raises(RigError, match=r"display at tcp://127\.0\.0\.1:\d+: expected an answer within 0\.2 s, got none"):
        with serving(Frames()) as server:
            address = server.address
        with presenting(address):
            pass


def test_one_that_is_closed() -> None:
    presenter = Remote()
    presenter.close()
    for call in (lambda: presenter.reports(0.1), lambda: presenter.flash([0.1])):
        with pytest.raises(RigError, match="expected a presenter that is open, this one is closed"):
            call()


def test_numbers_go_on_when_it_is_opened_again() -> None:
    with serving(Frames()) as server, presenting(server.address) as presenter:
        presenter.prepare(some())
        presenter.show(Fixation((0,), (0,)))
        until_over(presenter, 0)
        presenter.open()
        presenter.prepare(some())
        presenter.show(Fixation((0,), (0,)))
        with pytest.raises(RigError, match="expected numbers that were not shown yet, got 0 again"):
            until_over(presenter, 0)


SERVER = """
from neurogym_v.rigs.displays.headless import Headless
from neurogym_v.rigs.displays.server import DisplayServer
server = DisplayServer(Headless(), address="tcp://127.0.0.1:0")
server.open()
print(server.address, flush=True)
server.serve()
"""


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as running:
        yield running, running.stdout.readline().strip()
        running.kill()


def test_a_server_that_dies_is_missed_within_two_seconds(process: tuple[subprocess.Popen[str], str]) -> None:
    running, address = process
    for how in (signal.SIGSTOP, signal.SIGKILL):
        with presenting(address, fixation_ms=50) as presenter:
            presenter.prepare(some())
            presenter.show(Fixation((0, 1, 2), (0, 1, 2)))
            while not presenter.reports(0.1).shown:
                pass
            os.kill(running.pid, how)
            killed = time.monotonic()
            with pytest.raises(RigError, match=rf"display at {address}: silent for 1\.\d s"):
                while time.monotonic() < killed + 2:
                    presenter.reports(0.01)
            assert 0.5 < time.monotonic() - killed < 2
            os.kill(running.pid, signal.SIGCONT)


CLIENT = """
import json, hashlib, sys, time, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(sys.argv[1])
pixels = bytes(3)
name = hashlib.sha256(pixels).hexdigest()[:32]
timing = dict(on_s=1.0, off_s=0.1, fixation_s=0.1, inter_trial_s=0.0, response_s=2.0, flash_after_s=0.0)
for header, *rest in (
    [dict(type="hello", version=1, session="killed")],
    [dict(type="images", names=[name], size=1, count=1), pixels],
    [dict(type="show", numbers=[0, 1], names=[name] * 2, **timing)],
):
    socket.send_multipart([json.dumps(header).encode(), *rest])
while json.loads(socket.recv())["type"] != "onset":
    pass
print("shown", flush=True)
time.sleep(60)
"""


def test_after_a_client_that_was_killed_the_next_one_takes_over() -> None:
    """The fixation that it began is shown to its end, since an animal looks at it, and the next comes after it."""
    display = Watched(pace=4.0)
    with serving(display) as server:
        with subprocess.Popen([sys.executable, "-c", CLIENT, server.address], stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout and client.stdout.readline() == "shown\n"
            client.kill()
        with presenting(server.address) as presenter:
            presenter.prepare(some())
            presenter.show(Fixation((1,), (0,)))
            reports = until_over(presenter, 0)
    black, mine = m.name_of(np.zeros((3, 1, 1), np.uint8)), m.name_of(some()[1].numpy())
    assert [image for image, _, _ in display.log if image] == [black, black, mine]
    assert [(shown.number, shown.onset_s) for shown in reports.shown] == [(0, display.log[-3][2])]


class Liar:
    """Serves one client with what it is given, frame by frame."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        threading.Thread(target=self.welcome, daemon=True).start()
        self.met = threading.Event()

    def welcome(self) -> None:
        self.identity, _ = self.socket.recv_multipart()
        self.send(m.encode_reply(0, m.Welcome(1, 60.0, 0.0)))
        self.met.set()

    def send(self, frames: list[bytes]) -> None:
        self.socket.send_multipart([self.identity, *frames])

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def liar() -> Iterator[tuple[Liar, Remote]]:
    liar = Liar()
    with presenting(liar.address, patience_s=0.4) as presenter:
        assert liar.met.wait(5)
        presenter._prepared = ("0" * 32,)
        presenter.show(Fixation((0,), (0,)))
        yield liar, presenter
    liar.close()


def onset(seq: int, number: int = 0) -> list[bytes]:
    return m.encode_reply(seq, m.Onset(number, 1.5, 0))


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([onset(1), onset(4)], "expected its message 2, got 4: 2 in between are missing"),
        ([onset(1, number=8)], "expected presentations that were asked for, got 8"),
        ([m.encode_reply(1, m.Over(9))], "expected fixations that were asked for, got the end of 9"),
        ([[b"{"]], "message: expected a JSON object"),
        ([[*onset(1), b"more"]], "message: expected one frame, got 2"),
        ([m.encode_reply(0, m.Refused("no more"))], "no more"),
        ([], "silent for 0.4 s"),
    ],
)
def test_what_a_server_must_not_say(messages: list[list[bytes]], why: str, liar: tuple[Liar, Remote]) -> None:
    server, presenter = liar
    for frames in messages:
        server.send(frames)
    with pytest.raises(RigError, match=f"display at {server.address}: {why}"):
        for _ in range(20):
            presenter.reports(0.1)


def test_a_server_gets_its_time_though_nobody_listened_before(liar: tuple[Liar, Remote]) -> None:
    server, presenter = liar
    time.sleep(0.5)  # longer than the patience
    assert presenter.reports(0.1).shown == ()
    server.send(onset(1))
    assert presenter.reports(0.1).shown == (Shown(0, 1.5, 0),)


def test_what_is_said_twice_is_heard_once(liar: tuple[Liar, Remote]) -> None:
    server, presenter = liar
    for frames in (onset(1), onset(1), m.encode_reply(2, m.Over(0)), onset(1), m.encode_reply(2, m.Over(0))):
        server.send(frames)
    assert until_over(presenter, 0).shown == (Shown(0, 1.5, 0),)
    assert presenter.reports(0.1).over == ()


def test_a_second_client_is_refused_until_the_first_is_gone() -> None:
    with serving(Frames()) as server:
        first = Peer(server.address, "one")
        second = Peer(server.address, "two", hello=False)
        second.send(m.Hello(1, "two"))
        assert "expected no other client, but that of session one is connected" in second.hear(m.Refused).why
        first.send(m.Ping(1))
        first.hear(m.Pong)
        first.close()
        wait_for(lambda: server._client is None)  # missed at the next heartbeat
        second.send(m.Hello(1, "two"))
        second.hear(m.Welcome)
        second.close()


def test_a_client_that_comes_back_cannot_show_a_number_twice() -> None:
    with serving(Frames()) as server:
        for attempt in range(2):
            peer = Peer(server.address, "same")
            names = peer.prepare()
            peer.send(show(names))
            if attempt:
                with pytest.raises(RigError, match="got 0 again"):
                    peer.until_over()
            else:
                peer.until_over()
            peer.close()


@pytest.mark.parametrize("given", ["right", "another client", "another server", "none"])
def test_only_those_with_the_right_keys_are_served(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "OPEN_S", 2.0 if given == "right" else 0.3)
    ours, others = make_keys(tmp_path / "ours"), make_keys(tmp_path / "others")
    server_key = others.server_public if given == "another server" else ours.server_public
    client_key = others.client_secret if given == "another client" else ours.client_secret
    options = {} if given == "none" else {"server_key": str(server_key), "client_key": str(client_key)}
    with serving(Frames(), secret_key=str(ours.server_secret), client_keys=str(ours.clients)) as server:
        if given == "right":
            with presenting(server.address, **options) as presenter:
                presenter.prepare(some())
                presenter.show(Fixation((0,), (0,)))
                assert len(until_over(presenter, 0).shown) == 1
        else:
            words = "is the display server running there" + (r" with these keys\?" if options else r"\?")
            with pytest.raises(RigError, match=words), presenting(server.address, **options):
                pass


def test_a_presenter_goes_to_other_machines_with_keys_alone() -> None:
    with pytest.raises(
        NeuroGymError, match="presenter remote: expected keys for tcp://rig:5580, which other machines can reach"
    ):
        Remote(address="tcp://rig:5580")
