"""Files that are there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neurogym_v.files import write_json, write_whole


def test_json_has_null_for_what_it_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "new" / "numbers.json"
    write_json(path, {"a": [1, float("nan"), (np.float64("inf"), 2.5)], "b": {"c": None, "d": "NaN"}})
    assert json.loads(path.read_text()) == {"a": [1, None, [None, 2.5]], "b": {"c": None, "d": "NaN"}}


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})

    def fails(_: object) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_whole(path, fails)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["numbers.json"]
