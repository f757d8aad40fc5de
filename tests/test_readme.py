"""What the README shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neurogym_v.registry import AGENTS, GENERATORS, NEURONS
from neurogym_v.testing import check_agent

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_gymnasium_example_runs() -> None:
    names: dict = {}
    exec(CODE[0], names)
    assert names["info"]["rates"].shape == (40,)
    assert names["info"]["left"] == 3000 - 40
    observation, _ = names["sessions"].reset(seed=0)
    assert observation["rates"].shape == (64, 1)


def test_the_agent_example_keeps_the_contract() -> None:
    names: dict = {}
    exec(CODE[1], names)
    agent = names["HillClimber"]
    check_agent(lambda spec, batch_size, seed: agent(spec, batch_size=batch_size, seed=seed))


def test_every_part_is_mentioned() -> None:
    for name in [*AGENTS, *GENERATORS, *NEURONS]:
        assert f"`{name}`" in README


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert missing == []
