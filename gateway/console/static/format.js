// How numbers, units, times and files are written. Times are UTC; days and months are those of the zone that an answer names.

import { make } from "./dom.js";

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TWO = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const TICK = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const number = (value) => (Number.isInteger(value) ? WHOLE : TWO).format(value);
// Minutes always have two decimals.
export const minutes = (value) => TWO.format(value);
// A number at an axis.
export const short = (value) => (value < 100_000 ? TICK : SHORT).format(value);
export const sum = (parts) => Object.values(parts).reduce((total, part) => total + part, 0);

// The unit of a number: `requests`, but of 1 `request`. `count` puts the number before it.
export const unitOf = (value, unit) => (value === 1 ? unit.replace("people", "person").replace("processes", "process").replace(/(?<!s)s$/, "") : unit);
export const count = (value, unit) => `${number(value)} ${unitOf(value, unit)}`;

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
// A length of time in its two largest units: `2 h 5 min`.
export function span(seconds) {
  if (seconds < 1) return seconds > 0 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : "0 s";
  const parts = [];
  let left = Math.round(seconds);
  for (const [unit, length] of UNITS) {
    const whole = Math.floor(left / length);
    if (whole) parts.push(`${whole} ${unit}`);
    else if (parts.length) break;
    left -= whole * length;
  }
  return parts.slice(0, 2).join(" ");
}
export const since = (instant) => span(Math.max(0, (Date.now() - Date.parse(instant)) / 1000));
// A time for people: `2026-11-29 14:25:56`. The column's head or the text beside it says that it is UTC.
export const plain = (instant) => `${instant.slice(0, 10)} ${instant.slice(11, 19)}`;
export const minute = (instant) => make("time", { datetime: instant }, plain(instant).slice(0, 16));
export const time = (instant) => make("time", { datetime: instant }, plain(instant));
// Today, as `2026-11-29`, in the last of the time zones of a report.
export const today = (zones) => new Intl.DateTimeFormat("sv", { timeZone: zones.split(",").at(-1).trim() }).format(new Date());

// A spreadsheet takes a cell that begins like this as a formula (OWASP, "CSV Injection").
const FORMULA = /^ *[=+\-@\t\r＝＋－＠]/;
function cell(value) {
  if (value == null) return "";
  if (typeof value === "number") return String(value);
  const text = FORMULA.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
export const csv = (rows) => rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");

export function save(name, text, type = "text/csv") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
