"""The protocol between presenters and displays: what is sent is read, all else refused in one line; and who may speak it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq.auth
from hypothesis import given, settings
from hypothesis import strategies as st

from neurogym_v.rigs import RigError
from neurogym_v.rigs.displays import messages as m
from neurogym_v.rigs.displays.keys import make_keys
from neurogym_v.rigs.displays.server import DisplayServer
from neurogym_v.types import NeuroGymError
from tests.test_rig_display_server import Frames, Peer, images, serving, show, talking, wait_for

NAME = "0123456789abcdef" * 2
SHOW = m.Show(
    numbers=(3, 4),
    names=(NAME, NAME),
    on_s=0.1,
    off_s=0.1,
    fixation_s=0.3,
    inter_trial_s=0.8,
    response_s=0.2,
    flash_after_s=0.0,
)
FROM_CLIENT = [m.Hello(1, "a-session"), m.Flash((0.0, 0.05, 0.15)), SHOW, m.Ping(7)]
FROM_SERVER = [
    m.Welcome(1, 59.94, 12.5),
    m.Have((NAME,), ()),
    m.Flashed((1.0, 2.5)),
    m.Onset(3, 12.75, 1),
    m.Broken(4),
    m.Over(3),
    m.Pong(-1, 13.0),
    m.Refused("expected Größe, got 'x'"),
]


@pytest.mark.parametrize("message", FROM_CLIENT)
def test_what_a_client_says_is_read_as_it_was_said(message: Any) -> None:
    assert m.decode(m.encode(message)) == message


@pytest.mark.parametrize("message", FROM_SERVER)
def test_what_a_server_says_is_read_as_it_was_said(message: Any) -> None:
    assert m.decode_reply(m.encode_reply(17, message)) == (17, message)


def test_images_travel_as_bytes() -> None:
    sent = images(2, 5)
    header, pixels = m.encode(sent)
    assert json.loads(header) == {"type": "images", "names": list(sent.names), "size": 5, "count": 2}
    read = m.decode([header, pixels])
    assert isinstance(read, m.Images) and read.names == sent.names
    np.testing.assert_array_equal(read.pixels, sent.pixels)


def test_a_name_is_the_digest_of_the_bytes() -> None:
    # printf '\0\0\0' | sha256sum
    assert (
        m.name_of(np.zeros((3, 1, 1), dtype=np.uint8))
        == "709e80c88487a2411e1ee4dfb9f22a861492d20c4765150c0c794abd70f8147c"[:32]
    )
    image = images(1, 5).pixels[0]
    assert m.name_of(image) == m.name_of(np.asfortranarray(image)) != m.name_of(255 - image)


def changed(**fields: Any) -> list[bytes]:
    """SHOW with some fields otherwise, or without them where they are None."""
    header = json.loads(m.encode(SHOW)[0]) | fields
    return [json.dumps({key: value for key, value in header.items() if value is not None}).encode()]


WRONG = {
    "nothing": [],
    "three frames": [b"{}"] * 3,
    "no JSON": [b"\xff\xfe"],
    "half": [m.encode(SHOW)[0][:-9]],
    "a list": [b"[1]"],
    "a deep one": [b"[" * 100_000],
    "a long number": [b'{"type": "ping", "id": ' + b"9" * 10_000 + b"}"],
    "NaN": [m.encode(SHOW)[0].replace(b"0.3", b"NaN")],
    "infinite": [m.encode(SHOW)[0].replace(b"0.3", b"1e999")],
    "too long": [b" " * (m.MAX_HEADER + 1)],
    "no type": [b"{}"],
    "another type": [b'{"type": "pong", "id": 1}'],
    "a type that cannot be looked up": [b'{"type": [], "id": 1}'],
    "a second frame": [*m.encode(SHOW), b"x"],
    "a field less": changed(on_s=None),
    "a field more": changed(colour=1),
    "text for a number": changed(on_s="0.1"),
    "true for a number": changed(numbers=[True, 2]),
    "a broken number": changed(numbers=[1.5, 2]),
    "a number that is not one": changed(on_s=10**400),
    "below zero": changed(numbers=[-1, 2]),
    "twice": changed(numbers=[2, 2]),
    "too many": changed(numbers=list(range(1001)), names=[NAME] * 1001),
    "not as many": changed(numbers=[1]),
    "none": changed(numbers=[], names=[]),
    "no digits": changed(names=[NAME, NAME.upper()]),
    "never off": changed(on_s=1e9),
    "times that go back": [b'{"type": "flash", "at_s": [0.2, 0.1]}'],
    "another version": [b'{"type": "hello", "version": 2, "session": "a", "new": 1}'],
    "a session that is none": [b'{"type": "hello", "version": 1, "session": "a\\nb"}'],
    "images without bytes": m.encode(images(2, 5))[:1],
    "images cut short": [m.encode(images(2, 5))[0], m.encode(images(2, 5))[1][:-1]],
    "larger than a frame": [
        json.dumps({"type": "images", "names": [NAME] * 4096, "size": 4096, "count": 4096}).encode(),
        b"",
    ],
}


@pytest.mark.parametrize("frames", WRONG.values(), ids=WRONG.keys())
def test_what_is_malformed_is_refused_in_one_line(frames: list[bytes]) -> None:
    with pytest.raises(m.MessageError) as error:
        m.decode(frames)
    assert "expected" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_another_version_is_named_before_anything_else() -> None:
    with pytest.raises(m.MessageError, match="hello: expected version 1 of the protocol, got 2; update the other side"):
        m.decode(WRONG["another version"])


def test_more_bytes_than_there_may_be_are_named_before_any_are_counted() -> None:
    with pytest.raises(m.MessageError, match="images: expected at most 67108864 bytes, got 4096 of side 4096"):
        m.decode(WRONG["larger than a frame"])


@pytest.mark.parametrize("seq", [None, -1, 1.0, "1", True])
def test_every_message_of_a_server_has_its_place(seq: Any) -> None:
    with pytest.raises(m.MessageError, match="expected seq to be a whole number"):
        m.decode_reply([json.dumps({"type": "over", "first": 1, "seq": seq}).encode()])


def test_what_would_be_refused_is_not_sent() -> None:
    with pytest.raises(m.MessageError, match="flash: expected ascending times"):
        m.encode(m.Flash((0.2, 0.1)))
    with pytest.raises(m.MessageError, match=r"images: expected 2 of \(3, 5, 5\) uint8"):
        m.encode(m.Images((NAME, NAME), 5, 2, images(1, 5).pixels))


def test_any_reason_can_be_sent() -> None:
    said = m.refusal("two\nlines and a \ud800" + "x" * 5000)
    (_, read) = m.decode_reply(m.encode_reply(0, said))
    assert (
        read == said
        and isinstance(read, m.Refused)
        and len(read.why) == m.MAX_WORDS
        and read.why.startswith("two lines and a  ")
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
GOOD = [m.encode(message) for message in [*FROM_CLIENT, images(2, 5)]] + [m.encode_reply(3, message) for message in FROM_SERVER]


@st.composite
def nearly(draw: st.DrawFn) -> list[bytes]:
    """A good message with a field exchanged, or with some of its bytes changed, cut or repeated."""
    header, *rest = draw(st.sampled_from(GOOD))
    if draw(st.booleans()):
        fields = json.loads(header)
        fields[draw(st.sampled_from(sorted(fields)) | st.text(max_size=5))] = draw(JSON)
        header = json.dumps(fields).encode()
    else:
        at, length = draw(st.integers(0, len(header))), draw(st.integers(0, 5))
        header = header[:at] + draw(st.binary(max_size=5)) + header[at + length :]
    return [header, *rest, *draw(st.lists(st.binary(max_size=20), max_size=1))]


def fuzz(frames: list[bytes]) -> None:
    """Whatever comes is either refused or read, and then as it could have been sent."""
    for decode in (m.decode, m.decode_reply):
        try:
            read = decode(frames)
        except m.MessageError as error:
            assert "\n" not in str(error)
            str(error).encode()  # can be printed and sent
        else:
            again = m.encode(read) if decode is m.decode else m.encode_reply(*read)  # type: ignore[arg-type, misc]
            assert len(again) == len(frames)
            assert repr(decode(again)) == repr(read)


@settings(max_examples=300, deadline=None)
@given(nearly() | st.lists(st.binary(max_size=50), max_size=3))
def test_whatever_comes_is_read_or_refused(frames: list[bytes]) -> None:
    fuzz(frames)


def test_an_image_that_was_changed_on_its_way_is_refused() -> None:
    display = Frames()
    with talking(display) as peer:
        message = images(3)
        spoilt = replace(message, pixels=message.pixels.copy())
        spoilt.pixels[1, 0, 0, 0] ^= 1
        peer.send(spoilt)
        with pytest.raises(RigError, match=f"expected image {message.names[1]} to be as it was sent"):
            peer.hear(m.Have)
        assert message.names[1] not in display.ready
        assert peer.prepare() == message.names  # once more


def test_what_is_malformed_is_refused_and_changes_nothing() -> None:
    with talking(Frames()) as peer:
        names = peer.prepare()
        for frames in ([b"{"], [b"{}"], [b"\xff", b"x"], [b'{"type": "show"}'], [b"1", b"2", b"3"]):
            peer.socket.send_multipart(frames)
            assert "expected" in peer.hear(m.Refused).why
        peer.send(show(names))
        assert isinstance(peer.until_over()[-1], m.Over)


def test_who_did_not_say_hello_is_told_so() -> None:
    with serving(Frames()) as server:
        peer = Peer(server.address, hello=False)
        peer.send(m.Ping(1))
        assert peer.hear(m.Refused).why.startswith("expected a hello first")
        peer.close()


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:0", "tcp://*:5580", "tcp://192.168.1.5:5580", "tcp://[::]:5580", "tcp://rig:1"]
)
def test_other_machines_are_kept_out_without_keys(address: str) -> None:
    with pytest.raises(NeuroGymError, match="expected keys for .*, which other machines can reach"):
        DisplayServer(Frames(), address=address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:5580", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "ipc:///tmp/x", "tcp://127.0.0.1:0/x"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(NeuroGymError, match=r"expected an address like tcp://127\.0\.0\.1:5580, got"):
        DisplayServer(Frames(), address=address)


def test_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    files = make_keys(tmp_path / "keys")
    for secret in (files.server_secret, files.client_secret):
        assert secret.stat().st_mode & 0o077 == 0 and zmq.auth.load_certificate(secret)[1]
    assert zmq.auth.load_certificate(files.server_public)[1] is None
    assert [path.name for path in files.clients.iterdir()] == ["client.key"]
    before = files.server_secret.read_bytes()
    with pytest.raises(NeuroGymError, match="expected a folder without keys"):
        make_keys(tmp_path / "keys")
    assert files.server_secret.read_bytes() == before


def test_key_files_that_are_none_are_named(tmp_path: Path) -> None:
    files = make_keys(tmp_path / "keys")
    (tmp_path / "none.key").write_text("hello")
    wrong = {
        "as client_keys, got ''": {"secret_key": str(files.server_secret)},
        "which is none": {"secret_key": str(tmp_path / "none.key"), "client_keys": str(files.clients)},
        "which has none": {"secret_key": str(files.server_public), "client_keys": str(files.clients)},
    }
    for words, options in wrong.items():
        server = DisplayServer(Frames(), address="tcp://127.0.0.1:0", **options)  # type: ignore[arg-type]
        with pytest.raises(NeuroGymError, match=words):
            server.open()


def test_a_display_that_fails_ends_the_server_in_words() -> None:
    class Fails(Frames):
        def flip(self, *_: Any, **__: Any) -> float:
            raise RigError("the window was closed")

    server = DisplayServer(Fails(), address="tcp://127.0.0.1:0")
    server.open()
    ended: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve()
        except RigError as error:
            ended.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    peer = Peer(server.address)
    peer.send(m.Flash((0.1,)))
    assert peer.hear(m.Refused).why == "the display failed: the window was closed"
    thread.join(5)
    assert not thread.is_alive() and len(ended) == 1
    peer.close()
    server.close()
    server.close()


def test_a_port_that_is_taken() -> None:
    display = Frames()
    with serving(Frames()) as server, pytest.raises(RigError, match=r"expected to listen at .*, got: Address already in use"):
        DisplayServer(display, address=server.address).open()
    assert display.closed


def test_a_frame_that_is_too_large_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever announces one is cut off before there is memory for it; the server goes on for others."""
    monkeypatch.setattr(m, "MAX_FRAME", 10_000)
    with serving(Frames()) as server:
        peer = Peer(server.address, "one")
        peer.socket.send(b"x" * 20_000)
        wait_for(lambda: server._client is None)
        other = Peer(server.address, "two")
        other.send(m.Ping(1))
        assert other.hear(m.Pong).id == 1
        peer.close()
        other.close()


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurogym_v.rigs.displays.server.UNREAD", 20)
    server = DisplayServer(Frames(), address="tcp://127.0.0.1:0")
    server.open()
    peer = Peer(server.address, hello=False)
    peer.send(m.Hello(1, "a"))
    while server._client is None:
        server._answer(0.1)
    most = 0
    for _ in range(100_000):
        server._tell(m.Refused("x" * m.MAX_WORDS))
        if server._client is None:
            break
        most = max(most, len(server._client.outbox))
    assert server._client is None and most == 20
    peer.close()
    server.close()
