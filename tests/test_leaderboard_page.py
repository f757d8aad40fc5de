"""The page of a leaderboard in a browser: what is sorted, chosen, turned on and off, on any screen, light and dark."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from neurogym_v.benchmarks import suite
from neurogym_v.benchmarks.bench import run_all
from neurogym_v.benchmarks.engines.serial import Serial
from neurogym_v.benchmarks.leaderboard.board import POINTS, Board, board_of
from neurogym_v.benchmarks.leaderboard.build import write_all
from neurogym_v.benchmarks.leaderboard.entry import Said, entry_of
from neurogym_v.benchmarks.leaderboard.page import page as html_of
from neurogym_v.benchmarks.runs import Folder
from neurogym_v.scoring import iqm
from tests.browsing import TEXTS, contrast, opening

SUITE = """
name = "mine"
version = 1
title = "Mine"
about = "Three cells of known optimum."
citation = "no one"
agents = ["random", "cma_es", "ga:ponce2019"]
budget = 80
report_at = [40]
batch_size = 20
recommend = 2
generator = "fourier"

[[grid]]
label = "simple"
neuron = "gabor"
sites = [1, 6]
held_out = [6]
noises = ["poisson+lost:0.2", "none"]

[[grid]]
label = "complex"
neuron = "energy"
sites = [2]
noises = ["poisson+lost:0.2"]
"""
TABLE = "[...document.querySelectorAll('.board tbody tr')].map((row) => [...row.cells].map((cell) => cell.innerText))"
SHOWN = "(all) => all.map((one) => getComputedStyle(one).display !== 'none')"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    mine, folder = suite.parse(SUITE, where="mine.toml"), Folder(tmp_path_factory.mktemp("bench"))
    run_all(mine, mine.tasks(), folder, Serial())
    said = Said(date="2026-01-02", by="Ada & <Bob>", note="as published")
    return board_of(mine, [entry_of(mine, agent, folder, said) for agent in mine.agents])


@pytest.fixture(scope="module")
def file(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "mine-v1.html"
    write_all({path: html_of(board).encode()})
    return path


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Callable[..., Any]]:
    with opening(browser, file) as load:
        yield load


def column(page: Any, name: str) -> list[str]:
    """The texts of a column, without intervals."""
    heads = page.locator(".board th").all_inner_texts()
    at = [head.strip() for head in heads].index(name)
    return [row[at].split("\n")[0].replace("−", "-") for row in page.evaluate(TABLE)]


def value(text: str) -> float:
    """What a cell is sorted by: what is not known is below every number, and never above."""
    return {"–": -np.inf, "never": np.inf}.get(text) or float(text.strip("%").replace(",", "").partition("/")[0])


def test_every_choice_shows_what_a_hand_finds(opened: Any, board: Board) -> None:
    page = opened()
    tracks, kinds, held = (page.locator(f"#{name} option").evaluate_all("(all) => all.map((one) => one.value)")
                           for name in ("track", "sites", "held"))  # fmt: skip
    assert kinds == ["all", "kind:simple", "kind:complex", "site:0", "site:1", "site:2"] and held == ["all", "held", "other"]
    assert len(tracks) == 2
    sites = [("gabor", 1, "simple", False), ("gabor", 6, "simple", True), ("energy", 2, "complex", False)]
    seen = 0
    for track, kind, which in itertools.product(tracks, kinds, held):
        page.locator("#track").select_option(track)
        page.locator("#sites").select_option(kind)
        alone = kind.startswith("site:")
        assert page.locator("#held").is_disabled() == alone
        if not alone:
            page.locator("#held").select_option(which)
        noise = ("poisson+lost:0.2", "none")[int(track)]
        chosen = [
            (neuron, site)
            for at, (neuron, site, label, held_out) in enumerate(sites)
            if (kind in ("all", f"kind:{label}") and (which == "all" or held_out == (which == "held"))) or kind == f"site:{at}"
            if noise != "none" or neuron == "gabor"
        ]
        films = page.locator(".site:visible summary").all_inner_texts()
        assert [re.search(r"(\w+), site (\d+)", film).groups() for film in films] == [(n, str(s)) for n, s in chosen]  # type: ignore[union-attr]
        if not chosen:
            assert page.locator("#status").inner_text() == "no site is both" and not page.locator(".board").is_visible()
            continue
        assert page.locator("#status").inner_text() == f"{len(chosen)} site{'s' * (len(chosen) > 1)}"
        found = dict(zip(column(page, "agent"), column(page, "score at 80"), strict=True))
        scores = {}
        for agent, entry in board.entries.items():
            runs = {(r["neuron"], r["site"]): r for r in entry["runs"] if r["noise"] == noise}
            values = [runs[place]["milestones"][-1]["relative_activation"]["value"] for place in chosen]
            scores[agent] = float(stats.trim_mean(values, 0.25))
            assert scores[agent] == float(iqm(np.array(values)[:, None]))
            assert found[agent] == f"{scores[agent]:.2f}"
        assert [scores[agent] for agent in found] == sorted(scores.values(), reverse=True)
        assert column(page, "rank") == ["1", "2", "3"] and column(page, "runs") == [f"{len(chosen)}/{len(chosen)}"] * 3
        seen += 1
    assert seen > 15


def test_every_agent_is_compared_with_the_first(opened: Any, board: Board) -> None:
    page = opened()
    for choice in ("all", "kind:complex"):
        page.locator("#sites").select_option(choice)
        view = board.view(0, choice)
        assert view is not None
        shares = [view.compared.better[row.agent].value for row in view.rows[1:]]
        assert column(page, "beats 1st") == ["–", *(f"{share:.0%}" for share in shares)]
    below = page.locator("p.below").inner_text()
    assert "Friedman's test of 3 agents on 3 sites, chi squared" in below


def test_curves_are_those_of_the_choice(opened: Any, board: Board) -> None:
    page = opened()
    page.locator("#sites").select_option("kind:simple")
    view = board.view(0, "kind:simple")
    assert view is not None
    agents = [row.agent for row in board.views[0].rows]
    for chart, found in enumerate((view.reached, view.above)):
        lines = page.locator(".curves figure").nth(chart).locator("path.line")
        assert lines.count() == 3
        for at, agent in enumerate(agents):
            points = re.findall(r"([\d.]+) ([\d.]+)", lines.nth(at).get_attribute("d"))
            drawn = np.array(points, dtype=float)
            assert drawn.shape == (POINTS, 2) and (drawn[0, 0], drawn[-1, 0]) == (0, 1000)
            np.testing.assert_allclose(1 - drawn[:, 1] / 1000, found[agent], atol=0.001)
    hits = [[hit for hit in run["hits"].values()] for run in board.entries[agents[0]]["runs"] if run["noise"] != "none"]
    reached = np.mean([np.mean([hit is not None for hit in run]) for run in hits])
    assert board.views[0].reached[agents[0]][-1] == pytest.approx(reached)


def test_every_heading_sorts_and_the_order_outlives_a_choice(opened: Any) -> None:
    page = opened()
    for head in page.locator(".board th").all():
        name = head.inner_text().strip()
        head.locator("button").click()
        first = column(page, name)
        if name in ("agent", "date"):
            assert first == sorted(first)
            continue
        assert head.get_attribute("aria-sort") == "descending"
        values = [value(text) if name != "rank" else -value(text) for text in first]
        assert values == sorted(values, reverse=True), name
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert [value(text) for text in column(page, name)] == [value(text) for text in first[::-1]], name
    page.locator(".board th", has_text="area").locator("button").click()
    for choice in ("site:1", "kind:simple", "all"):
        page.locator("#sites").select_option(choice)
        values = [value(text) for text in column(page, "area")]
        assert values == sorted(values, reverse=True)


def test_the_legend_turns_curves_on_and_off(opened: Any) -> None:
    page = opened()
    toggles, charts = page.locator(".toggles li:not(.both) button"), page.locator(".curves figure")

    def on() -> list[list[bool]]:
        return [charts.nth(at).locator("path.line").evaluate_all(SHOWN) for at in (0, 1)]

    assert on() == [[True] * 3] * 2
    toggles.nth(1).click()
    assert on() == [[True, False, True]] * 2 and toggles.nth(1).get_attribute("aria-pressed") == "false"
    page.locator("#sites").select_option("kind:simple")
    assert on() == [[True, False, True]] * 2, "a choice of sites turns nothing on"
    toggles.nth(1).focus()
    page.keyboard.press("Space")
    assert on() == [[True] * 3] * 2 and toggles.nth(1).get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="none", exact=True).click()
    assert on() == [[False] * 3] * 2
    page.get_by_role("button", name="all", exact=True).click()
    assert on() == [[True] * 3] * 2


def test_images_are_there_and_say_how_well_they_do(opened: Any, board: Board) -> None:
    page = opened()
    widths = page.evaluate(
        "Promise.all([...document.querySelectorAll('.site img')].map((i) => i.decode().then(() => [i.naturalWidth, i.alt])))"
    )
    assert len(widths) == 5 * 4 and {width for width, _ in widths} == {64}
    entry = board.entries["cma_es"]["runs"][0]
    page.locator(".site").first.locator("button.frame img[alt=cma_es]").click()
    said = page.locator("dialog figcaption").inner_text()
    estimate = entry["milestones"][-1]["relative_activation"]
    assert "simple: gabor, site 1" in said
    assert f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]" in said.replace("−", "-")
    page.keyboard.press("Escape")
    natural = page.locator(".site").first.locator("li").first.inner_text().split("\n")
    assert natural == ["natural", f"{entry['test']['natural']['mean']:.1f}"]


def test_a_name_leads_to_what_the_agent_was_made_with(opened: Any) -> None:
    page = opened()
    entry = page.locator("details.entry", has_text="ga:ponce2019")
    assert entry.get_attribute("open") is None
    page.locator(".board a", has_text="ga:ponce2019").click()
    page.locator("details.entry[open]", has_text="ga:ponce2019").wait_for()
    said = entry.inner_text()
    for text in (
        "neurogym-v bench mine --agents ga:ponce2019",
        "by Ada & <Bob>",
        "as published",
        "numpy",
        "Parameters",
        "2026-01-02",
    ):
        assert text in said
    straight = opened(at="#entry-1")
    assert straight.locator("#entry-1").get_attribute("open") is not None


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 1920])
def test_it_can_be_read_at_any_width(opened: Any, width: int) -> None:
    page = opened(width=width)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    texts = page.evaluate(TEXTS)
    assert len(texts) > 150
    assert [t for t in texts if t["size"] < 12] == []
    assert [t for t in texts if t["right"] > width + 1] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(opened: Any, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    page.get_by_role("button", name="none", exact=True).click()
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    low = [t for t in page.evaluate(TEXTS) if contrast(t["colour"], t["behind"]) < 4.5]
    assert [(t["text"], t["colour"], t["behind"]) for t in low] == []


def test_all_is_reached_with_keys(opened: Any) -> None:
    page = opened()
    page.locator("#theme").focus()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().split('\\n')[0]"))
    for name in ("track", "sites", "held", "rank", "ga:ponce2019", "every"):
        assert name in reached
    page.locator("#sites").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#status").inner_text() == "2 sites"


def test_without_scripts_all_is_shown_but_nothing_moves(opened: Any, board: Board) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator(".board tbody tr").count() == 3 and page.locator(".site img").first.is_visible()
    assert not page.locator(".filters").is_visible() and not page.locator("#theme").is_visible()
    assert page.locator(".site summary").count() == 5


def test_the_data_is_the_page_of_many_small(file: Path) -> None:
    text = file.read_text()
    data = re.search(r'<script type="application/json" id="board">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    found = json.loads(data[1])
    assert len(found["views"]) < len(found["choices"]), "choices of the same sites share what they show"
    assert "://" not in text and set(re.findall(r'(?:src|href)="([^"]{5})', text)) == {"data:", "#entr"}
