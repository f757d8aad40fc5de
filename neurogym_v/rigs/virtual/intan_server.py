"""The sockets and commands of a virtual Intan RHX; answers as RHX 3.4.0 was recorded to give them."""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence

from neurogym_v.rigs import RigError

BUFFERED = 1 << 22
"""Bytes that wait for a client that does not read; the oldest messages are dropped beyond."""
FIXED = {
    "version": "Version 3.4.0",
    "type": "Type ControllerRecordUSB3",
    "synthetic": "Synthetic True",
    "desiredlowerbandwidthhertz": "DesiredLowerBandwidthHertz 0.1",
    "notchfilterfreqhertz": "NotchFilterFreqHertz None",
    "highpassfiltertype": "HighpassFilterType Bessel",
    "highpassfilterorder": "HighpassFilterOrder 2",
    "highpassfiltercutofffreqhertz": "HighpassFilterCutoffFreqHertz 250",
    "artifactsuppressionenabled": "ArtifactSuppressionEnabled True",
    "artifactsuppressionthresholdmicrovolts": "ArtifactSuppressionThresholdMicroVolts 2500",
    "absolutethresholdmicrovolts": "AbsoluteThresholdMicroVolts -70",
}
UNKNOWN = "Unrecognized parameter"
DATA = {"tcpwaveformdataoutput": "waveform", "tcpspikedataoutput": "spike"}
LINES = tuple(f"DIGITAL-IN-{i:02d}" for i in range(1, 17))


