/** A service key of a backend, for itself or for a user. */

import { isToken } from "./storage.js";
import type { Call, Transport } from "./transport.js";

export class ServiceKey {
  readonly #transport: Transport;
  readonly #key: string;
  readonly #headers: Readonly<Record<string, string>>;

  /** Throws a TypeError, without the key in it, if key or user cannot be right. */
  constructor(transport: Transport, key: string, userId: string | undefined) {
    // Whoever opens a page has what is in it, and a key acts for all users.
    if ("document" in globalThis) throw new TypeError("serviceKey: a service key must not be in a web page");
    if (!isToken(key)) throw new TypeError("serviceKey must be a key as the gateway printed it: gwk_…");
    if (userId !== undefined && !isToken(userId)) throw new TypeError("actAs: the id of a user is missing");
    this.#transport = transport;
    this.#key = key;
    this.#headers = userId === undefined ? {} : { "X-Act-As": userId };
  }

  /** Send a call with the key. */
  async send<T>(call: Call): Promise<T> {
    return await this.#transport.send<T>({ ...call, headers: { ...call.headers, ...this.#headers } }, this.#key);
  }
}
