// Draws the page's curves with uPlot from the JSON that stands in it, and switches variants on and off.
"use strict";
(() => {
  const { curves, variants } = JSON.parse(document.getElementById("curves-data").textContent);
  const root = document.documentElement;
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const short = (value) => (value == null ? "–" : String(+value.toPrecision(4)));
  const charts = new Map(); // box -> chart
  const off = new Set(); // variants that are switched off

  // Lines of one chart over the steps that any of them has.
  function align(lines) {
    const steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    const place = new Map(steps.map((step, index) => [step, index]));
    const columns = lines.map((line) => {
      const column = Array(steps.length).fill(null);
      line.steps.forEach((step, index) => (column[place.get(step)] = line.values[index]));
      return column;
    });
    return [steps, ...columns];
  }

  function series(curve) {
    const lines = [], shown = [], bands = [];
    const add = (steps, values, options) => (lines.push({ steps, values }), shown.push({ spanGaps: true, ...options }));
    Object.entries(curve.lines).forEach(([variant, line]) => {
      const number = variants.indexOf(variant), colour = css(`--c${number % 10}`), show = !off.has(variant);
      const dash = number >= 10 ? [6, 4] : undefined;
      const points = { show: line.steps.length < 25, size: 5 };
      add(line.steps, line.mean, { label: variant, stroke: colour, width: 2, dash, show, points });
      if (line.low) {
        const edge = { class: "edge", width: 0, stroke: colour, show, points: { show: false } };
        add(line.steps, line.high, { ...edge, label: `${variant} most` });
        add(line.steps, line.low, { ...edge, label: `${variant} least` });
        bands.push({ series: [shown.length - 1, shown.length], fill: colour + "2b" });
      }
    });
    const steps = Object.values(curve.lines).flatMap((line) => line.steps);
    const ends = [Math.min(...steps), Math.max(...steps)];
    Object.entries(curve.levels).forEach(([name, level]) => {
      add(ends, [level, level], { label: name, stroke: css("--soft"), width: 1, dash: [2, 3], points: { show: false } });
    });
    return { data: align(lines), shown: [{ label: "step", value: (_, step) => short(step) }, ...shown], bands };
  }

  function range(curve) {
    return (chart, low, high) => {
      if (low == null) return [0, 1];
      if (low === high) return [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
      const [first, last] = curve.window || [low, high];
      const inside = Math.max(low, first) < Math.min(high, last);
      return inside ? uPlot.rangeNum(Math.max(low, first), Math.min(high, last), 0.1, false)
        : uPlot.rangeNum(low, high, 0.1, false);
    };
  }

  function draw(box) {
    const curve = curves[box.dataset.chart], width = box.clientWidth;
    if (!width) return; // inside closed details: drawn when they open
    charts.get(box)?.destroy();
    const { data, shown, bands } = series(curve);
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
    const chart = new uPlot({
      width, height: 230, series: shown, bands,
      scales: { x: { time: false }, y: { range: range(curve) } },
      axes: [{ ...axis, values: (_, steps) => steps.map((step) => step.toLocaleString("en")) },
        { ...axis, size: 64, values: (_, values) => values.map(short) }],
      cursor: { sync: { key: "step" } },
      hooks: { setSeries: [(plot, index, options) => follow(plot, index, options)] },
    }, data, box);
    charts.set(box, chart);
  }

  // The edges of a band go with its line.
  function follow(plot, index, options) {
    if (index == null || options.show == null || plot.series[index].class === "edge") return;
    for (let next = index + 1; plot.series[next]?.class === "edge"; next++) plot.setSeries(next, { show: options.show });
  }

  const drawAll = () => document.querySelectorAll(".chart").forEach(draw);

  document.querySelectorAll(".chip").forEach((chip) => chip.addEventListener("click", () => {
    const variant = variants[chip.dataset.variant], show = off.has(variant);
    show ? off.delete(variant) : off.add(variant);
    document.querySelectorAll(`[data-variant="${chip.dataset.variant}"]`).forEach((mark) => {
      mark.matches(".chip") ? mark.setAttribute("aria-pressed", show) : mark.classList.toggle("off", !show);
    });
    charts.forEach((chart) => {
      const index = chart.series.findIndex((one) => one.label === variant);
      if (index > 0) chart.setSeries(index, { show });
    });
  }));

  document.querySelectorAll("details").forEach((part) => part.addEventListener("toggle", () => {
    part.querySelectorAll(".chart").forEach(draw);
  }));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) { width = innerWidth; drawAll(); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => { root.dataset.scheme = "light"; drawAll(); });
  addEventListener("afterprint", () => { delete root.dataset.scheme; drawAll(); });
  drawAll();
})();
