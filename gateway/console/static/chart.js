// Stacked bars over time, drawn as SVG: axes with units, a reading by pointer or arrow keys, and a table behind.

import { draw, make } from "./dom.js";
import { count, number, short } from "./format.js";
import { csvButton, table } from "./parts.js";

const HEIGHT = 184, LEFT = 52, RIGHT = 12, TOP = 20, BOTTOM = 22;

// The next of 1, 2, 5, 10, 20, ... that is large enough for three or four lines of the grid.
function step(most) {
  const raw = Math.max(most, 1e-9) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw);
}

// `points` are {label, values}; `series` {key, label, tone}, the lowest first. `unit` is of all values.
export function chart({ title, says, unit, whole = true, series, points }) {
  const total = (key) => points.reduce((sum, point) => sum + (point.values[key] ?? 0), 0);
  const heights = points.map(({ values }) => series.reduce((sum, { key }) => sum + (values[key] ?? 0), 0));
  const tick = Math.max(step(Math.max(...heights, 0)), whole ? 1 : 0);
  const most = Math.max(tick, Math.ceil(Math.max(...heights, 0) / tick - 1e-9) * tick);
  let chosen = -1;

  const when = make("p", { class: "soft" });
  const values = series.map(() => make("b", {}));
  const legend = make("ul", { class: "legend" }, series.map(({ label, tone }, index) =>
    make("li", {}, make("i", { class: `fill-${tone}` }), `${label} `, values[index]),
  ));
  const plot = draw("svg", {
    class: "plot", tabindex: "0", role: "slider", "aria-label": `${title}, ${unit}: read with the arrow keys`,
    "aria-valuemin": "0", "aria-valuemax": String(Math.max(0, points.length - 1)), "aria-valuenow": "0",
  });

  function read(index) {
    chosen = index;
    const point = points[index];
    when.textContent = point ? `${point.label} UTC` : "Total";
    series.forEach(({ key }, place) => (values[place].textContent = count(round(point ? (point.values[key] ?? 0) : total(key)), unit)));
    const text = series.map(({ key, label }) => `${label} ${number(round(point ? (point.values[key] ?? 0) : total(key)))}`);
    plot.setAttribute("aria-valuenow", String(Math.max(0, index)));
    plot.setAttribute("aria-valuetext", `${when.textContent}: ${text.join(", ")} ${unit}`);
    cursor();
  }
  const round = (value) => Math.round(value * 100) / 100;

  let width = 0;
  const slot = () => (width - LEFT - RIGHT) / Math.max(1, points.length);
  const band = draw("rect", { class: "cursor", y: TOP, height: HEIGHT - TOP - BOTTOM });
  function cursor() {
    band.setAttribute("width", chosen < 0 ? 0 : Math.max(2, slot()));
    band.setAttribute("x", LEFT + Math.max(0, chosen) * slot());
  }

  function paint() {
    const scale = (HEIGHT - TOP - BOTTOM) / most;
    const foot = HEIGHT - BOTTOM;
    const lines = [];
    for (let value = 0; value <= most + tick / 2; value += tick) {
      const y = Math.round(foot - value * scale) + 0.5;
      lines.push(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      lines.push(draw("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, short(value)));
    }
    const gap = slot() > 5 ? Math.min(4, slot() * 0.25) : slot() > 2 ? 0.5 : 0;
    const bars = points.flatMap(({ values: parts }, index) => {
      let y = foot;
      return series.filter(({ key }) => parts[key] > 0).map(({ key, tone }) => {
        const tall = parts[key] * scale;
        y -= tall;
        return draw("rect", { class: `fill-${tone}`, x: LEFT + index * slot() + gap / 2, y, width: Math.max(1, slot() - gap), height: tall });
      });
    });
    const every = Math.max(1, Math.ceil(points.length / Math.max(2, Math.floor((width - LEFT) / 90))));
    const names = points.map(({ label, tick: name = label }, index) =>
      index % every === 0 && LEFT + index * slot() < width - 50
        && draw("text", { x: LEFT + (index + 0.5) * slot(), y: HEIGHT - 6, "text-anchor": index === 0 && slot() < 60 ? "start" : "middle" }, name),
    );
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    plot.replaceChildren(...lines, ...bars, band, draw("text", { x: 14, y: 11 }, unit), ...names.filter(Boolean));
    cursor();
  }
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width || !contentRect.width) return;
    width = contentRect.width;
    paint();
  }).observe(plot);

  const pointed = (event) => Math.floor((event.clientX - plot.getBoundingClientRect().left - LEFT) / slot());
  plot.addEventListener("pointermove", (event) => {
    const index = pointed(event);
    if (index !== chosen && index >= 0 && index < points.length) read(index);
  });
  plot.addEventListener("pointerleave", () => read(-1));
  plot.addEventListener("blur", () => read(-1));
  plot.addEventListener("keydown", (event) => {
    const last = points.length - 1;
    const moves = { ArrowLeft: chosen < 0 ? last : chosen - 1, ArrowRight: chosen + 1, Home: 0, End: last, Escape: -1 };
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    read(event.key === "Escape" ? -1 : Math.min(last, Math.max(0, moves[event.key])));
  });

  const columns = [{ label: "Time (UTC)", value: ({ at, label }) => at ?? label, cell: ({ label }) => label }];
  columns.push(...series.map(({ key, label }) => ({ label: `${label} (${unit})`, number: true, value: ({ values: parts }) => round(parts[key] ?? 0) })));
  const behind = make("details", { "data-key": title }, make("summary", { "data-key": `Table of ${title}` }, "Table"), make("div", { class: "acts" }, csvButton(title, columns, () => points)));
  behind.addEventListener("toggle", () => behind.querySelector("table") ?? behind.append(table(title, columns, points)), { once: true });
  read(-1);
  const heading = make("header", {}, make("div", {}, make("h2", {}, title), says && make("p", { class: "soft" }, says)), when);
  return make("section", { class: "panel chart" }, heading, legend, plot, behind);
}

export const OUTCOMES = [
  { key: "ok", label: "Ok", tone: "ok" },
  { key: "denied", label: "Denied", tone: "warn" },
  { key: "refused", label: "Refused", tone: "idle" },
  { key: "failed", label: "Failed", tone: "bad" },
];
