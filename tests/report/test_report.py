"""The report of a comparison: its figures, its plots, and the page as a browser shows it."""

from __future__ import annotations

import base64
import csv
import functools
import io
import itertools
import json
import math
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import tiny_packages
from helpers.reproductions import table8
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.facts import DeviceFacts
from tvm_shufflenet.errors import BadInput, PeerFailed
from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.hardware.boards import find_board
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.latency import Latency
from tvm_shufflenet.models import find_model
from tvm_shufflenet.packages.manifest import Argument, Manifest, OperatorEntry
from tvm_shufflenet.profiling.result import OperatorCost, Profile, Work
from tvm_shufflenet.profiling.roofline import limit_us, roofline, roofs_of, tensor_bytes
from tvm_shufflenet.report import plots, sections
from tvm_shufflenet.report.comparison_page import Commands, comparison_page
from tvm_shufflenet.report.reproduction_page import reproduction_page
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.records.journal import Trial
from tvm_shufflenet.tuning.search.curve import Curve
from tvm_shufflenet.workflow.compare import Comparison
from tvm_shufflenet.workflow.contest import OURS, UNTUNED, Contest, Contestant
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.schedules import open_records
from tvm_shufflenet.workflow.tune import tune_network

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
LOCAL = DeviceFacts("local", "measured")
A72 = DeviceFacts("emulated:cortex-a72", "modelled", 4.7)
HOSTILE = "<script>alert(1)</script>&\"'"
COMMANDS = Commands("tvm-shufflenet compare --html x.html", "tvm-shufflenet tune", "tvm-shufflenet profile p")


def operator(name: str, multiply_adds: int = 10**6, calls: int = 1, schedule: str = "record") -> OperatorEntry:
    shapes = (Argument((1, 10, 10, 10), "float32"), Argument((1, 10, 10, 10), "float32"))
    return OperatorEntry(name, calls, schedule, None, None, multiply_adds, shapes)


ENTRIES = (operator("pointwise", calls=3), operator("depthwise", 10**5), operator("pooling", 0, schedule="none"))


def manifest(model: str) -> Manifest:
    return tiny_packages.manifest(
        (1, 3, 32, 32), (1, 10), plan=f"model   {model}", model=model, target="local", machine="x86_64", tuned=True,
        operators=ENTRIES, activation_bytes=10**6, weight_bytes=4 * 10**6,
    )  # fmt: skip


def latency(kind: str, *ms: float) -> Latency:
    return Latency(tuple(1e3 * value for value in ms), kind)


def comparison(device: DeviceFacts, model: str = "net", peers: tuple[Contestant, ...] = ()) -> Comparison:
    kind = device.kind
    untuned, tuned = latency(kind, 60, 61, 66), latency(kind, 2, 2.1, 2.5)
    ours = (Contestant(OURS, "TVM", tuned, 1e-7), Contestant(UNTUNED, "TVM", untuned, 1e-7))
    contest = Contest(model, device, 1, 1e-4, (*ours, *peers)) if peers else None
    return Comparison(manifest(model), device, 1, untuned, tuned, 1e-7, contest)


def profile(device: dict, model: str = "net") -> Profile:
    times = (1500.0, 400.0, 100.0)
    works = [None] * 3
    peak = None
    if device.kind == "modelled":
        works = [Work(1.8e3 * us, 1000, lines, 64000, 64 * lines, {"DRAM": 1.8e3 * us}) for us, lines in
                 zip(times, (9000, 0, 100), strict=True)]  # fmt: skip
        peak = 4
    costs = tuple(itertools.starmap(OperatorCost, zip(ENTRIES, times, works, strict=True)))
    return Profile(manifest(model), device, 1, latency(device.kind, 2), costs, 1e-7, None, peak)


def curve(name: str, strategy: str, *seconds: float | None) -> Curve:
    trials = [Trial("1", str(n), strategy, "local", "measured", "0.27", seconds=s) for n, s in enumerate(seconds)]
    return Curve.of(name, 1, strategy, trials)


