/**
 * A client under remote control, for tests/e2e/test_typescript_client.py.
 *
 * Each line in is a JSON list, a command and its arguments; each line out is `{ value }` or `{ error }`.
 */

import { createInterface } from "node:readline";
import { HMSServiceClass, type Session, memoryStorage } from "@hms-gateway/client";

const storage = memoryStorage();
const lost: string[] = [];
const baseUrl = `${process.env["GATEWAY_URL"]}/api`;
const serviceKey = process.env["SERVICE_KEY"];
const client = new HMSServiceClass(
  serviceKey ? { baseUrl, serviceKey } : { baseUrl, storage, onSessionLost: (problem) => lost.push(problem.code) },
);

type Command = (...args: never[]) => unknown;

const commands: Record<string, Command> = {
  call: (method: string, ...args: unknown[]) => call(method, args),
  callAs: (user: string, method: string, ...args: unknown[]) => call(method, args, client.actAs(user)),
  parallel: (times: number, method: string, ...args: unknown[]) =>
    Promise.all(Array.from({ length: times }, () => call(method, args))),
  rooms: async (pageSize: number) => {
    const ids: string[] = [];
    for await (const room of client.rooms(pageSize)) ids.push(room.id);
    return ids;
  },
  members: async (roomId: string, pageSize: number) => {
    const found: string[][] = [];
    for await (const member of client.members(roomId, pageSize)) found.push([member.username, member.relation]);
    return found;
  },
  session: () => storage.get(),
  change: async (changes: Partial<Session>) => {
    const held = await storage.get();
    if (held) await storage.set({ ...held, ...changes });
  },
  state: () => ({ rateLimits: client.rateLimits, lost }),
};

function call(method: string, args: readonly unknown[], by = client): unknown {
  const target = by[method as keyof HMSServiceClass] as unknown as (...args: unknown[]) => unknown;
  return target.apply(by, [...args]);
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command = "", ...args] = JSON.parse(line) as [string, ...never[]];
  try {
    console.log(JSON.stringify({ value: (await commands[command]?.(...args)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: { ...(error as Error), message: (error as Error).message } }));
  }
}
