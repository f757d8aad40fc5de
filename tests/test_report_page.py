"""The page of a run in a browser: what a reader sees and does, on a phone and a wide screen, light and dark, and on paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neurogym_v.cli import main
from neurogym_v.references import load_references
from neurogym_v.render import to_pil
from tests.browsing import TEXTS, contrast, luminance, opening

LONG = "ga:ponce2019,temperature=1.00000000000000000000000000000000000000000001"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for number, image in enumerate(load_references(count=20).images):
        (folder / "photographs").mkdir(exist_ok=True)
        to_pil(image).save(folder / "photographs" / f"{number}.png")
    options = ["--neuron", "gabor", "--site", "2", "--budget", "200", "--noise", "poisson+lost:0.1"]
    agents = ["--agent", "cma_es", "--agent", LONG, "--agent", "random"]
    assert main(["run", *options, *agents, "--references", str(folder / "photographs"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def opened(browser: Any, run: Path) -> Iterator[Callable[..., Any]]:
    with opening(browser, run / "report.html") as load:
        yield load


def test_all_images_are_there(opened: Any) -> None:
    page = opened()
    widths = page.evaluate("[...document.querySelectorAll('main img')].map((i) => i.complete && i.naturalWidth)")
    assert len(widths) == 4 + 3 * (5 + 1)  # the best natural image and the finals; five rounds and the final of each
    assert set(widths) == {64}


def test_the_table_has_the_numbers_of_the_summary(opened: Any, run: Path) -> None:
    rows = opened().evaluate("[...document.querySelectorAll('tbody tr')].map((r) => [...r.cells].map((c) => c.innerText))")
    agents = sorted(json.loads((run / "summary.json").read_text())["agents"], key=lambda agent: -agent["final"]["value"])
    assert [row[0].split()[0] for row in rows] == [agent["agent"] for agent in agents]
    for row, agent in zip(rows, agents, strict=True):
        ratio, final = (agent[key] for key in ("relative_activation", "final"))
        told = [cell.replace("\n", " ").replace("−", "-") for cell in row]
        assert told[1] == f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        assert told[2] == f"{agent['expected_relative_activation']:.2f}"
        assert told[3] == f"{final['value']:.1f} [{final['low']:.1f}, {final['high']:.1f}]"
        assert told[5:7] == [str(agent["search_presentations"]), str(agent["lost_presentations"])]


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_it_can_be_read_at_any_width(opened: Any, width: int) -> None:
    page = opened(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    texts = page.evaluate(TEXTS)
    assert len(texts) > 150
    assert [t for t in texts if t["size"] < 12] == []
    assert [t for t in texts if t["right"] > width + 1] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(opened: Any, scheme: str) -> None:
    texts = opened(color_scheme=scheme).evaluate(TEXTS)
    assert [(t["text"], t["colour"], t["behind"]) for t in texts if contrast(t["colour"], t["behind"]) < 4.5] == []
    assert (luminance(texts[0]["behind"]) < 0.5) == (scheme == "dark")


def test_the_button_turns_light_to_dark_and_back(opened: Any) -> None:
    page = opened(color_scheme="light")
    colours = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
    for _ in range(2):
        page.click("#theme")
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert luminance(colours[0]) > 0.8 > 0.1 > luminance(colours[1])
    assert colours[0] == colours[2]


def test_a_click_enlarges_a_frame_and_keys_turn_the_leaves(opened: Any) -> None:
    page = opened()
    frames, large = page.locator("button.frame"), page.locator("dialog")
    assert not large.is_visible()
    frames.nth(5).click()
    assert large.is_visible()
    assert page.locator("dialog img").get_attribute("src") == frames.nth(5).locator("img").get_attribute("src")
    assert page.locator("dialog img").bounding_box()["width"] > 2 * frames.nth(5).bounding_box()["width"]
    assert "spikes/s" in page.locator("dialog figcaption").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.locator("dialog img").get_attribute("src") == frames.nth(6).locator("img").get_attribute("src")
    page.keyboard.press("Escape")
    assert not large.is_visible()
    assert frames.nth(6).evaluate("(frame) => frame === document.activeElement")
    page.keyboard.press("Enter")
    assert large.is_visible()
    page.get_by_role("button", name="next image").click()
    page.get_by_role("button", name="close").click()
    assert not large.is_visible()
    assert frames.nth(7).evaluate("(frame) => frame === document.activeElement")


def test_frames_are_reached_with_the_tab_key(opened: Any) -> None:
    page = opened()
    page.locator("button.frame").first.focus()
    page.keyboard.press("Tab")
    assert page.locator("button.frame").nth(1).evaluate("(frame) => frame === document.activeElement")
    page.keyboard.press("Space")
    assert page.locator("dialog").is_visible()


def test_a_heading_sorts_the_table(opened: Any) -> None:
    page = opened()

    def column(index: int) -> list[str]:
        cells = page.locator(f"tbody td:nth-child({index})").all_inner_texts()
        return [cell.split()[0].replace("−", "-") for cell in cells]

    head = page.locator("th", has_text="noise-free")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = [float(text) for text in column(3)]
    assert down == sorted(down, reverse=True)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(3)] == down[::-1]
    page.locator("th", has_text="agent").first.locator("button").click()
    assert column(1) == ["cma_es", LONG, "random"]
    assert head.get_attribute("aria-sort") is None


def test_it_prints(opened: Any) -> None:
    page = opened(color_scheme="dark", width=718)  # the text of an A4 page
    page.emulate_media(media="print")
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.8
    assert not page.locator("#theme").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")


def test_without_scripts_all_is_shown_but_nothing_moves(opened: Any) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("main img").count() == 22
    assert page.locator("main img").last.is_visible()
    assert not page.locator("#theme").is_visible() and not page.locator("dialog").is_visible()