CURVES = [
    curve("pointwise", "template", None, 9e-4, 7e-4, 8e-4, 5e-4),
    curve("pointwise", "ansor", 3e-3, 2e-3, 2e-3),
    curve("depthwise", "template", 4e-4),
    curve("pooling", "ansor", None, None),
    *(curve(f"other{number}", "template", 1e-4, 9e-5) for number in range(sections.FIRST)),
]
PEERS = (
    Contestant("onnxruntime", "1.31.1", latency("measured", 3, 3.2, 4), 1e-7),
    Contestant("ncnn", "1.0", failure=PeerFailed(f"ncnn died: {HOSTILE}")),
)


@functools.cache
def measured_page(model: str = "net"):
    return comparison_page(comparison(LOCAL, model, PEERS), profile(LOCAL, model), CURVES, 10**6, COMMANDS)


@functools.cache
def modelled_page():
    return comparison_page(comparison(A72), profile(A72), CURVES, 10**6, COMMANDS)


class TestCurves:
    @given(st.lists(st.none() | st.floats(1e-7, 1.0), min_size=1))
    def test_best_so_far(self, seconds):
        found = curve("operator", "template", *seconds)
        assert len(found.best_us) == len(seconds) and found.failed == seconds.count(None)
        for number, best in enumerate(found.best_us, start=1):
            so_far = [1e6 * second for second in seconds[:number] if second is not None]
            assert best == min(so_far, default=None)
        assert found.gain is None if found.failed == len(seconds) else found.gain >= 1


class TestRoofline:
    def test_of_an_emulated_core_bytes_are_what_went_to_memory(self):
        line = roofline(profile(A72))
        assert [dot.operator for dot in line.dots] == ["pointwise", "depthwise"] and line.silent == ("pooling",)
        assert line.dots[0].macs_per_byte == 3e6 / (64 * 9000) and math.isinf(line.dots[1].macs_per_byte)
        assert line.dots[0].gmacs_per_second == pytest.approx(2.0)

    def test_roofs_are_the_models(self):
        board = find_board("cortex-a72")
        roofs = roofs_of(board)
        assert roofs.peak == 4 * 1.8 and roofs.memory == 64 / board.dram_line_ns
        assert roofs.at(roofs.ridge) == pytest.approx(roofs.peak) == roofs.at(math.inf)
        assert roofs.at(roofs.ridge / 2) == pytest.approx(roofs.peak / 2)
        assert roofs_of(board, 2).peak == 2 * roofs.peak and roofs_of(board, 2).memory == roofs.memory

    def test_of_a_measured_one_every_tensor_counts_once_a_call(self):
        found = profile(LOCAL)
        assert tensor_bytes(found.operators[0].entry) == 2 * 4000
        assert roofline(found).roofs is None and roofline(found).dots[0].macs_per_byte == 3e6 / 24000

    def test_a_modelled_board_takes_at_least_what_its_units_and_its_memory_do(self):
        board, (entry, *_) = find_board("cortex-a72"), (row.entry for row in profile(A72).operators)
        peak_us = entry.multiply_adds / roofs_of(board).peak / 1e3
        assert limit_us([entry], board) == pytest.approx(entry.occurrences * peak_us)
        assert limit_us([entry, entry], board, 2) == pytest.approx(entry.occurrences * peak_us)
        weights = Argument((board.core.l2.bytes,), "float32")
        large = msgspec.structs.replace(entry, arguments=(weights,), multiply_adds=1, occurrences=1)
        assert limit_us([large], board) == pytest.approx(3 * board.core.l2.bytes / roofs_of(board).memory / 1e3)
        assert A72.board is board and LOCAL.board is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 2000.0, [1, 10, 100, 1000]),
        (2.1, 8.9, None),
        (3.1, 3.4, None),
        (0.0201, 0.0498, None),
        (1e-9, 1e9, None),
    ],
)
def test_a_logarithmic_axis_has_labels_wherever_it_ends(low, high, expected):
    ticks = plots.log_ticks(low, high)
    assert 2 <= len(ticks) <= plots.TICKS + 2 and all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(ticks) and (expected is None or ticks == pytest.approx(expected))
    assert len({f"{tick:g}" for tick in ticks}) == len(ticks), "labels of their own"


