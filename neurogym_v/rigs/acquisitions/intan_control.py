"""The command socket of Intan RHX: set-up in text.

The program answers a command that it carries out with nothing, and what it answers has no end mark. So each batch of commands
is followed by `get runmode;`, whose answer is one of four known words: what stands before it is what the batch was answered,
and nothing is success. The one exception is `set runmode run;`: the program does not read what came along with it until the run
is over, so it is sent alone. Source: what RHX 3.4.0 was recorded to answer, and its source.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence

from neurogym_v.rigs import RigError

ANSWER_S = 2.0
BATCH = 1000
"""Letters of commands in one send: more might be cut in two on the way, and a command that is cut is two wrong ones."""
TAKE = 1 << 22
"""Bytes that are read from a socket at a time, at most."""
_ANSWERED = re.compile(r"Return: RunMode (Stop|Run|Record|Trigger)\Z")


class Control:
    """The command socket."""

    def __init__(self, host: str, port: int) -> None:
        try:
            self.socket = socket.create_connection((host, port), timeout=ANSWER_S)
        except OSError as error:
            raise RigError(
                f"acquisition intan: expected RHX to listen for commands on {host}:{port}, got: {error}; in RHX, press Connect"
                " in Network > Remote TCP Control > Commands"
            ) from None
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.mode = ""
        """Run mode at the last answer."""

    def say(self, command: str) -> None:
        self.socket.settimeout(ANSWER_S)
        self.socket.sendall(command.encode())

    def ask(self, commands: Sequence[str]) -> str:
        """What these commands are answered; "": they were carried out."""
        answers, batch = "", ""
        for command in [*commands, None]:
            if command is None or len(batch) + len(command) > BATCH:
                answers += self._exchange(batch)
                batch = ""
            batch += command or ""
        return answers

    def _exchange(self, batch: str) -> str:
        text, end = "", time.monotonic() + ANSWER_S
        try:
            self.say(batch + "get runmode;")
            while not (match := _ANSWERED.search(text)):
                left = end - time.monotonic()
                self.socket.settimeout(max(0.001, left))
                data = self.socket.recv(1 << 16)
                if left < 0:
                    raise TimeoutError
                if not data:
                    raise ConnectionResetError
                text += data.decode("latin-1")
        except TimeoutError:
            what = f"an answer of RHX within {ANSWER_S:g} s, got {text[:60]!r}"
            raise RigError(f"acquisition intan: expected {what}") from None
        except ConnectionError:
            raise RigError("acquisition intan: expected an answer, but RHX closed the command connection") from None
        self.mode = match[1]
        return text[: match.start()]

    def value(self, parameter: str) -> str:
        answer = self.ask([f"get {parameter};"])
        if not (match := re.fullmatch(r"Return: \w+ (.+)", answer)):
            raise RigError(f"acquisition intan: expected the value of {parameter}, got the answer {answer[:60]!r}")
        return match[1]

    def unasked(self) -> str:
        """What came without a question: why a run was refused."""
        self.socket.settimeout(0.0)
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return ""
        if not data:
            raise RigError("acquisition intan: expected RHX to stay, but it closed the command connection")
        return data.decode("latin-1")


def connect(control: Control, host: str, which: str, port: int) -> socket.socket:
    """Let the program listen on a data port, and connect to it."""
    told = control.value(f"tcp{which}dataoutputport")
    if told != str(port):
        raise RigError(f"acquisition intan: expected {which}s on port {port}, but RHX sends them on {told}; change either")
    status = f"tcp{which}dataoutputconnectionstatus"
    end = time.monotonic() + ANSWER_S
    while control.value(status) == "Connected":  # who was there before may just have left
        if time.monotonic() > end:
            raise RigError(f"acquisition intan: expected the {which} output of RHX to be free, but another program reads it")
        time.sleep(0.005)
    if answer := control.ask([f"execute connecttcp{which}dataoutput;"]):
        raise RigError(f"acquisition intan: expected RHX to offer {which}s, got the answer {answer[:200]!r}")
    output, end = None, time.monotonic() + ANSWER_S
    while True:
        try:
            output = output or socket.create_connection((host, port), timeout=ANSWER_S)
            if control.value(status) == "Connected":
                return output
            refused = "no connection"
        except ConnectionRefusedError as error:  # it may begin to listen a moment after it was told to
            refused = str(error)
        except BaseException:
            if output:
                output.close()
            raise
        if time.monotonic() > end:
            if output:
                output.close()
            raise RigError(f"acquisition intan: expected RHX to send {which}s on {host}:{port}, got: {refused}")
        time.sleep(0.005)


def drain(output: socket.socket, which: str) -> tuple[bytes, bool]:
    """What is there now, and whether that is all."""
    parts, size = list[bytes](), 0
    while size < TAKE:
        try:
            data = output.recv(1 << 16)
        except BlockingIOError:
            return b"".join(parts), True
        if not data:
            raise RigError(f"acquisition intan: expected more data, but RHX closed the {which} connection")
        parts.append(data)
        size += len(data)
    return b"".join(parts), False
