"""What a presenter and a display server say to each other: JSON headers in frames of ZeroMQ messages, version 1.

The client is a DEALER, the server a ROUTER. A message is one frame, a JSON object with `type`; `images` has a second frame.

| from client | fields | |
|---|---|---|
| `hello` | version, session | first; `session` is the run's, so that a new run is told from one that comes back |
| `images` | names, size, count | and (count, 3, size, size) uint8; a name is the SHA-256 of its image, 32 hex digits |
| `flash` | at_s | light the photodiode patch at these times from now, ascending |
| `show` | numbers, names, on_s, off_s, fixation_s, inter_trial_s, response_s, flash_after_s | begin a fixation |
| `ping` | id | |

| from server | fields | |
|---|---|---|
| `hello` | version, refresh_hz, now_s | the client is served |
| `have` | names, dropped | these images are ready; those were let go to make room |
| `flashed` | times_s | the patch was lit without an image |
| `onset` | number, onset_s, late_frames | an image has appeared; again with more late frames if it then stood too long |
| `broken` | number | fixation was not held through the response window of an image, or it was not shown at all |
| `over` | first | the fixation that begins with this number is over |
| `pong` | id, now_s | the answer to `ping`; with id -1 a heartbeat, every HEARTBEAT_S |
| `refused` | why | the last request is not done |

Every message of a server has `seq` besides, which grows by one from its `hello`, so that loss and repetition are seen.
Times end in `_s`; those of a server are by the clock of its display. `response_s` is when the response window ends, after the
onset.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from neurogym_v.rigs import RigError

VERSION = 1
HEARTBEAT_S = 0.25
"""Wall clock: clients know by it that the server is there."""
HEARTBEAT = -1
"""The id of a `pong` that nobody asked for."""
MAX_HEADER = 1 << 20
"""Bytes."""
MAX_FRAME = 1 << 26
"""Bytes of images in a message; sockets cut off a peer that announces more."""
MAX_SIDE = 4096
MAX_NAMES = 4096
MAX_SHOWN = 1000
"""Images in a fixation."""
MAX_FLASHES = 1000
MAX_WORDS = 2000
WHOLE = 2**53
"""Numbers that JSON carries exactly are below."""


class MessageError(RigError):
    """A message is not one of this protocol."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's first message."""

    version: int
    session: str


@dataclass(frozen=True, slots=True)
class Images:
    """Images to keep ready; `pixels` is the second frame."""

    names: tuple[str, ...]
    size: int
    count: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Flash:
    """The photodiode patch is to be lit."""

    at_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """A fixation."""

    numbers: tuple[int, ...]
    names: tuple[str, ...]
    on_s: float
    off_s: float
    fixation_s: float
    inter_trial_s: float
    response_s: float
    flash_after_s: float


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered by a `Pong` of the same id."""

    id: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """A server's `hello`."""

    version: int
    refresh_hz: float
    now_s: float


@dataclass(frozen=True, slots=True)
class Have:
    """Images that are ready, and those that are no more."""

    names: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flashed:
    """When the patch was lit."""

    times_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Onset:
    """An image has appeared."""

    number: int
    onset_s: float
    late_frames: int


@dataclass(frozen=True, slots=True)
class Broken:
    """An image does not count."""

    number: int


@dataclass(frozen=True, slots=True)
class Over:
    """A fixation is over."""

    first: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The server is there."""

    id: int
    now_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """In words."""

    why: str


FromClient: TypeAlias = Hello | Images | Flash | Show | Ping
FromServer: TypeAlias = Welcome | Have | Flashed | Onset | Broken | Over | Pong | Refused
Message = TypeVar("Message")

_FROM_CLIENT: Mapping[str, type[Any]] = {"hello": Hello, "images": Images, "flash": Flash, "show": Show, "ping": Ping}
_FROM_SERVER: Mapping[str, type[Any]] = {
    "hello": Welcome,
    "have": Have,
    "flashed": Flashed,
    "onset": Onset,
    "broken": Broken,
    "over": Over,
    "pong": Pong,
    "refused": Refused,
}
_TYPES = {kind: name for kinds in (_FROM_CLIENT, _FROM_SERVER) for name, kind in kinds.items()}


def name_of(image: NDArray[np.uint8]) -> str:
    """The name of one image: of its bytes."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:32]