def test_the_roofline_of_alike_operators_has_labels():
    """All within a decade, none of which a power of ten lies in."""
    found = profile(LOCAL)
    rows = tuple(replace(row, time_us=time) for row, time in zip(found.operators, (310.0, 315.0, 320.0), strict=True))
    svg = sections.roofs(replace(found, operators=rows), "command").plot
    labels = re.findall(r"<text[^>]*>\s*([\d.]+)\s*</text>", svg)
    assert len(labels) >= 4, labels


class TestTables:
    def test_csv_is_the_table(self):
        section = sections.latency(comparison(LOCAL, peers=PEERS), "command")
        rows = list(csv.DictReader(io.StringIO(section.table.csv())))
        assert [row["name"] for row in rows] == ["ours, tuned", "TVM untuned", "onnxruntime", "ncnn"]
        assert rows[0]["median_ms"] == "2.1" and rows[2]["version"] == "1.31.1" and rows[3]["median_ms"] == ""
        assert float(rows[2]["times_ours"]) == pytest.approx(3.2 / 2.1) and HOSTILE in rows[3]["failure"]
        assert base64.b64decode(section.table.link.partition(",")[2]).decode() == section.table.csv()

    def test_a_curves_table_has_what_was_better_the_first_and_the_last(self):
        (first, _) = sections.tuning(CURVES, profile(LOCAL), "command")
        rows = [row[2:4] for row in first.table.rows if row[:2] == ("pointwise", "template")]
        assert [number for number, _ in rows] == [1, 2, 3, 5] and rows[-1][1] == pytest.approx(500)

    def test_without_a_journal_there_is_the_command_that_leaves_one(self):
        (only,) = sections.tuning([], profile(LOCAL), "tvm-shufflenet tune")
        assert only.plot is None and only.table is None and only.command == "tvm-shufflenet tune"


def plots_of(page) -> dict[str, str]:
    return {section.name: section.plot for section in page.sections if section.plot}


class TestPlots:
    @pytest.mark.parametrize("make", [measured_page, modelled_page], ids=["measured", "modelled"])
    def test_well_formed_in_the_pages_colours_with_words_for_who_cannot_see(self, make):
        found = plots_of(make())
        assert list(found) == ["latency", "roofline", "tuning", "tuning-others"]
        for name, svg in found.items():
            root = ElementTree.fromstring(svg)
            assert root.get("role") == "img" and root.get("aria-labelledby") == f"{name}-title {name}-text"
            assert root.find("title").text and len(root.find("desc").text) > len(root.find("title").text)
            colours = set(re.findall(r"#[0-9a-f]{6}", svg))
            assert "var(--ink)" in svg and not colours & set(plots.COLOURS.values())
            for target in re.findall(r'(?:href="#|url\(#)([^")]+)', svg):
                assert f'id="{target}"' in svg

    def test_ids_are_unique_in_a_page(self):
        ids = Counter(re.findall(r'\bid="(.*?)"', measured_page().html("x")))
        assert ids and max(ids.values()) == 1

    def test_modelled_is_drawn_otherwise_than_measured(self):
        measured, modelled = plots_of(measured_page()), plots_of(modelled_page())
        assert "<pattern" in modelled["latency"] and "<pattern" not in measured["latency"]
        assert "stroke-dasharray" in modelled["tuning"] and "stroke-dasharray" not in measured["tuning"]
        for kind, found in (("modelled", modelled), ("measured", measured)):
            assert f">ms, {kind}<" in found["latency"] and f">GMAC/s, {kind}<" in found["roofline"]

    def test_the_same_figures_make_the_same_plot(self):
        assert sections.roofs(profile(A72), "").plot == plots_of(modelled_page())["roofline"]


