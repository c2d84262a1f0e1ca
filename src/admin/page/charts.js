// SVG charts, drawn anew at every update. The style sheet sets their colours by class.

import { s } from "./dom.js";

/** A moving average over `width` values, since single seconds vary too much to be read. */
export function smooth(series, width = 5) {
  let sum = 0;
  return series.map((value, at) => {
    sum += value - (at >= width ? series[at - width] : 0);
    return sum / Math.min(width, at + 1);
  });
}

/** The smallest round number that is at least `most`. */
export function ceiling(most) {
  if (most <= 1) return 1;
  const magnitude = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((step) => step * magnitude).find((step) => step >= most);
}

const round = (value) => Math.round(value * 100) / 100;

/** A stacked area chart. `layers`: [class, series], the lowest first. Returns the top of the scale. */
export function stack(svg, layers) {
  const length = layers[0][1].length;
  const totals = Array.from({ length }, (_, at) => layers.reduce((sum, [, series]) => sum + series[at], 0));
  const top = ceiling(Math.max(...totals));
  const x = (at) => round((at / (length - 1)) * 300);
  const y = (value) => round(100 - (value / top) * 96);
  let floor = new Array(length).fill(0);
  const paths = layers.map(([name, series]) => {
    const roof = series.map((value, at) => floor[at] + value);
    const there = roof.map((value, at) => `${x(at)},${y(value)}`).join(" ");
    const back = floor.map((value, at) => `${x(at)},${y(value)}`).reverse().join(" ");
    floor = roof;
    return s("polygon", { class: `area ${name}`, points: `${there} ${back}` });
  });
  const lines = [0.25, 0.5, 0.75, 1].map((part) => s("line", { class: "grid-line", x1: 0, x2: 300, y1: y(top * part), y2: y(top * part) }));
  svg.replaceChildren(...lines, ...paths);
  return top;
}

/** A line chart of values from 0 to 1. The line is interrupted where a value is `null`. */
export function spark(svg, series) {
  const x = (at) => round((at / (series.length - 1)) * 300);
  const y = (value) => round(38 - value * 36);
  const runs = [];
  series.forEach((value, at) => {
    if (value == null) return;
    if (at === 0 || series[at - 1] == null) runs.push([]);
    runs.at(-1).push([at, value]);
  });
  const drawn = runs.flatMap((run) => {
    const points = run.map(([at, value]) => `${x(at)},${y(value)}`).join(" ");
    return [
      s("polygon", { class: "under", points: `${x(run[0][0])},40 ${points} ${x(run.at(-1)[0])},40` }),
      s("polyline", { class: "line", points }),
    ];
  });
  svg.replaceChildren(...drawn);
}

/** A ring of arcs one after the other. `arcs`: [class, share from 0 to 1]. */
export function dial(svg, arcs) {
  const around = 2 * Math.PI * 50;
  const ring = { cx: 60, cy: 60, r: 50, "stroke-width": 11, transform: "rotate(-90 60 60)" };
  let begin = 0;
  const drawn = arcs.map(([name, share]) => {
    const arc = share > 0 && s("circle", { class: `value ${name}`, ...ring, "stroke-dasharray": `${round(around * share)} ${round(around * 2)}`, "stroke-dashoffset": round(-around * begin) });
    begin += share;
    return arc;
  });
  svg.replaceChildren(s("circle", { class: "track", ...ring }), ...drawn.filter(Boolean));
}

/** A half ring that is filled to a share from 0 to 1. */
export function gauge(share) {
  const length = Math.PI * 80;
  const path = { d: "M20 100 A80 80 0 0 1 180 100", "stroke-width": 16, "stroke-linecap": "round" };
  const filled = Math.min(1, Math.max(0, share));
  const value = filled > 0.004 && s("path", { class: filled > 0.9 ? "value full" : "value", ...path, "stroke-dasharray": `${round(length * filled)} 400` });
  return s("svg", { viewBox: "0 0 200 110", "aria-hidden": "true" }, s("path", { class: "track", ...path }), value);
}

/** A bar chart with one bar for each value. */
export function bins(values, top, label) {
  const width = 300 / values.length;
  const bar = (value, at) => {
    const height = round((Math.min(value, top) / top) * 36);
    return s("rect", { x: round(at * width), y: 36 - height, width: round(width * 0.7), height });
  };
  return s("svg", { class: "bins", viewBox: "0 0 300 36", preserveAspectRatio: "none", role: "img", "aria-label": label }, values.map(bar));
}

/** The range from median to 99th percentile, on a logarithmic scale from 1 µs to 10 s. */
export function range(p50, p99) {
  const x = (value) => round(6 + (Math.min(7, Math.max(0, Math.log10(value))) / 7) * 288);
  return s(
    "svg",
    { viewBox: "0 0 300 28", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("line", { class: "rail", x1: 6, x2: 294, y1: 14, y2: 14, "vector-effect": "non-scaling-stroke" }),
    p50 != null && s("line", { class: "span", x1: x(p50), x2: x(p99), y1: 14, y2: 14, "vector-effect": "non-scaling-stroke" }),
  );
}

/** The axis of the logarithmic scales. */
export function scale() {
  const mark = ([power, words, anchor]) => {
    const at = `${round(2 + (power / 7) * 96)}%`;
    return [s("line", { x1: at, x2: at, y1: 0, y2: 5 }), s("text", { x: at, y: 18, "text-anchor": anchor }, words)];
  };
  const marks = [[0, "1 µs", "start"], [3, "1 ms", "middle"], [6, "1 s", "middle"]];
  return s("svg", { class: "scale", "aria-hidden": "true" }, marks.flatMap(mark));
}

/** A horizontal bar that is filled to a share from 0 to 1. */
export function bar(share) {
  const width = `${round(Math.min(1, Math.max(0, share)) * 100)}%`;
  return s("svg", { "aria-hidden": "true" }, s("rect", { width, height: "100%" }));
}
