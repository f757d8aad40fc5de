"""Lab Streaming Layer (LSL) on this machine alone, unless the lab says otherwise.

liblsl reads its settings once, when it is first used: from the file that the environment variable LSLAPICFG names, else from
lsl_api.cfg in the working folder, ~/lsl_api or /etc/lsl_api (https://labstreaminglayer.readthedocs.io/info/lslapicfg.html).
Where there is none of these, it would ask the whole site for streams; here it then asks this machine only, in a session of its
own (`SETTINGS`). A lab whose sender is another program, or elsewhere, writes such a file, with one `SessionID` for both.

Even so, liblsl listens for readers on all addresses of the machine that *sends*, and has no setting against that: what is sent
can be read by others on the network who look for it, where no firewall keeps them off.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from neurogym_v.importing import require
from neurogym_v.rigs import RigError

SETTINGS = """\
[ports]
IPv6=disable
[multicast]
ResolveScope=machine
[lab]
KnownPeers={127.0.0.1}
SessionID=neurogym-v
[tuning]
MulticastMinRTT=0.05
[log]
level=-3
"""
"""No question waits 0.5 s for an answer from far away, and liblsl does not tell of lost streams on its own: a RigError does."""
FILES = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")
"""Where else than in LSLAPICFG liblsl looks for settings."""


@cache
def library(user: str) -> Any:
    """The package pylsl, for `user` ("acquisition lsl"), set to this machine alone where the lab has set nothing.

    A program that used LSL before this is called keeps the settings it began with.

    Raises:
        NeuroGymError: pylsl is not installed.
        RigError: its library is not, or is too old to be told settings.
    """
    try:
        pylsl = require("pylsl", user=user, extra="live")
        if not os.environ.get("LSLAPICFG") and not any(Path(name).expanduser().is_file() for name in FILES):
            pylsl.set_config_content(SETTINGS)
    except (RuntimeError, AttributeError) as error:  # NotImplementedError is a RuntimeError
        reason = str(error).partition("\n")[0]
        raise RigError(
            f"{user}: expected pylsl 1.18 with liblsl, got: {reason}; pip install 'neurogym-v[live]', or set LSLAPICFG"
        ) from None
    return pylsl
