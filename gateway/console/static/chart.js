// Stacked bars over time, drawn as SVG: axes with units, a reading by pointer or arrow keys, and a table behind.

import { draw, make, replace } from "./dom.js";
import { number, short } from "./format.js";
import { csvButton, table } from "./parts.js";

const HEIGHT = 184, LEFT = 52, RIGHT = 12, TOP = 20, BOTTOM = 22;
const FOOT = HEIGHT - BOTTOM, TALL = FOOT - TOP;

// The next of 1, 2, 5, 10, 20, ... that is large enough for three or four lines of the grid.
function step(most) {
  const raw = Math.max(most, 1e-9) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw);
}
const round = (value) => Math.round(value * 100) / 100;

// `points` are {label, tick?, at?, values}; `series` {key, label, tone}, the lowest first. `unit` is that of all values,
// `zone` that of the labels. The element has a method `show` for other points.
export function chart({ title, says, unit, zone = "UTC", whole = true, series, points }) {
  let chosen = -1, width = 0, tick, most;
  const slot = () => (width - LEFT - RIGHT) / Math.max(1, points.length);
  const total = (key) => points.reduce((sum, { values }) => sum + (values[key] ?? 0), 0);

  const when = make("p", { class: "soft" });
  const values = series.map(() => make("b", {}));
  const legend = make("ul", { class: "legend" }, series.map(({ label, tone }, index) =>
    make("li", {}, make("i", { class: `fill-${tone}` }), `${label} `, values[index]),
  ));
  const plot = draw("svg", { class: "plot", tabindex: "0", role: "slider", "data-key": `plot ${title}`, "aria-label": `${title}, ${unit}: read with the arrow keys`, "aria-valuemin": "0" });
  const band = draw("rect", { class: "cursor", y: TOP, height: TALL });

  function read(index) {
    chosen = index;
    const point = points[index];
    const numbers = series.map(({ key }) => round(point ? (point.values[key] ?? 0) : total(key)));
    const at = point?.label ?? "Total";
    when.textContent = `${at} (${unit})`;
    numbers.forEach((one, place) => (values[place].textContent = number(one)));
    plot.setAttribute("aria-valuenow", String(Math.max(0, index)));
    plot.setAttribute("aria-valuetext", `${at}${point ? ` ${zone}` : ""}: ${series.map(({ label }, place) => `${label} ${number(numbers[place])}`).join(", ")} ${unit}`);
    band.setAttribute("width", chosen < 0 ? 0 : Math.max(2, slot()));
    band.setAttribute("x", LEFT + Math.max(0, chosen) * slot());
  }

  function lines() {
    const found = [];
    for (let value = 0; value <= most + tick / 2; value += tick) {
      const y = Math.round(FOOT - (value / most) * TALL) + 0.5;
      found.push(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      found.push(draw("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, short(value)));
    }
    return found;
  }

  function bars() {
    const gap = slot() > 5 ? Math.min(4, slot() * 0.25) : slot() > 2 ? 0.5 : 0;
    return points.flatMap(({ values: parts }, index) => {
      let y = FOOT;
      return series.filter(({ key }) => parts[key] > 0).map(({ key, tone }) => {
        const height = (parts[key] / most) * TALL;
        y -= height;
        return draw("rect", { class: `fill-${tone}`, x: LEFT + index * slot() + gap / 2, y, width: Math.max(1, slot() - gap), height });
      });
    });
  }

  function times() {
    const every = Math.max(1, Math.ceil(points.length / Math.max(2, Math.floor((width - LEFT) / 90))));
    return points.map(({ label, tick: name = label }, index) => {
      const x = LEFT + (index + 0.5) * slot();
      return index % every === 0 && x < width - 30 && draw("text", { x, y: HEIGHT - 6, "text-anchor": "middle" }, name);
    });
  }

  function paint() {
    if (!width) return;
    const highest = Math.max(0, ...points.map(({ values: parts }) => series.reduce((sum, { key }) => sum + (parts[key] ?? 0), 0)));
    tick = Math.max(step(highest), whole ? 1 : 0.01);
    most = Math.max(tick, Math.ceil(highest / tick - 1e-9) * tick);
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    replace(plot, lines(), bars(), band, draw("text", { x: 14, y: 11 }, unit), times());
    read(chosen);
  }
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    paint();
  }).observe(plot);

  plot.addEventListener("pointermove", ({ clientX }) => {
    const index = Math.floor((clientX - plot.getBoundingClientRect().left - LEFT) / slot());
    if (index !== chosen && index >= 0 && index < points.length) read(index);
  });
  for (const left of ["pointerleave", "blur"]) plot.addEventListener(left, () => read(-1));
  plot.addEventListener("keydown", (event) => {
    const last = points.length - 1;
    const moves = { ArrowLeft: chosen < 0 ? last : chosen - 1, ArrowRight: chosen + 1, Home: 0, End: last, Escape: -1 };
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    read(event.key === "Escape" ? -1 : Math.min(last, Math.max(0, moves[event.key])));
  });

  const columns = [{ label: `Time (${zone})`, value: ({ at, label }) => at ?? label, cell: ({ label }) => label }];
  columns.push(...series.map(({ key, label }) => ({ label: `${label} (${unit})`, number: true, value: ({ values: parts }) => round(parts[key] ?? 0) })));
  const rows = make("div", {});
  const behind = make("details", {}, make("summary", { "data-key": `Table of ${title}` }, "Table"), make("div", { class: "acts" }, csvButton(title, columns, () => points)), rows);
  const list = () => behind.open && replace(rows, table(title, columns, points));
  behind.addEventListener("toggle", list);

  const show = (next) => {
    points = next;
    plot.setAttribute("aria-valuemax", String(Math.max(0, points.length - 1)));
    read(Math.min(chosen, points.length - 1));
    paint();
    list();
  };
  show(points);
  const heading = make("header", {}, make("div", {}, make("h2", {}, title), says && make("p", { class: "soft" }, says)), when);
  return Object.assign(make("section", { class: "panel chart" }, heading, legend, plot, behind), { show });
}

export const OUTCOMES = [
  { key: "ok", label: "Ok", tone: "ok" },
  { key: "denied", label: "Denied", tone: "warn" },
  { key: "refused", label: "Refused", tone: "idle" },
  { key: "failed", label: "Failed", tone: "bad" },
];
