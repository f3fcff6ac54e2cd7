"""The page in a real browser: no console errors, hovering shows the tensor, searching finds it, zoom is linked."""

from __future__ import annotations

import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cosma import Accelerator, Graph, Operator, Tensor, TensorKind, compile

pytest.importorskip("bokeh")
pytest.importorskip("selenium")
CHROME = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Any:
    if CHROME is None or DRIVER is None:
        pytest.skip("no Chromium with its driver here")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1300,1400")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")  # offline
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from cosma.plan.costs import estimate
    from cosma.report.html import render_html
    from cosma.studies.existing import existing_plans

    size = 8192
    names = ["<i>first</i>", *(f"relu_{i}" for i in range(30))]
    tensors = [Tensor("x", size, TensorKind.INPUT), *(Tensor(name, size) for name in names)]
    tensors.append(Tensor("y", size, TensorKind.OUTPUT))
    operators = [Operator("stem", "Conv", ("x",), (names[0],))]
    operators += [Operator(f"op{i}", "Conv", (a,), (b,)) for i, (a, b) in enumerate(pairwise(names))]
    operators.append(Operator("end", "Add", (names[-1], names[0]), ("y",)))
    plan = compile(Graph(tensors, operators, "chain" + "x" * 80), Accelerator(scratchpad="17KiB"), strategy="e2")
    path = tmp_path_factory.mktemp("browser") / "report.html"
    figures = plan.accelerator.replace(bandwidth_bytes_per_s=1e9, clock_hz=1e9, macs_per_cycle=64.0)
    page = render_html(plan, existing=existing_plans(plan), estimate=estimate(plan, figures))
    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())
    _until(browser, "return document.body.dataset.ready === 'yes' && Bokeh.documents[0].is_idle")
    time.sleep(0.5)
    return browser


