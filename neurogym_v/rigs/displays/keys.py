"""Who may talk to a display: loopback alone, or CURVE keys (https://rfc.zeromq.org/spec/26) on both sides."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neurogym_v.importing import require
from neurogym_v.types import NeuroGymError


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """What `make_keys` writes. The two files that end in `_secret` are for nobody else's eyes."""

    server_secret: Path
    """Stays on the display's machine ..."""
    clients: Path
    """... beside this folder: the public keys of those who may connect."""
    server_public: Path
    """Goes to the client's machine ..."""
    client_secret: Path
    """... with this one."""


def make_keys(folder: Path, *, user: str = "display keys") -> KeyFiles:
    """Make a pair of keys for a display server and one for a client.

    Raises:
        NeuroGymError: there are keys in the folder already, it cannot be written to, or pyzmq is missing.
    """
    auth = require("zmq.auth", user=user, extra="live")
    files = KeyFiles(
        server_secret=folder / "server.key_secret",
        clients=folder / "clients",
        server_public=folder / "server.key",
        client_secret=folder / "client.key_secret",
    )
    try:
        files.clients.mkdir(parents=True, exist_ok=True)
        if there := [path.name for path in folder.glob("*.key*")]:  # others may rely on them
            raise NeuroGymError(f"{user}: expected a folder without keys, {folder} has {', '.join(sorted(there))}")
        for name in ("server", "client"):
            auth.create_certificates(str(folder), name)
            (folder / f"{name}.key_secret").chmod(0o600)
        (folder / "client.key").rename(files.clients / "client.key")
    except OSError as error:
        raise NeuroGymError(f"{user}: expected a folder that can be written to, got {folder} ({error.strerror})") from None
    return files


def check_address(user: str, address: str, *, keys: bool) -> None:
    """Refuse what is no address, and one beyond loopback without keys: whoever reaches it could show what they like.

    Raises:
        NeuroGymError: it is not to be used.
    """
    match = re.fullmatch(r"tcp://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.*-]+):(\d{1,5}|\*)", address)
    if not match or (match[2] != "*" and int(match[2]) > 65535):
        raise NeuroGymError(f"{user}: expected an address like tcp://127.0.0.1:5580, got {address!r}")
    if not keys and not _is_loopback(match[1].strip("[]")):
        raise NeuroGymError(
            f"{user}: expected keys for {address}, which other machines can reach, got none; make them with "
            "`neurogym-v rig keys FOLDER`, or use tcp://127.0.0.1:PORT through an ssh tunnel"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def secure_server(context: Any, socket: Any, secret_key: str, client_keys: str) -> Any:
    """Let in only those whose public keys lie in the folder `client_keys`; returns what must be stopped at the end.

    Raises:
        NeuroGymError: a file or folder is missing, or holds no key.
    """
    user = "display server"
    if not client_keys or not Path(client_keys).is_dir() or not list(Path(client_keys).glob("*.key")):
        raise NeuroGymError(f"{user}: expected a folder of public keys of clients (*.key) as client_keys, got {client_keys!r}")
    public, secret = _certificate(user, secret_key, secret=True)
    authenticator = require("zmq.auth.thread", user=user, extra="live").ThreadAuthenticator(context)
    authenticator.start()
    try:
        authenticator.configure_curve(domain="*", location=client_keys)
        socket.curve_publickey, socket.curve_secretkey, socket.curve_server = public, secret, True
    except BaseException:
        authenticator.stop()
        raise
    return authenticator


def secure_client(user: str, socket: Any, *, server_key: str, client_key: str) -> None:
    """Talk only to the server with this public key, as the client with this secret key.

    Raises:
        NeuroGymError: a file is missing, or holds no key.
    """
    socket.curve_serverkey, _ = _certificate(user, server_key, secret=False)
    socket.curve_publickey, socket.curve_secretkey = _certificate(user, client_key, secret=True)


def _certificate(user: str, path: str, *, secret: bool) -> tuple[bytes, bytes | None]:
    auth = require("zmq.auth", user=user, extra="live")
    try:
        keys: tuple[bytes, bytes | None] = auth.load_certificate(path)
    except (OSError, ValueError, IndexError):
        raise NeuroGymError(f"{user}: expected a key file made by make_keys, got {path!r}, which is none") from None
    if len(keys[0]) != 40 or (secret and len(keys[1] or b"") != 40):
        raise NeuroGymError(
            f"{user}: expected a key file{' with a secret key' if secret else ''}, got {path!r}, which has none"
        )
    return keys
