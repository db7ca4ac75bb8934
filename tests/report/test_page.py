"""The page against thresholds.json, in a real browser where there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.report.content import gather, layer_rows
from l1ad.report.page import render, write_report


@pytest.fixture(scope="module")
def page(reported):
    path = reported.folder / "report.html"
    write_report(reported.content, path)
    return path, reported.content, reported.thresholds


def embedded(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def test_slider_carries_the_numbers_of_thresholds_json(page):
    path, _, thresholds = page
    slider = embedded(path)["slider"]
    for entry in thresholds["thresholds"]:
        i = slider["thresholds"].index(entry["threshold"])
        assert slider["names"][str(i)] == entry["name"]
        for kind in ("total", "pure"):
            assert slider["rates"][kind][i] == pytest.approx(entry["rates"][kind]["hz"], rel=1e-5)
            assert slider["low"][kind][i] == pytest.approx(entry["rates"][kind]["interval_68_hz"][0], rel=1e-5)
        given = thresholds["signals"]["wide"]["thresholds"][entry["name"]]
        assert slider["efficiencies"]["wide"]["pure"][i] == pytest.approx(given["pure"]["value"], rel=1e-5)
        assert slider["gains"]["wide"][i] == pytest.approx(given["gain"]["value"], rel=1e-5)


def test_page_stands_alone_and_is_small(page):
    path, _, _ = page
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 8e6
    without_library = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:|#)', without_library)
    assert "paged &lt;trigger&gt;" in text
    for needed in ("prefers-color-scheme: dark", "@media print", 'name="viewport"'):
        assert needed in text


def test_layers_and_proof_are_shown(page):
    _, content, _ = page
    rows = layer_rows(content.trigger)
    first = content.trigger.program.node("dense_1")
    assert [row.name for row in rows] == ["dense_1", "dense_2"]
    assert rows[0].sparsity == pytest.approx(np.mean(first.weights == 0))
    assert "ap_fixed&lt;6,3&gt;" in render(content)


def test_thresholds_of_another_trigger_are_refused(page, tmp_path):
    _, content, thresholds = page
    other = {**thresholds, "trigger": {"name": "x", "hash": "0" * 64}}
    with pytest.raises(InputError, match="trigger hash"):
        gather(content.trigger, other, content.zero_bias.events, {}, menu=None, run_dir=tmp_path)


def test_an_estimate_is_never_printed_as_placed(page):
    """Two tables; a figure that does not say where it is from is an estimate."""
    _, content, _ = page
    rows = [
        {"name": "tool A", "lut": 111, "provenance": "estimate of A"},
        {"name": "tool B", "lut": 222, "provenance": "open synthesis, not placed"},
        {"name": "tool C", "lut": 333},
        {"name": "tool D", "lut": 444, "provenance": "placed by Vivado 2023.2"},
    ]
    text = render(replace(content, resources=rows))
    section = re.search(r'<section id="resources">(.*?)</section>', text, re.DOTALL)[1]
    placed, estimates = section.split("<h3>Estimates, not placed</h3>")
    assert placed.startswith("<h2>Resources and latency</h2><h3>Placed</h3>")
    assert [name for name in "ABCD" if f"tool {name}" in placed] == ["D"]
    assert [name for name in "ABCD" if f"tool {name}" in estimates] == ["A", "B", "C"]
    only = render(replace(content, resources=rows[:3]))
    assert "<h3>Placed</h3>" not in only


def browser():
    found = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if found is None:
        pytest.skip("no headless browser: install the package chromium")
    return found


def dom(page_path, tmp_path, *flags: str) -> tuple[str, list[str]]:
    """The page after its scripts have run, and what it complained of."""
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=10000", *flags,
        "--dump-dom", f"file://{page_path}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return result.stdout, [line for line in result.stderr.splitlines() if ":CONSOLE" in line]


def test_on_a_phone_nothing_is_wider_than_the_screen_or_moves(page, tmp_path):
    """In a frame of 390 pixels; what is wider must scroll inside its own box, and figures find their place reserved."""
    path, _, _ = page
    tell = """<script>const before = document.documentElement.scrollHeight;
      const wait = setInterval(() => {
      if (document.documentElement.dataset.ready !== "yes") return;
      clearInterval(wait);
      parent.postMessage(JSON.stringify({
      page: document.documentElement.scrollWidth,
      grown: document.documentElement.scrollHeight - before,
      figures: [...document.querySelectorAll(".js-plotly-plot")].map(f => f.getBoundingClientRect().width)}), "*");
      }, 20);</script></body>"""
    (tmp_path / "page.html").write_text(path.read_text(encoding="utf-8").replace("</body>", tell), encoding="utf-8")
    frame = """<!DOCTYPE html><pre id="seen"></pre>
      <script>addEventListener("message", e => { document.getElementById("seen").textContent = e.data; });</script>
      <iframe src="page.html" width="390" height="800" style="border: 0"></iframe>"""
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    text, complaints = dom(tmp_path / "frame.html", tmp_path)
    assert not complaints
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', text)[1]))
    assert seen["page"] <= 390
    assert len(seen["figures"]) >= 8
    assert max(seen["figures"]) <= 390
    assert seen["grown"] == 0


def test_in_a_browser_the_slider_moves_the_numbers(page, tmp_path):
    """Press each working point's button in headless Chromium and read what the page then says."""
    path, _, thresholds = page
    script = """<script>const wait = setInterval(() => {
      if (document.documentElement.dataset.ready !== "yes") return;
      clearInterval(wait);
      const seen = [];
      for (const button of document.querySelectorAll("button[data-index]")) {
        button.click();
        seen.push([button.textContent, document.getElementById("now-threshold").textContent,
          document.getElementById("now-total").textContent,
          document.querySelector("[data-signal]").cells[1].textContent]);
      }
      const out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen);
      document.body.append(out);
      out.dataset.figures = document.querySelectorAll(".js-plotly-plot .main-svg").length;
      }, 20);</script></body>"""
    copy = tmp_path / "page.html"
    copy.write_text(path.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    text, complaints = dom(copy, tmp_path)
    assert 'data-ready="yes"' in text
    assert not complaints, complaints
    match = re.search(r'<pre id="seen" data-figures="(\d+)">(.*?)</pre>', text)
    assert int(match[1]) >= 6
    seen = json.loads(html.unescape(match[2]))
    by_name = {row[0]: row[1:] for row in seen}
    for entry in thresholds["thresholds"]:
        threshold, rate, efficiency = by_name[entry["name"]]
        assert int(threshold) == entry["threshold"]
        number, unit = rate.split()
        hz = float(number) * {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6}[unit]
        assert hz == pytest.approx(entry["rates"]["total"]["hz"], rel=1e-3)
        value = thresholds["signals"]["wide"]["thresholds"][entry["name"]]["total"]["value"]
        assert float(efficiency.split()[0]) / 100 == pytest.approx(value, rel=1e-2)