class TestPage:
    def test_hostile_names_are_words(self):
        text = measured_page(HOSTILE).html("x")
        assert text.count("<script>") == 1 and "alert(1)" in text

    def test_nothing_is_fetched(self):
        text = measured_page().html("x")
        addresses = set(re.findall(r'(?:src|href)="([^"]*)"', text)) | set(re.findall(r"url\(([^)]*)\)", text))
        assert addresses and all(address.startswith(("#", "data:")) for address in addresses)

    def test_csv_files_stand_beside_it(self, tmp_path):
        written = measured_page().write(tmp_path / "report.html")
        assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
        assert {path.name for path in written} == {
            "report.html", "report-latency.csv", "report-operators.csv", "report-roofline.csv", "report-tuning.csv",
            "report-tuning-others.csv", "report-memory.csv",
        }  # fmt: skip

    def test_where_nothing_can_be_written(self, tmp_path):
        with pytest.raises(BadInput, match="cannot write"):
            measured_page().write(tmp_path / "none" / "report.html")


# In a browser


def chromium() -> str:
    """The system's, which ``tools/system-packages.sh tests`` installs. Where it has to be there, nothing is skipped."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and not os.environ.get("TVM_SHUFFLENET_NEED_CHROMIUM"):
        pytest.skip("no Chromium here: tools/system-packages.sh tests")
    assert found, "no Chromium here: tools/system-packages.sh tests"
    return found


@pytest.fixture(scope="module")
def browser():
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Of a real comparison on the emulated core, after a short search: the page, with its JSON beside it."""
    if MISSING:
        pytest.skip(f"missing: {', '.join(MISSING)}")
    folder = tmp_path_factory.mktemp("report")
    (folder / "unit.py").write_text(
        "from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit\n"
        "def unit():\n    return ShuffleUnit(48, 48, 3, 1, 3)\n"
    )
    spec, target = f"{folder}/unit.py:unit", find_target("cortex-a72")
    imported = import_model(find_model(spec, input_shape=(1, 48, 14, 14)))
    store = open_records(target, folder / "records")
    with find_device("emulated", target) as device:
        settings = {"strategy": "template", "trials": 4, "seed": 0, "on_progress": lambda progress: None}
        tune_network(fuse(imported.module, target), device, store, **settings)
    words = f"--model {spec} --input-shape 1,48,14,14 --target cortex-a72 --records {folder}/records"
    files = f"--json {folder}/report.json --html {folder}/report.html"
    assert cli.main(["compare", *words.split(), *files.split()]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def pages(report, tmp_path_factory) -> dict[str, Path]:
    """The real one, which is modelled, and one with everything that a measured one can have."""
    made = tmp_path_factory.mktemp("made") / "made.html"
    measured_page(f"a name with a hostile part {HOSTILE}").write(made)
    reproduced = made.with_name("reproduced.html")
    reproduction_page(table8(), "tvm-shufflenet reproduce table8").write(reproduced)
    return {"modelled": report, "measured": made, "reproduced": reproduced}


def opened(browser, path: Path, width: int = 1280, scheme: str = "light"):
    """The page, and a list that fills with whatever it complains of or asks the network for."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: asked.url == path.as_uri() or complaints.append(asked.url))
    page.goto(path.as_uri())
    return page, complaints


@pytest.mark.slow
class TestRealReport:
    def test_its_figures_are_those_of_the_json(self, report):
        facts = json.loads(report.with_suffix(".json").read_text())
        with open(report.with_name("report-latency.csv")) as file:
            rows = {row["name"]: float(row["median_ms"]) for row in csv.DictReader(file)}
        for csv_name, name in (("ours, tuned", "tuned"), ("TVM untuned", "untuned")):
            assert rows[csv_name] == pytest.approx(facts["latency_us"][name]["median"] / 1e3)
        with open(report.with_name("report-operators.csv")) as file:
            times = [float(row["time_us"]) for row in csv.DictReader(file)]
        assert sum(times) == pytest.approx(facts["latency_us"]["tuned"]["median"], rel=0.05)

    def test_its_curves_are_the_journals(self, report):
        lines = (report.parent / "records" / "trials.jsonl").read_text().splitlines()
        text = report.read_text()
        assert f"{len(lines)} trials, " in text and f"--strategy template --trials {len(lines)}" in text

    def test_small_and_alone(self, report):
        assert report.stat().st_size < 3e6


WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["modelled", "measured", "reproduced"])
class TestBrowser:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("device", WIDTHS)
    def test_how_it_looks(self, browser, pages, which, device, scheme, tmp_path):
        page, complaints = opened(browser, pages[which], WIDTHS[device], scheme)
        page.screenshot(path=tmp_path / f"{which}-{device}-{scheme}.png", full_page=True)
        assert complaints == []
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device]
        with Image.open(tmp_path / f"{which}-{device}-{scheme}.png") as shot:
            grey = shot.convert("L")
        (dark, light), corner = grey.getextrema(), grey.getpixel((0, 0))
        assert light - dark > 150 and (corner > 200) == (scheme == "light")
        for plot in page.query_selector_all("svg.plot"):
            box = plot.bounding_box()
            assert box["width"] > 0.85 * min(WIDTHS[device], 600) - 40
            assert box["x"] >= 0 and box["x"] + box["width"] <= WIDTHS[device]
        page.context.close()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_labels_and_contrast(self, browser, pages, which, scheme):
        from axe_playwright_python.sync_playwright import Axe

        page, _ = opened(browser, pages[which], scheme=scheme)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        found = Axe().run(page).response
        assert [(bad["id"], bad["nodes"][0]["html"][:200]) for bad in found["violations"]] == []
        assert "color-contrast" in {rule["id"] for rule in found["passes"]}
        page.context.close()

    def test_text_in_plots_can_be_read(self, browser, pages, which):
        """axe does not look into plots: contrast of their text, and its size on a phone."""
        for scheme in ("light", "dark"):
            page, _ = opened(browser, pages[which], WIDTHS["phone"], scheme)
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            texts = page.evaluate(
                """[...document.querySelectorAll("svg.plot text")].map((text) =>
                    [getComputedStyle(text).fill, text.getBoundingClientRect().height])"""
            )
            assert len(texts) > 10
            for fill, height in texts:
                assert contrast(fill, paper) >= 4.5 and height >= 9
            page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["modelled", "measured"])
class TestReading:
    def test_a_column_sorts_by_mouse_and_by_keyboard(self, browser, pages, which):
        page, _ = opened(browser, pages[which])
        head = page.locator("#operators th", has_text="us").first
        other = page.locator("#operators th").first

        def column(cell: int) -> list[str]:
            return page.locator(f"#operators tbody td:nth-child({cell})").all_inner_texts()

        times = column(3)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert column(3) == sorted(times, key=float, reverse=True)
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "ascending" and column(3) == sorted(times, key=float)
        other.locator("button").focus()
        page.keyboard.press("Space")
        assert other.get_attribute("aria-sort") == "ascending" and head.get_attribute("aria-sort") == "none"
        assert column(1) == sorted(column(1)) and sorted(column(3)) == sorted(times)
        assert "sorted by operator" in page.locator("#said").inner_text()
        page.context.close()

    def test_the_csv_that_it_offers_is_the_file_beside_it(self, browser, pages, which):
        page, _ = opened(browser, pages[which])
        with page.expect_download() as download:
            page.locator("#latency a[download]").click()
        beside = pages[which].with_name(f"{pages[which].stem}-latency.csv")
        assert download.value.suggested_filename == beside.name
        assert Path(download.value.path()).read_text() == beside.read_text()
        page.context.close()


def contrast(one: str, other: str) -> float:
    """Of two colours as a browser writes them, as WCAG 2 defines it."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