def encode(message: FromClient) -> list[bytes]:
    """The frames of a client's message.

    Raises:
        MessageError: a field is not within the limits that the other side checks.
    """
    kind = _TYPES[type(message)]
    values = {f.name: getattr(message, f.name) for f in fields(message) if f.name != "pixels"}
    _check(kind, type(message), {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()})
    header = _written({"type": kind, **values})
    if not isinstance(message, Images):
        return [header]
    if message.pixels.dtype != np.uint8 or message.pixels.nbytes != _length(message.count, message.size):
        raise MessageError(f"images: expected {message.count} of (3, {message.size}, {message.size}) uint8")
    return [header, message.pixels.tobytes()]


def encode_reply(seq: int, message: FromServer) -> list[bytes]:
    """The frames of a server's message, the `seq`-th to this client."""
    return [_written({"type": _TYPES[type(message)], "seq": seq, **asdict(message)})]


def decode(frames: Sequence[bytes]) -> FromClient:
    """A client's message.

    Raises:
        MessageError: it is malformed, in whatever way.
    """
    header = _header(frames)
    kind, values = _values(header, _FROM_CLIENT)
    if kind is not Images:
        _alone(frames)
        return kind(**values)  # type: ignore[no-any-return]
    length = _length(values["count"], values["size"])
    if len(frames) != 2 or len(frames[1]) != length:
        got = f"{len(frames[1])} bytes" if len(frames) == 2 else f"{len(frames)} frames"
        raise MessageError(f"images: expected a second frame of {length} bytes, got {got}")
    shape = (values["count"], 3, values["size"], values["size"])
    return Images(**values, pixels=np.frombuffer(frames[1], dtype=np.uint8).reshape(shape))


def decode_reply(frames: Sequence[bytes]) -> tuple[int, FromServer]:
    """The `seq` of a server's message, and the message.

    Raises:
        MessageError: it is malformed, in whatever way.
    """
    header = _header(frames)
    seq = header.pop("seq", None)
    _whole(0)("a server's message", "seq", seq)
    kind, values = _values(header, _FROM_SERVER)
    _alone(frames)
    return seq, kind(**values)


def refusal(why: object) -> Refused:
    """Whatever is to be said, as a line that can be sent."""
    return Refused(re.sub(r"[\n\ud800-\udfff]", " ", str(why))[:MAX_WORDS] or "no reason is known")


def _written(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":"), allow_nan=False).encode()


