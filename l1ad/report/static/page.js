"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figures = data.figures, slider = data.slider;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const options = { responsive: true, displayModeBar: false };

  function colours() {
    const style = getComputedStyle(document.documentElement);
    return { "font.color": style.getPropertyValue("--text").trim() };
  }
  const drawn = new Set();
  function draw(name) {
    if (drawn.has(name)) return;
    drawn.add(name);
    const figure = figures[name];
    figure.layout.font = Object.assign({}, figure.layout.font, { color: colours()["font.color"] });
    Plotly.newPlot(name, figure.data, figure.layout, options);
  }
  // Paper is narrower than a screen: figures take its width while printing, and the screen's again afterwards.
  function widths(layout) {
    for (const name of Object.keys(figures)) { draw(name); Plotly.relayout(name, layout); }
  }
  window.addEventListener("beforeprint", function () { widths({ autosize: false, width: 660, "font.color": "#000" }); });
  window.addEventListener("afterprint", function () {
    widths({ autosize: true, width: null, "font.color": colours()["font.color"] });
  });
  dark.addEventListener("change", function () {
    for (const name of drawn) Plotly.relayout(name, colours());
  });

  function rate(hz) {
    if (hz >= 1e6) return (hz / 1e6).toPrecision(4) + " MHz";
    return hz >= 1000 ? (hz / 1000).toPrecision(4) + " kHz" : hz.toPrecision(4) + " Hz";
  }
  function percent(x) { return x === null ? "no menu" : (100 * x).toPrecision(3) + " %"; }

  const input = document.getElementById("threshold");
  function show() {
    const i = Number(input.value), t = slider.thresholds[i];
    document.getElementById("now-threshold").textContent = t;
    document.getElementById("now-score").textContent = t / 16;
    document.getElementById("now-name").textContent = slider.names[i] || "";
    for (const kind of Object.keys(slider.rates)) {
      document.getElementById("now-" + kind).textContent = rate(slider.rates[kind][i]);
      const low = slider.low[kind][i], high = slider.high[kind][i];
      document.getElementById("now-" + kind + "-interval").textContent = rate(low) + " to " + rate(high);
    }
    for (const row of document.querySelectorAll("[data-signal]")) {
      const name = row.dataset.signal;
      row.cells[1].textContent = percent(slider.efficiencies[name].total[i]);
      if (slider.efficiencies[name].pure) {
        row.cells[2].textContent = percent(slider.efficiencies[name].pure[i]);
        row.cells[3].textContent = percent(slider.gains[name][i]);
      }
    }
    if (drawn.has("figure-rate")) {
      const line = { type: "line", xref: "x", yref: "paper", x0: t, x1: t, y0: 0, y1: 1, line: { color: "#009E73", width: 2 } };
      const fixed = figures["figure-rate"].layout.shapes0 || [];
      Plotly.relayout("figure-rate", { shapes: fixed.concat([line]) });
    }
  }
  if (input) {
    if (figures["figure-rate"]) figures["figure-rate"].layout.shapes0 = (figures["figure-rate"].layout.shapes || []).slice();
    input.addEventListener("input", show);
    for (const button of document.querySelectorAll("button[data-index]")) {
      button.addEventListener("click", function () { input.value = button.dataset.index; show(); });
    }
    show();
  }
  // The page answers from here on; the figures come one at a time, so that it keeps answering meanwhile.
  document.documentElement.dataset.interactive = Math.round(performance.now());
  const waiting = Object.keys(figures);
  function next() {
    const name = waiting.shift();
    if (name === undefined) { document.documentElement.dataset.ready = "yes"; return; }
    draw(name);
    if (name === "figure-rate" && input) show();
    setTimeout(next, 0);
  }
  setTimeout(next, 0);
})();
