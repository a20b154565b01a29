"use strict";
// Draws the charts of a sweep with plotly.js, in the colours of the page, which follow the system.
(() => {
  const { charts } = JSON.parse(document.getElementById("data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Plotly reads a little HTML in what it shows, and settings are anybody's text.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const about = (each) => [each.name, ...each.settings].map(plain).join("<br>");

  function traces(chart) {
    const ink = colour("--series-0");
    const stepped = chart.points.length > 0;
    const lines = chart.lines.map((each) => ({
      x: each.x, y: each.y, text: each.x.map(() => about(each)), mode: stepped ? "lines" : "lines+markers", opacity: each.is_best || stepped ? 1 : .55,
      line: { color: each.is_best ? ink : colour("--muted"), width: each.is_best ? 2.4 : 1, shape: stepped ? "hv" : "linear" },
      marker: { size: 4 }, hovertemplate: "%{text}<br><b>%{y:.4~g}</b> at %{x:,}<extra></extra>",
    }));
    const points = {
      x: chart.points.map((each) => each.x), y: chart.points.map((each) => each.y),
      text: chart.points.map(about), mode: "markers",
      marker: {
        size: 9, line: { width: 1.6, color: ink },
        color: chart.points.map((each) => (each.whole ? ink : colour("--paper"))),
      },
      hovertemplate: "%{text}<br><b>%{y:.4~g}</b><extra></extra>",
    };
    return [...lines, points];
  }

  function draw(chart) {
    const axis = { gridcolor: colour("--rule"), zeroline: false, automargin: true, nticks: 6, fixedrange: matchMedia("(pointer: coarse)").matches };
    const type = chart.log ? "log" : chart.order.length ? "category" : "linear";
    const order = chart.order.length ? { categoryorder: "array", categoryarray: chart.order } : {};
    const few = chart.whole_steps && type === "linear" && chart.x_range[1] - chart.x_range[0] < 7;
    const range = (ends) => (ends ? { range: ends } : {});
    Plotly.react(chart.id, traces(chart), {
      margin: { l: 36, r: 8, t: 10, b: 28 }, showlegend: false, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("--muted") },
      xaxis: { ...axis, type, ...order, ...range(chart.x_range), ...(few ? { dtick: 1 } : {}), ...(chart.log ? { exponentformat: "e" } : {}) },
      yaxis: { ...axis, ...range(chart.y_range) },
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--rule"), font: { color: colour("--ink"), size: 12 } },
    }, { responsive: true, displayModeBar: false });
  }

  const drawAll = () => charts.forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
})();
