"""`report.html` in a real browser: `python -m pytest -m browser`, with the extra `browser` and Debian's chromium."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vae.report.page.parsed_page import Page

pytestmark = pytest.mark.browser

CONTRAST = """
() => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const below = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((found, layer) => over(layer, found), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    const shown = element.checkVisibility({checkOpacity: true}) && !element.closest(".hidden, .skip, script");
    if (!text || !shown) continue;
    const style = getComputedStyle(element);
    const ground = below(element);
    const ink = over(rgba(element.closest("svg") ? style.fill : style.color), ground);
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), text, light(ground)]);
  }
  return found;
}
"""
PICTURES = "() => [...document.querySelectorAll('canvas')].map((c) => c.dataset.kind + c.toDataURL())"
DRAWN = "() => document.querySelector('canvas')?.width > 0"
AT = "() => Number(document.getElementById('step').value)"
OVERFLOWS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def until(page: Any, holds: str) -> None:
    """Wait until a script returns true; playwright's own wait uses `eval`, which the page's policy forbids."""
    patience = time.monotonic() + 30
    while not page.evaluate(holds):
        assert time.monotonic() < patience, holds
        page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def runs(vaefit_cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, write_dataset: Any) -> Path:
    """A folder of run folders."""
    folder = tmp_path_factory.mktemp("browser")
    rng = np.random.default_rng(5)
    cells = rng.integers(0, 10, (60, 12, 12), dtype=np.uint8)
    cells[rng.random(cells.shape) < 0.7] = 0
    wide = rng.integers(0, 200, (40, 5, 30), dtype=np.uint8)
    data = write_dataset(folder / "grids.h5", grids=cells)
    other = write_dataset(folder / "wide.h5", grids=wide)
    common = ("--threads", "1")
    commands = {
        "learning": (data, "--batch-size", "8", "--iterations", "6"),
        "ignored": (data, "--batch-size", "4", "--iterations", "2", "--ignore-index", "3"),
        "diverged": (data, "--batch-size", "4", "--lr", "1e300"),
        "untrained": (other, "--batch-size", "5", "--iterations", "0"),
    }
    for name, arguments in commands.items():
        assert vaefit_cli("overfit", *arguments, *common, "--out", folder / name).code in (0, 1)
    options = ("--batch-size", "16", "--epochs", "1", "--validate-every", "2", *common)
    assert vaefit_cli("train", data, *options, "--out", folder / "trained").code == 0
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's chromium, without a window."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, runs: Path) -> Callable[..., Any]:
    """Open the page of a run; then check that it wrote nothing to the console and made no request."""

    @contextmanager
    def open_page(name: str, script: bool = True, animation: bool = True, **options: Any) -> Iterator[Any]:
        url = (runs / name / "report.html").as_uri()
        context = browser.new_context(**options, java_script_enabled=script)
        page = context.new_page()
        said: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(url)
        if script and animation:
            until(page, DRAWN)
        yield page
        assert said == []
        assert [found for found in requests if not found.startswith((url, "data:"))] == []
        context.close()

    return open_page


def test_keys_and_mouse_move_the_animation(opened: Callable[..., Any], runs: Path) -> None:
    animation = Page(runs / "learning" / "report.html").animation
    last = len(animation["frames"]) - 1
    with opened("learning") as page:
        end, label = page.evaluate(PICTURES), page.inner_text("#label")
        assert label.startswith("step 6: pixel accuracy 0.")
        assert len(end) == 3 * 8
        page.focus("#step")
        page.keyboard.press("Home")
        start = page.evaluate(PICTURES)
        assert page.inner_text("#label").startswith("step 0: ")
        assert page.get_attribute("#step", "aria-valuetext") == page.inner_text("#label")
        for before, after in zip(start, end, strict=True):
            assert (before == after) == before.startswith("target")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#label").startswith("step 1: ")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(PICTURES) == start
        page.keyboard.press("End")
        assert page.evaluate(PICTURES) == end
        page.focus("#play")  # the keys reach the slider from its neighbours too
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(AT) == last - 1
        page.keyboard.press("Home")
        assert page.evaluate(PICTURES) == start
        box = page.locator("#step").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert page.evaluate(AT) == last // 2


def test_it_plays_pauses_and_stops_at_the_end(opened: Callable[..., Any]) -> None:
    with opened("learning") as page:
        # its timer is driven from here, as a busy machine may sleep through a few frames
        page.evaluate(
            """() => {
              window.setInterval = (tick) => ((window.tick = tick), 7);
              window.clearInterval = (timer) => timer === 7 && delete window.tick;
            }"""
        )
        page.focus("#play")
        page.keyboard.press("Enter")
        assert page.get_attribute("#play", "aria-pressed") == "true"
        seen = [page.evaluate(f"() => (tick(), ({AT})())") for _ in range(2)]
        page.keyboard.press("Enter")
        assert (seen, page.evaluate("() => 'tick' in window")) == ([1, 2], False)
        assert page.get_attribute("#play", "aria-pressed") == "false"
        page.keyboard.press("Enter")
        assert [page.evaluate(f"() => (tick(), ({AT})())") for _ in range(4)] == [3, 4, 5, 6]
        assert page.get_attribute("#play", "aria-pressed") == "false"
        assert not page.evaluate("() => 'tick' in window")
        assert page.inner_text("#label").startswith("step 6: ")


def test_numbers_are_drawn_on_demand(opened: Callable[..., Any]) -> None:
    with opened("learning") as page:
        plain = page.evaluate(PICTURES)
        page.focus("#numbers")
        page.keyboard.press("Space")
        numbered = page.evaluate(PICTURES)
        assert all(before != after for before, after in zip(plain[:3], numbered[:3], strict=True))
        assert page.locator("canvas").first.bounding_box()["width"] >= 12 * 17
        # the last grid is out of sight, and drawn when it comes into it
        empty = page.locator("canvas").last
        until(page, "() => [...document.querySelectorAll('canvas')].at(-1).width === 0")
        empty.scroll_into_view_if_needed()
        until(page, "() => [...document.querySelectorAll('canvas')].at(-1).width > 0")
        page.keyboard.press("Space")
        until(page, "() => [...document.querySelectorAll('canvas')].every((c) => c.width > 0)")
        assert page.evaluate(PICTURES) == plain
        count = page.locator(".matrix td span").first
        assert count.evaluate("e => getComputedStyle(e).opacity") == "0"
        page.check("#counts")
        assert count.evaluate("e => getComputedStyle(e).opacity") == "1"


def test_a_browser_that_cannot_unpack_says_so(browser: Any, runs: Path) -> None:
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto((runs / "learning" / "report.html").as_uri())
    page.wait_for_selector("#failed", state="visible")
    assert not page.is_visible("#play")
    page.close()


def test_errors_are_where_the_captions_say(opened: Callable[..., Any], runs: Path) -> None:
    targets, ignored, frames = Page(runs / "ignored" / "report.html").pictures()
    wrong = ((targets != frames[-1]) & (ignored == 0)).sum(axis=(1, 2)).tolist()
    with opened("ignored", device_scale_factor=2) as page:
        captions = page.locator("figcaption").all_inner_texts()
        assert [caption.split(": ")[1] for caption in captions] == [f"{n} wrong" if n else "exact" for n in wrong]
        cell = page.evaluate(
            """() => [...document.querySelectorAll("canvas[data-kind=error]")].map((canvas) => {
              const copy = document.createElement("canvas");
              [copy.width, copy.height] = [canvas.width, canvas.height];
              const context = copy.getContext("2d", {willReadFrequently: true});  // chromium advises it for others
              context.drawImage(canvas, 0, 0);
              const side = canvas.width / 12, found = [];
              for (let y = 0; y < 12; y++) for (let x = 0; x < 12; x++) {
                const at = [Math.round((x + 0.5) * side), Math.round((y + 0.18) * side)];
                const [r, g, b, a] = context.getImageData(...at, 1, 1).data;
                found.push(a > 200 && r > 150 && g < 90);
              }
              return found;
            })"""
        )
        marked = np.array(cell).reshape(targets.shape)
        np.testing.assert_array_equal(marked, (targets != frames[-1]) & (ignored == 0))


@pytest.mark.parametrize("name", ["learning", "ignored", "diverged", "untrained"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(opened: Callable[..., Any], name: str, scheme: str) -> None:
    with opened(name, color_scheme=scheme) as page:
        page.check("#counts")
        page.evaluate("() => document.querySelectorAll('details').forEach((d) => (d.open = true))")
        found = page.evaluate(CONTRAST)
        assert len(found) > 150
        assert [(ratio, text) for ratio, text, _ in found if ratio < 4.5] == []
        assert all((ground > 0.4) == (scheme == "light") for _, _, ground in found)


def test_a_printed_page_is_light_and_whole(opened: Callable[..., Any]) -> None:
    with opened("learning", color_scheme="dark") as page:
        page.emulate_media(media="print")
        found = page.evaluate(CONTRAST)
        assert [(ratio, text) for ratio, text, _ in found if ratio < 4.5] == []
        assert min(ground for _, _, ground in found) > 0.4
        assert any("torch" in text for _, text, _ in found)
        assert not page.is_visible("#play")


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", ["learning", "untrained"])
def test_the_page_fits_its_window(opened: Callable[..., Any], name: str, width: int) -> None:
    with opened(name, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate(OVERFLOWS) == 0
        page.check("#numbers")
        assert page.evaluate(OVERFLOWS) == 0


@pytest.mark.parametrize("name", ["learning", "diverged", "untrained"])
def test_without_script_all_but_the_animation_is_there(opened: Callable[..., Any], runs: Path, name: str) -> None:
    result = json.loads((runs / name / "result.json").read_text())
    with opened(name, script=False) as page:
        assert page.inner_text("#verdict") == result["verdict"]
        assert page.inner_text("#reason") == result["reason"]
        assert page.inner_text("#next") == result["next"]
        assert "needs JavaScript" in page.inner_text("#animation")
        assert not page.is_visible("#play")
        for key in ("pixel_accuracy", "worst_class_accuracy", "background_share"):
            assert page.inner_text(f"data[data-key={key}]") == f"{result[key]:.4f}"
        rows = page.locator("#accuracies tbody tr").count()
        held = [c for c, n in enumerate(result["dataset"]["counts"]) if n or result["class_predicted_steps"][c]]
        assert rows == len(held)
        assert page.locator("svg.chart").count() == 2


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_training_run(opened: Callable[..., Any], runs: Path, scheme: str, width: int) -> None:
    result = json.loads((runs / "trained" / "result.json").read_text())
    with opened("trained", animation=False, color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
        assert page.inner_text("#outcome") == "Trained"
        for key in ("macro_accuracy", "worst_class_accuracy", "pixel_accuracy", "skill"):
            assert page.inner_text(f"#headline data[data-key={key}]") == f"{result[key]:.4f}"
        assert page.locator("svg.chart").count() == 2
        until(page, "() => document.querySelector('img.picture').naturalWidth > 600")
        assert page.evaluate(OVERFLOWS) == 0
        page.check("#counts")
        page.evaluate("() => document.querySelectorAll('details').forEach((d) => (d.open = true))")
        found = page.evaluate(CONTRAST)
        assert len(found) > 150
        assert [(ratio, text) for ratio, text, _ in found if ratio < 4.5] == []
        assert all((ground > 0.4) == (scheme == "light") for _, _, ground in found)
        page.emulate_media(media="print")
        printed = page.evaluate(CONTRAST)
        assert [(ratio, text) for ratio, text, _ in printed if ratio < 4.5] == []
        assert min(ground for _, _, ground in printed) > 0.4


@pytest.mark.parametrize(("name", "title"), [("learning", "LEARNING"), ("trained", "Trained")])
def test_what_the_policy_forbids_does_not_run(browser: Any, runs: Path, tmp_path: Path, name: str, title: str) -> None:
    source = (runs / name / "report.html").read_text(encoding="utf-8")
    injected = "<script>document.title = 'taken'</script><img src='https://example.org/x.png' onerror='alert(1)'>"
    file = tmp_path / "injected.html"
    file.write_text(source.replace("<main>", f"<main>{injected}"), encoding="utf-8")
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    if name == "learning":
        until(page, DRAWN)
    assert page.title().startswith(title)
    assert sum("Content Security Policy" in text for text in said) >= 2
    page.close()