def _until(browser: Any, script: str, *given: str, seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = browser.execute_script(script, *given)
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {script}")


#: Screen position of the middle of a tensor's rectangle.
WHERE = """
const map = Bokeh.documents[0].get_model_by_name('map');
const view = Bokeh.index.find_one_by_id(map.id);
const source = map.renderers.map(r => r.data_source).find(s => s.data.tensor.includes(arguments[0]));
const i = source.data.tensor.indexOf(arguments[0]);
const x = view.frame.x_scale.compute((source.data.left[i] + source.data.right[i]) / 2);
const y = view.frame.y_scale.compute((source.data.bottom[i] + source.data.top[i]) / 2);
const box = view.el.getBoundingClientRect();
return [box.x + x, box.y + y];
"""

TOOLTIP = """
const texts = [];
const walk = root => { for (const e of root.querySelectorAll('*')) {
  if (e.shadowRoot) walk(e.shadowRoot);
  if (e.classList.contains('bk-Tooltip') && e.getBoundingClientRect().width > 0)
    texts.push((e.shadowRoot ?? e).textContent); } };
walk(document);
return texts.join('|');
"""


def test_edges_never_cover_what_is_narrow(page: Any) -> None:
    """What is streamed stays visible where a step is narrower than the edge of its rectangle."""
    script = """
    const doc = Bokeh.documents[0], steps = doc.get_model_by_name('steps');
    const [end, bounds] = [steps.end, steps.bounds];
    const glyph = name => doc.get_model_by_name(name).renderers.find(r => /^(stay|stream) glyph$/.test(r.name)).glyph;
    steps.bounds = null;
    steps.end = steps.start + arguments[0];
    return new Promise(done => setTimeout(() => {
      done(['map', 'streams'].map(name => glyph(name).line_alpha.value));
      steps.end = end;
      steps.bounds = bounds;
    }, 500));
    """
    assert page.execute_script(script, 8) == [0.5, 0.5]
    assert page.execute_script(script, 500) == [0.5, 0]
    assert page.execute_script(script, 4000) == [0, 0]


def test_no_console_errors(page: Any) -> None:
    bad = [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not bad, bad


@pytest.mark.parametrize("name", ["<i>first</i>", "relu_7"])
def test_hover_shows_the_tensor(page: Any, name: str) -> None:
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    _, below = page.execute_script(WHERE, name)
    page.execute_script("window.scrollBy(0, arguments[0] - window.innerHeight / 2)", below)
    x, y = page.execute_script(WHERE, name)
    for offset in (-3, 0):
        builder = ActionBuilder(page)
        builder.pointer_action.move_to_location(int(x) + offset, int(y))
        builder.perform()
        time.sleep(0.2)
    text = _until(page, TOOLTIP)
    assert name in text
    assert "8,192 B intermediate" in text


def test_search_dims_the_rest_and_zooms_all_figures(page: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    field = page.find_element(By.ID, "search")
    field.send_keys("relu_12")
    _until(page, "return document.getElementById('found').textContent === '1 found'")
    alphas = page.execute_script(
        "const map = Bokeh.documents[0].get_model_by_name('map'); return map.renderers.filter(r =>"
        " r.data_source.data.tensor).flatMap(r => r.data_source.data.tensor.map("
        "(n, i) => [n, r.data_source.data.alpha[i]]));"
    )
    assert {round(alpha, 2) for name, alpha in alphas if name == "relu_12"} == {1.0}
    assert {round(alpha, 2) for name, alpha in alphas if name != "relu_12"} == {0.12}
    field.send_keys(Keys.ENTER)
    start, end = page.execute_script(
        "const r = Bokeh.documents[0].get_model_by_name('steps'); return [r.start, r.end];"
    )
    assert 0 < start < 13 < end < 32
    ranges = page.execute_script(
        "return ['map', 'occupancy', 'traffic'].map(n => Bokeh.documents[0].get_model_by_name(n).x_range.start);"
    )
    assert ranges == [start] * 3
    page.find_element(By.ID, "whole").click()
    assert page.execute_script("return Bokeh.documents[0].get_model_by_name('steps').end") == 32
    field.clear()
    field.send_keys(" ")
    _until(page, "return document.getElementById('found').textContent === ''")


def test_figures_are_drawn(page: Any) -> None:
    """The map's canvas holds the colours of stays, not a blank."""
    from io import BytesIO

    from selenium.webdriver.common.by import By

    matplotlib = pytest.importorskip("matplotlib.image")
    shot = matplotlib.imread(BytesIO(page.find_element(By.ID, "figures").screenshot_as_png))
    colours = {tuple(round(255 * c) for c in pixel[:3]) for row in shot[::4] for pixel in row[::4]}
    assert len(colours) > 20


def test_page_is_usable_when_printed_to_a_path_with_spaces(page: Any, tmp_path: Path) -> None:
    assert page.title == "chain" + "x" * 80 + " - cosma"
    assert page.execute_script("return document.querySelectorAll('#schedule tr').length") == 33


STORY = "const t = document.getElementById('story').innerText; return t.includes(arguments[0]) ? t : '';"

NAMES = """
const source = Bokeh.documents[0].get_model_by_name('map').renderers.at(-1).data_source;
return source.data.text;
"""


def test_names_stand_where_there_is_room(page: Any) -> None:
    """Zoomed out a step is 30 pixels wide: names upright; zoomed in they are whole."""
    shown = _until(page, NAMES)
    assert all(len(text) <= len("<i>first</i>") for text in shown)
    page.execute_script("const r = Bokeh.documents[0].get_model_by_name('steps'); r.start = 10; r.end = 16;")
    _until(page, NAMES.replace("return source.data.text", "return source.data.text.includes('relu_12')"))
    page.execute_script("document.getElementById('whole').click()")


def _click(page: Any, x: float, y: float) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    builder = ActionBuilder(page)
    builder.pointer_action.move_to_location(int(x), int(y)).click()
    builder.perform()
    ActionChains(page).reset_actions()


def test_a_click_tells_the_story(page: Any) -> None:
    page.execute_script("window.scrollTo(0, 0); document.getElementById('figures').scrollIntoView();")
    time.sleep(0.3)
    _click(page, *page.execute_script(WHERE, "relu_7"))
    text = _until(page, STORY, "relu_7")
    assert "intermediate of 8,192 B" in text
    assert "Made by op7 at step 8." in text
    assert "op8 at step 9" in text
    page.execute_script("[...document.querySelectorAll('#story a')].find(a => a.textContent === 'op8').click()")
    text = _until(page, STORY, "Conv, step 9")
    assert text.startswith("op8")
    assert "relu_7, 8192 B, at " in text
    page.execute_script("document.querySelectorAll('#tensors tr')[1].click()")
    text = _until(page, STORY, "<i>first")
    assert "Not kept from step 1 to 31" in text
    assert "7168 B short; by size, 24 KiB (24576 B) would do." in text
    assert "Who had the space then:" in text
    page.execute_script("document.getElementById('whole').click()")


def test_estimated_time_is_an_axis(page: Any) -> None:
    choose = "const a = document.getElementById('axis'); a.value = arguments[0]; a.dispatchEvent(new Event('change'));"
    read = "const r = Bokeh.documents[0].get_model_by_name('steps'); return [r.start, r.end];"
    page.execute_script(choose, "time")
    start, end = page.execute_script(read)
    # x is read, 30 Conv stages of 16 KiB at 64 bytes a nanosecond, and what is spilled and stored: under a millisecond
    assert start == 0
    assert 0.01 < end < 1.0
    lefts = page.execute_script("return views[0].data.time")
    assert lefts == sorted(lefts)
    assert end == pytest.approx(1e3 * lefts[-1])
    page.execute_script(choose, "steps")
    assert page.execute_script(read) == [0, 32]


def test_dark_and_light(page: Any) -> None:
    look = "return [getComputedStyle(document.body).backgroundColor, Bokeh.documents[0].get_model_by_name('map')" \
        ".background_fill_color];"
    light = page.execute_script(look)
    page.execute_script("document.getElementById('theme').click()")
    dark = page.execute_script(look)
    assert light == ["rgb(255, 255, 255)", "#ffffff"]
    assert dark == ["rgb(23, 25, 28)", "#17191c"]
    page.execute_script("document.getElementById('theme').click()")
    assert page.execute_script(look) == light


def test_tables_are_offered_as_csv(page: Any) -> None:
    """Numbers whole, no cell a formula."""
    buttons = page.execute_script("return [...document.querySelectorAll('button[title*=table]')].length")
    assert buttons == page.execute_script("return document.querySelectorAll('table[data-csv]').length") == 3
    cells = page.execute_script(
        "const c = document.querySelector('#operators tr:nth-child(2)').cells; return [...c].map(csvCell);"
    )
    assert cells[:5] == ["0", "stem", "Conv", "8192", "8192"]
    made = "const td = document.createElement('td'); td.textContent = arguments[0]; return csvCell(td);"
    assert page.execute_script(made, "=1+2") == "'=1+2"
    assert page.execute_script(made, 'a "b", c') == '"a ""b"", c"'
    assert page.execute_script(made, "-3") == "-3"


def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    page.refresh()
    _until(page, "return document.body.dataset.ready === 'yes' && Bokeh.documents[0].is_idle")
    time.sleep(0.3)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


NETWORK = """
const view = document.getElementById('view'); view.value = arguments[0]; view.dispatchEvent(new Event('change'));
const { boxes, lines, network } = document.getElementById('graph').drawing;
const over = [];
for (const a of boxes) for (const b of boxes)
  if (a !== b && a.column === b.column && a.y <= b.y && b.y - a.y < (a.tall + b.tall) / 2) over.push([a.y, b.y]);
return {
  operators: boxes.filter(b => b.kind === 'operator').map(b => b.members.map(i => network.nodes[i].name)),
  outside: boxes.filter(b => b.kind !== 'operator').map(b => b.value.name),
  lines: lines.map(l => [l.value.name, l.value.cost > 0, l.ways.length]), over,
  backwards: lines.flatMap(l => l.targets.filter(t => t.column <= l.source.column)).length,
};
"""
AT = """
const { drawing } = document.getElementById('graph'), box = drawing.canvas.getBoundingClientRect();
const { x, y } = eval(arguments[0]);
drawing.centre(x, y);
return [box.x + (x - drawing.left) * drawing.scale, box.y + (y - drawing.top) * drawing.scale];
"""


def test_the_network_is_drawn_and_tells_the_same_stories(page: Any) -> None:
    found = page.execute_script(NETWORK, "graph")
    assert sorted(found["operators"]) == sorted([["stem"], ["end"], *([f"op{i}"] for i in range(30))])
    assert sorted(found["outside"]) == ["x", "y"]
    assert not found["over"]
    assert found["backwards"] == 0
    # The first result waits for the last operator: its line is the one that costs, and has two readers.
    assert [line for line in found["lines"] if line[1]] == [["<i>first</i>", True, 2]]
    # The legend explains what is drawn here, and no longer the map.
    legend = "[...document.querySelectorAll('.legend > span')].filter(s => s.offsetHeight).map(s => s.textContent)"
    said = " ".join(page.execute_script(f"return {legend}"))
    assert "line in this colour" in said
    assert "spilled" not in said
    page.execute_script("document.getElementById('graph').scrollIntoView({block: 'center'})")
    time.sleep(0.3)
    _click(page, *page.execute_script(AT, "drawing.boxes.find(b => drawing.label(b)[1] === 'op7')"))
    assert _until(page, STORY, "Conv, step 8").startswith("op7")
    _click(page, *page.execute_script(AT, "drawing.lines.find(l => l.value.name === 'relu_7')"))
    assert "intermediate of 8,192 B" in _until(page, STORY, "relu_7")
    page.execute_script("[...document.querySelectorAll('#story a')].find(a => a.textContent === 'op8').click()")
    marked = "const d = document.getElementById('graph').drawing; return d.picked.box && d.label(d.picked.box)[1]"
    assert page.execute_script(marked) == "op8"
    page.execute_script("const b = document.querySelector('.graph input'); b.checked = true;"
                        "b.dispatchEvent(new Event('change'))")  # fmt: skip
    folded = page.execute_script(NETWORK, "graph")["operators"]
    assert max(map(len, folded)) == 6
    assert sorted(name for names in folded for name in names) == sorted(["stem", "end", *(f"op{i}" for i in range(30))])
    page.execute_script(NETWORK, "map")
    assert page.execute_script("return document.querySelector('.graph').offsetHeight") == 0
    assert not [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_tiles_are_one_box_of_the_network(browser: Any, tmp_path: Path) -> None:
    """So are the parts of a tensor one line; it leads from them to each tile and part."""
    from cosma.plan.tiles import untiled_name
    from cosma.report.html import render_html

    model = Path(__file__).parents[2] / "models" / "zoo" / "zoo_squeezenet.onnx"
    plan = compile(model, Accelerator(scratchpad="512KiB"), strategy="e2", dtype="int8", tiling="stripes=2")
    untiled = {untiled_name(operator) for operator in plan.graph.operators}
    assert len(untiled) < len(plan.graph.operators)
    (tmp_path / "tiled.html").write_text(render_html(plan), encoding="utf-8")
    browser.get((tmp_path / "tiled.html").as_uri())
    _until(browser, "return document.body.dataset.ready === 'yes' && Bokeh.documents[0].is_idle")
    shown = _until(browser, NAMES)
    assert set(shown) & set(plan.graph.roots)  # where a part's region has no room, its tensor
    assert not any("\u2026" in text and ":" in text for text in shown)
    found = browser.execute_script(NETWORK, "graph")
    assert {name for names in found["operators"] for name in names} == untiled
    assert not found["over"]
    assert found["backwards"] == 0
    assert len({line[0] for line in found["lines"]}) == len(found["lines"])
    choose = "const d = document.getElementById('graph').drawing; d.choose(eval(arguments[0])); return ''"
    browser.execute_script(choose, "({ box: d.boxes.find(b => d.label(b)[0].includes('\u00d7')) })")
    assert "cut into 2 tiles" in _until(browser, STORY, "cut into")
    browser.execute_script(choose, "({ line: d.lines.find(l => l.value.tensors.length > 1) })")
    assert "parts" in _until(browser, STORY, "Parts")