class Program:
    """What the program was told: which outputs are on, and whether it runs."""

    def __init__(self, channels: Sequence[str], sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.running, self.runs, self.timestamp, self.blocks_per_write = False, 0, -1, 10
        self.wide = dict.fromkeys((*channels, *LINES), False)
        self.spikes = dict.fromkeys(channels, False)
        self.threshold = dict.fromkeys(channels, -70)
        self.ports: dict[str, int] = {}
        self.status = dict.fromkeys(DATA.values(), "Disconnected")
        self._later = list[tuple[int, list[str]]]()
        self.listen: Callable[[str, bool], None] = lambda _name, _on: None

    @property
    def digital(self) -> list[bool]:
        """Of each line, whether it is on."""
        return [self.wide[line] for line in LINES]

    def spiking(self, channel: str) -> tuple[bool, int]:
        """Whether its spikes are sent, and the threshold in microvolts."""
        return self.spikes[channel], self.threshold[channel]

    def answer(self, text: str) -> str:
        """All that is said to what came in one send."""
        said = self._all(list(enumerate([words for words in (part.split() for part in text.split(";")) if words], 1)))
        if self._later and not self.running:
            later, self._later = self._later, []
            said += self._all(later)
        return said

    def _all(self, commands: list[tuple[int, list[str]]]) -> str:
        said = ""
        for i, (number, words) in enumerate(commands):
            ran = self.running
            said += self._one(number, words)
            if self.running and not ran:  # what came along with the run command is read when the run is over
                self._later = commands[i + 1 :]
                break
        return said

    def _one(self, number: int, words: list[str]) -> str:
        verb, *rest = (word.lower() for word in words)
        match verb, len(rest):
            case "get", 1:
                return self._get(rest[0])
            case "set", 2:
                return self._set(*rest)
            case "execute", 1:
                return self._execute(rest[0])
            case "get", _:
                return f"Error - Command {number}: Get commands require a parameter"
            case "set", _:
                return f"Error - Command {number}: Set commands require a parameter and a value"
            case "execute", _:
                return f"Error - Command {number}: Execute commands require an action"
        return f"Error - Command {number}: Unrecognized command"

    def _get(self, parameter: str) -> str:
        channel, dot, item = parameter.partition(".")
        name = channel.upper()
        if dot:
            values: dict[str, object] = {}
            if name in self.wide:
                values |= {"NativeChannelName": name, "TCPDataOutputEnabled": self.wide[name]}
            if name in self.spikes:
                values |= {"TCPDataOutputEnabledSpike": self.spikes[name], "SpikeThresholdMicroVolts": self.threshold[name]}
        else:
            now = self.timestamp if self.running else -1
            values = {"SampleRateHertz": self.sample_rate, "TCPNumberDataBlocksPerWrite": self.blocks_per_write}
            values |= {"RunMode": "Run" if self.running else "Stop"}
            for stem, which in (("TCPWaveformDataOutput", "waveform"), ("TCPSpikeDataOutput", "spike")):
                values |= {f"{stem}Host": "127.0.0.1", f"{stem}Port": self.ports.get(which, 0)}
                values |= {f"{stem}ConnectionStatus": self.status[which]}
            if parameter == "currenttimestamp":
                return f"Return: {now}"
            if parameter == "currenttimeseconds":
                return f"Return: {now / self.sample_rate if self.running else -1:g}"
            if parameter in FIXED:
                return f"Return: {FIXED[parameter]}"
        found = {key.lower(): f"Return: {key} {value}" for key, value in values.items()}
        return found.get(item if dot else parameter, UNKNOWN)

    def _set(self, parameter: str, value: str) -> str:
        channel, dot, item = parameter.partition(".")
        name = channel.upper()
        if dot and item in ("tcpdataoutputenabled", "tcpdataoutputenabledspike"):
            kept = self.wide if item == "tcpdataoutputenabled" else self.spikes
            if name not in kept:
                return UNKNOWN
            if value not in ("true", "false"):
                key = "TCPDataOutputEnabled" if kept is self.wide else "TCPDataOutputEnabledSpike"
                return f"Invalid value for {key} command. Acceptable: True;False"
            kept[name] = value == "true"
            return ""
        if item == "spikethresholdmicrovolts" and name in self.threshold:
            number = _whole(value, -5000, 5000)
            self.threshold[name] = self.threshold[name] if number is None else number
            return "Invalid value for SpikeThresholdMicroVolts command. Acceptable: [ -5000 , 5000 ]" if number is None else ""
        if channel == "filename" and dot:
            return "Filename cannot be set while controller is running." if self.running else ""
        return UNKNOWN if dot else self._set_all(parameter, value)

    def _set_all(self, parameter: str, value: str) -> str:
        if parameter == "runmode":
            return self._run(value)
        if parameter == "sampleratehertz":
            return "SampleRateHertz cannot be changed once software has started."
        if parameter == "tcpnumberdatablocksperwrite":
            if self.running:
                return "TCPNumberDataBlocksPerWrite cannot be set while controller is running."
            number = _whole(value, 1, 100)
            self.blocks_per_write = number or self.blocks_per_write
            return "" if number else "Invalid value for TCPNumberDataBlocksPerWrite command. Acceptable: [ 1 , 100 ]"
        for stem in ("TCPWaveformDataOutput", "TCPSpikeDataOutput"):
            if parameter == f"{stem}ConnectionStatus".lower():
                return f"Connection status cannot be changed through this command. Execute Connect{stem} or Disconnect{stem}"
            if parameter == f"{stem}Port".lower():
                if self.running:
                    return f"{stem}Port cannot be set while controller is running."
                return "" if value == str(self.ports[DATA[stem.lower()]]) else f"Invalid value for {stem}Port command"
        return UNKNOWN

    def _run(self, value: str) -> str:
        if value not in ("run", "stop"):
            return "Invalid value for SetRunMode command"
        if (value == "run") == self.running:
            return f"Board must be {'stopped in order to start running' if self.running else 'running in order to stop'}"
        self.running, self.timestamp = value == "run", 0
        self.runs += self.running
        return ""

    def _execute(self, action: str) -> str:
        for stem, which in DATA.items():
            if action == f"connect{stem}" and self.status[which] == "Disconnected":
                self.status[which] = "Pending"
                self.listen(which, True)
            elif action == f"disconnect{stem}":
                self.status[which] = "Disconnected"
                self.listen(which, False)
        if action == "clearalldataoutputs":
            self.wide = dict.fromkeys(self.wide, False)
            self.spikes = dict.fromkeys(self.spikes, False)
        elif action == "rescanports":
            return "RescanPorts cannot be executed while the board is running" if self.running else ""
        elif action.removeprefix("dis").removeprefix("connect") not in DATA:
            return "Unrecognized action"
        return ""


def _whole(text: str, least: int, most: int) -> int | None:
    """Of a number; None: it is none, or not within."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if least <= number <= most else None


class Outbox:
    """What waits for a client; a message that was begun is finished."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self._waiting, self._size, self._begun = deque[bytes](), 0, 0

    def put(self, message: bytes) -> None:
        """Send what can be sent; never waits.

        Raises:
            OSError: the client is gone.
        """
        self._waiting.append(message)
        self._size += len(message)
        while self._size > BUFFERED and len(self._waiting) > 2:
            at = 1 if self._begun else 0
            self._size -= len(self._waiting[at])
            del self._waiting[at]
        try:
            while self._waiting:
                self._begun += self.client.send(memoryview(self._waiting[0])[self._begun :])
                if self._begun == len(self._waiting[0]):
                    self._size -= self._begun
                    self._begun = 0
                    self._waiting.popleft()
        except BlockingIOError:
            pass


class Server:
    """The three sockets, served by one thread. All of the program is touched with the lock held."""

    def __init__(self, program: Program, lock: threading.Lock, ports: dict[str, int]) -> None:
        self.ports = dict(ports)
        self._program, self._lock = program, lock
        self._listening: dict[str, socket.socket] = {}
        self._clients: dict[str, Outbox] = {}
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Bind all three, and listen for commands.

        Raises:
            RigError: a port is taken.
        """
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, "")
        self._program.listen = self._listen
        for name, port in self.ports.items():
            bound = socket.socket()
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            self._listening[name] = bound
            try:
                bound.bind(("127.0.0.1", port))
            except OSError as error:
                self.close()
                raise RigError(f"virtual intan: expected port {port} to be free, got: {error}") from None
            self.ports[name] = bound.getsockname()[1]
        self._program.ports = self.ports
        self._listen("command", True)
        self._thread = threading.Thread(target=self._serve, name="virtual intan", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close all sockets; may be called twice."""
        thread, self._thread = self._thread, None
        if thread:
            self._wake.send(b"x")
            thread.join(2.0)
        with self._lock:
            for name in tuple(self._clients):
                self._drop(name)
            for bound in self._listening.values():
                bound.close()
            if self._listening:
                self._selector.close()
                self._wake.close()
                self._woken.close()
            self._listening = {}

    def send(self, name: str, message: bytes) -> None:
        """To the client of this socket, if there is one; called with the lock held."""
        if name in self._clients:
            try:
                self._clients[name].put(message)
            except OSError:
                self._drop(name)

    def _listen(self, name: str, on: bool) -> None:
        if not on:
            self._drop(name)
        elif self._listening[name] not in self._selector.get_map():
            self._listening[name].listen(1)
            self._selector.register(self._listening[name], selectors.EVENT_READ, name)

    def _drop(self, name: str) -> None:
        if outbox := self._clients.pop(name, None):
            self._selector.unregister(outbox.client)
            outbox.client.close()
        if name in self._program.status and self._program.status[name] == "Connected":
            self._program.status[name] = "Disconnected"

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                with self._lock:
                    if key.fileobj is self._listening[key.data]:
                        self._accept(key.data)
                    elif key.data in self._clients and key.fileobj is self._clients[key.data].client:
                        self._read(key.data)

    def _accept(self, name: str) -> None:
        try:
            client, _ = self._listening[name].accept()
        except OSError:
            return  # it left again
        if name in self._clients:  # it may have left a moment ago
            self._read(name)
        if name in self._clients or self._program.status.get(name) == "Disconnected":
            client.close()
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[name] = Outbox(client)
        self._selector.register(client, selectors.EVENT_READ, name)
        if name in self._program.status:
            self._program.status[name] = "Connected"

    def _read(self, name: str) -> None:
        try:
            data = self._clients[name].client.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(name)
        elif name == "command" and (answer := self._program.answer(data.decode("latin-1"))):
            self.send(name, answer.encode("latin-1"))
