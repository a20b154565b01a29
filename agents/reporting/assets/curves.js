"use strict";
// Draws the curves with plotly.js, in the colours of the page, which follow the system.
(() => {
  const { charts, groups } = JSON.parse(document.getElementById("data").textContent);
  if (!charts.length) return;
  const hidden = new Set();
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const touch = matchMedia("(pointer: coarse)");
  const shown = new Set();
  const end = 1.03 * Math.max(...charts.flatMap((chart) => chart.curves.flatMap((each) => each.x)));

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function traces(chart) {
    const marks = chart.marks.filter((each) => !hidden.has(each.group)).map((each) => ({
      x: each.x, y: each.y, mode: "markers", name: groups.length > 1 ? groups[each.group] : "",
      marker: { size: 9, symbol: "diamond", color: colour(`--series-${each.group % 6}`), line: { width: 1.5, color: colour("--raised") } },
      hovertemplate: `test prompts %{y:.4~g}${groups.length > 1 ? "" : "<extra></extra>"}`,
    }));
    const curves = chart.curves.filter((each) => !hidden.has(each.group)).flatMap((each) => {
      const ink = colour(`--series-${each.group % 6}`);
      const several = Math.max(...each.runs) > 1;
      const line = {
        x: each.x, y: each.mean, name: groups.length > 1 ? groups[each.group] : "",
        mode: each.x.length < 40 ? "lines+markers" : "lines",
        line: { color: ink, width: 2, dash: dashes[Math.floor(each.group / 6) % dashes.length] },
        marker: { size: 4 },
        customdata: each.low.map((low, i) => [low, each.high[i], each.runs[i]]),
        hovertemplate: several
          ? "%{y:.4~g} <i>(%{customdata[0]:.4~g} to %{customdata[1]:.4~g}, %{customdata[2]} runs)</i>"
          : "%{y:.4~g}",
      };
      if (groups.length === 1) line.hovertemplate += "<extra></extra>";
      if (!several) return [line];
      const edge = { x: each.x, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
      return [
        { ...edge, y: each.low },
        { ...edge, y: each.high, fill: "tonexty", fillcolor: `${ink}2e` },
        line,
      ];
    });
    return [...curves, ...marks];
  }

  function layout() {
    const axis = {
      gridcolor: colour("--rule"), zeroline: false, exponentformat: "e", automargin: true, nticks: 5,
      fixedrange: touch.matches,
    };
    return {
      margin: { l: 36, r: 8, t: 10, b: 28 }, showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("--muted") },
      xaxis: { ...axis, range: [-0.03 * end, end], tickformat: "~s", spikecolor: colour("--muted"), spikethickness: 1, spikedash: "dot", unifiedhovertitle: { text: "%{x:,.0f} tokens" } },
      yaxis: axis, hovermode: "x unified", dragmode: touch.matches ? false : "zoom",
      hoverlabel: { bgcolor: colour("--raised"), bordercolor: colour("--rule"), font: { color: colour("--ink"), size: 12 } },
    };
  }

  function draw(chart) {
    shown.add(chart.id);
    Plotly.react(chart.id, traces(chart), layout(), { responsive: true, displayModeBar: false });
  }
  const redraw = () => charts.filter((chart) => shown.has(chart.id)).forEach(draw);

  // A chart is drawn when it is first seen: those in closed details have no size before.
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      draw(charts.find((chart) => chart.id === target.id));
    }
  }, { rootMargin: "400px" });
  for (const chart of charts) seen.observe(document.getElementById(chart.id));

  // Paper shows charts that nobody has scrolled to, too, and has a colour and a width of its own.
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("paper");
    for (const chart of charts) {
      const place = document.getElementById(chart.id);
      const { clientWidth: width, clientHeight: height } = place;
      if (!width) continue;
      draw(chart);
      for (const svg of place.querySelectorAll(".main-svg")) svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    }
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("paper");
    for (const svg of document.querySelectorAll(".plot .main-svg")) svg.removeAttribute("viewBox");
    redraw();
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const group = Number(button.dataset.group);
      const on = hidden.has(group);
      if (on) hidden.delete(group); else hidden.add(group);
      button.setAttribute("aria-pressed", String(on));
      redraw();
    });
  }
})();