def _header(frames: Sequence[bytes]) -> dict[str, Any]:
    if not 1 <= len(frames) <= 2:
        raise MessageError(f"message: expected one or two frames, got {len(frames)}")
    if len(frames[0]) > MAX_HEADER:
        raise MessageError(f"message: expected a header of at most {MAX_HEADER} bytes, got {len(frames[0])}")
    try:
        header = json.loads(frames[0].decode("utf-8"))
    except (ValueError, RecursionError) as error:  # of decoding, too
        raise MessageError(f"message: expected a JSON object, got what cannot be read ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise MessageError(f"message: expected a JSON object, got {type(header).__name__}")
    return header


def _alone(frames: Sequence[bytes]) -> None:
    if len(frames) != 1:
        raise MessageError(f"message: expected one frame, got {len(frames)}")


def _values(header: dict[str, Any], kinds: Mapping[str, type[Any]]) -> tuple[type[Any], dict[str, Any]]:
    """The record that a header stands for, and its fields, checked."""
    name = header.pop("type", None)
    if not isinstance(name, str) or name not in kinds:
        raise MessageError(f"message: expected a type of {', '.join(kinds)}, got {_short(name)}")
    kind = kinds[name]
    if "version" in header and header["version"] != VERSION:  # first: all else may be different in another version
        raise MessageError(
            f"{name}: expected version {VERSION} of the protocol, got {_short(header['version'])}; update the other side"
        )
    _check(name, kind, header)
    return kind, {key: tuple(value) if isinstance(value, list) else value for key, value in header.items()}


def _check(name: str, kind: type[Any], values: Mapping[str, Any]) -> None:
    expected = {f.name for f in fields(kind)} - {"pixels"}
    if values.keys() != expected:
        raise MessageError(f"{name}: expected the fields {', '.join(sorted(expected))}, got {_short(sorted(values))}")
    for key, value in values.items():
        _CHECKS[key](name, key, value)
    counted = {"images": ("names", values.get("count")), "show": ("names", len(values.get("numbers", ())))}
    if name in counted and len(values["names"]) != counted[name][1]:
        raise MessageError(f"{name}: expected {counted[name][1]} names, got {len(values['names'])}")
    if name == "images" and _length(values["count"], values["size"]) > MAX_FRAME:
        raise MessageError(f"images: expected at most {MAX_FRAME} bytes, got {values['count']} of side {values['size']}")
    if name == "flash" and list(values["at_s"]) != sorted(values["at_s"]):
        raise MessageError(f"flash: expected ascending times, got {_short(values['at_s'])}")


def _length(count: int, size: int) -> int:
    return count * 3 * size * size


def _short(value: object) -> str:
    """Of what came, as much as a line bears, and only what any terminal can print."""
    return ascii(value)[:80]


Check: TypeAlias = Callable[[str, str, Any], None]


def _whole(low: int, high: int = WHOLE) -> Check:
    def check(name: str, key: str, value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise MessageError(f"{name}: expected {key} to be a whole number from {low} to {high}, got {_short(value)}")

    return check


def _number(low: float, high: float) -> Check:
    def check(name: str, key: str, value: Any) -> None:
        if type(value) not in (int, float) or not low <= value <= high:  # NaN is not
            raise MessageError(f"{name}: expected {key} to be a number from {low:g} to {high:g}, got {_short(value)}")

    return check


def _text(pattern: str, words: str) -> Check:
    def check(name: str, key: str, value: Any) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise MessageError(f"{name}: expected {key} to be {words}, got {_short(value)}")

    return check


def _list(item: Check, low: int, high: int, *, unique: bool = False) -> Check:
    def check(name: str, key: str, value: Any) -> None:
        if not isinstance(value, list) or not low <= len(value) <= high:
            got = f"{len(value)} of them" if isinstance(value, list) else _short(value)
            raise MessageError(f"{name}: expected {key} to be a list of {low} to {high}, got {got}")
        for one in value:
            item(name, key, one)
        if unique and len(set(value)) != len(value):
            raise MessageError(f"{name}: expected {key} to differ from each other, got one twice")

    return check


_NAME = _text("[0-9a-f]{32}", "names of 32 hex digits")
_EVER = 1e12
_CHECKS: Mapping[str, Check] = {
    "version": _whole(VERSION, VERSION),
    "session": _text("[A-Za-z0-9._-]{1,64}", "1 to 64 letters and digits"),
    "names": _list(_NAME, 0, MAX_NAMES),
    "dropped": _list(_NAME, 0, 2 * MAX_NAMES),
    "size": _whole(1, MAX_SIDE),
    "count": _whole(1, MAX_NAMES),
    "at_s": _list(_number(0, 600), 1, MAX_FLASHES),
    "numbers": _list(_whole(0), 1, MAX_SHOWN, unique=True),
    "on_s": _number(0.001, 60),
    "off_s": _number(0, 60),
    "fixation_s": _number(0, 60),
    "inter_trial_s": _number(0, 600),
    "response_s": _number(0.001, 60),
    "flash_after_s": _number(0, 60),
    "id": _whole(HEARTBEAT),
    "refresh_hz": _number(1, 1000),
    "now_s": _number(-_EVER, _EVER),
    "times_s": _list(_number(-_EVER, _EVER), 0, MAX_FLASHES),
    "number": _whole(0),
    "onset_s": _number(-_EVER, _EVER),
    "late_frames": _whole(0, 10**6),
    "first": _whole(0),
    "why": _text(f"[^\\n\\ud800-\\udfff]{{1,{MAX_WORDS}}}", f"a line of at most {MAX_WORDS} letters"),
}
"""Of each field; it means the same in every message that has it."""
