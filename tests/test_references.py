"""Natural references: several hundred distinct photographs, or the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neurogym_v.references import load_references
from neurogym_v.types import NeuroGymError


def test_packages_give_several_hundred_distinct_crops_always_the_same() -> None:
    first, again = load_references(size=32), load_references(size=32)
    assert len(first.names) == len(set(first.names)) > 500
    assert first.images.shape == (len(first.names), 3, 32, 32)
    np.testing.assert_array_equal(first.images, again.images)
    thumbnails = first.images.float().mean(dim=1).flatten(1).numpy()
    correlation = np.corrcoef(thumbnails)
    np.fill_diagonal(correlation, 0)
    assert correlation.max() < 0.99
    assert len({name.partition("@")[0] for name in first.names[:60]}) >= 10


def test_a_folder_of_the_users(photographs: Path) -> None:
    references = load_references(size=16, folder=photographs)
    assert references.names == ("a.png", "b.jpg", "c.bmp")
    assert references.images.shape == (3, 3, 16, 16)
    assert load_references(size=16, folder=photographs, count=2).names == ("a.png", "b.jpg")


def test_folders_that_cannot_be_used(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(NeuroGymError, match="expected a folder of images, found none"):
        load_references(folder=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NeuroGymError, match="expected images .*found none"):
        load_references(folder=tmp_path / "empty")
    with pytest.raises(NeuroGymError, match="expected 4 images, there are 3"):
        load_references(folder=photographs, count=4)
    whole = (photographs / "a.png").read_bytes()
    (photographs / "d.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NeuroGymError, match="d.png: expected a readable picture"):
        load_references(folder=photographs)
    (photographs / "d.png").write_text("no picture")
    with pytest.raises(NeuroGymError, match="d.png: expected a readable picture"):
        load_references(folder=photographs)
