/** RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-11), and Retry-After (RFC 9110). */

/** The state of one limit after an answer. */
export interface RateLimit {
  /** Name of the limit in the gateway's policy, e.g. `tokens.mint`. */
  readonly policy: string;
  /** Units left now. */
  readonly remaining: number;
  /** Seconds in which the remaining units may be used. If none remain, seconds until there is one. */
  readonly resetS: number | undefined;
  /** Maximum number of units at once. */
  readonly quota: number | undefined;
  /** Seconds in which all units are restored. */
  readonly windowS: number | undefined;
}

type Item = { readonly value: string; readonly parameters: ReadonlyMap<string, string | number | boolean> };

/** Read both fields, in the gateway's order with the tightest limit first. A malformed field counts as missing. */
export function parseRateLimits(rateLimit: string | null, policy: string | null): RateLimit[] {
  const policies = new Map(parseList(policy ?? "").map((item) => [item.value, item.parameters]));
  const limits: RateLimit[] = [];
  for (const { value, parameters } of parseList(rateLimit ?? "")) {
    const remaining = number(parameters.get("r"));
    if (remaining === undefined) continue; // the draft requires it
    const policy = policies.get(value);
    limits.push({
      policy: value,
      remaining,
      resetS: number(parameters.get("t")),
      quota: number(policy?.get("q")),
      windowS: number(policy?.get("w")),
    });
  }
  return limits;
}

/** Return the seconds of Retry-After, which may be a date, or undefined if it is missing or malformed. */
export function parseRetryAfter(field: string | null, nowMs: number): number | undefined {
  if (field === null) return undefined;
  if (/^\s*\d{1,9}\s*$/.test(field)) return Number(field);
  const at = / GMT\s*$/.test(field) ? Date.parse(field) : Number.NaN;
  return Number.isNaN(at) ? undefined : Math.max(0, Math.ceil((at - nowMs) / 1000));
}

function number(value: string | number | boolean | undefined): number | undefined {
  return typeof value === "number" ? value : undefined;
}

// The bare items of RFC 9651 section 3.3, each anchored where the last one ended.
const STRING = /"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"/y;
const NUMBER = /-?\d{1,15}(?:\.\d{1,3})?/y;
const TOKEN = /[A-Za-z*][-!#$%&'*+.^_`|~0-9A-Za-z:/]*/y;
const BYTES = /:([A-Za-z0-9+/=]*):/y;
const BOOLEAN = /\?([01])/y;
const KEY = /[a-z*][-a-z0-9_.*]*/y;
const SEMICOLON = /; */y;
const COMMA = /[ \t]*,[ \t]*/y;

class Scanner {
  #at = 0;

  constructor(readonly text: string) {}

  get atEnd(): boolean {
    return this.#at === this.text.length;
  }

  /** Return the match of a sticky pattern here (or its group) and advance, or undefined if there is none. */
  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.text);
    if (!match) return undefined;
    this.#at = pattern.lastIndex;
    return match[1] ?? match[0];
  }
}

/** Parse an RFC 9651 list; `[]` if any part is malformed (section 4.2). Members that are not strings are omitted. */
function parseList(text: string): Item[] {
  const scanner = new Scanner(text.trim());
  const items: Item[] = [];
  while (!scanner.atEnd) {
    const quoted = scanner.take(STRING);
    const value = quoted ?? otherItem(scanner);
    if (value === undefined) return [];
    const parameters = parseParameters(scanner);
    if (parameters === undefined) return [];
    if (quoted !== undefined) items.push({ value: unescaped(quoted), parameters });
    if (scanner.atEnd) break;
    if (scanner.take(COMMA) === undefined || scanner.atEnd) return [];
  }
  return items;
}

function parseParameters(scanner: Scanner): Item["parameters"] | undefined {
  const parameters = new Map<string, string | number | boolean>();
  while (scanner.take(SEMICOLON) !== undefined) {
    const key = scanner.take(KEY);
    if (key === undefined) return undefined;
    if (scanner.take(/=/y) === undefined) {
      parameters.set(key, true);
      continue;
    }
    const quoted = scanner.take(STRING);
    const value = quoted === undefined ? otherItem(scanner) : unescaped(quoted);
    if (value === undefined) return undefined;
    parameters.set(key, value);
  }
  return parameters;
}

function otherItem(scanner: Scanner): string | number | boolean | undefined {
  const digits = scanner.take(NUMBER);
  if (digits !== undefined) return Number(digits);
  const flag = scanner.take(BOOLEAN);
  if (flag !== undefined) return flag === "1";
  return scanner.take(TOKEN) ?? scanner.take(BYTES);
}

function unescaped(quoted: string): string {
  return quoted.replace(/\\(["\\])/g, "$1");
}
