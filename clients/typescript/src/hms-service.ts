/** The client: the methods of the seed's class, and the rest of the gateway's API. */

import { newIdempotencyKey } from "./idempotency.js";
import { GatewayProblem } from "./problem.js";
import type { RateLimit } from "./rate-limit.js";
import { ServiceKey } from "./service-key.js";
import { Sessions } from "./session.js";
import type {
  CreateRoomOptions,
  CreateRoomResponse,
  Ending,
  Invite,
  InviteAccepted,
  InviteMade,
  LoginSession,
  Me,
  Member,
  MemberPage,
  MemberSet,
  MintedToken,
  NewInvite,
  NewUser,
  PageOptions,
  Relation,
  Room,
  RoomChanges,
  RoomPage,
  TokenAnswer,
  Usage,
  User,
} from "./shapes.js";
import { type SessionStorage, memoryStorage } from "./storage.js";
import { tabStorage } from "./tabs.js";
import { type Call, Transport, type TransportOptions, segment } from "./transport.js";

export interface HMSServiceOptions extends TransportOptions {
  /** Where the login is kept; in memory by default. */
  readonly storage?: SessionStorage;
  /**
   * Cookie mode, in a browser: the refresh token is in a cookie that no script can read, and the rest in memory. The
   * login outlives a reload, and all tabs of the origin share it. The gateway needs GATEWAY_COOKIES=on.
   */
  readonly cookies?: boolean;
  /** A key of the gateway instead of a login, for a backend. Never in a page. */
  readonly serviceKey?: string;
  /** With `serviceKey`, the id of the user to act for; see `actAs()`. */
  readonly actAs?: string;
  /** Called once when the gateway has ended the login, to show the login page. Not called after `logout()`. */
  readonly onSessionLost?: (problem: GatewayProblem) => void;
}

/**
 * One user of one gateway, or a backend with a service key.
 *
 * Methods throw GatewayProblem when the gateway refuses and GatewayUnreachable when there is no answer. `createRoom`
 * returns `{ success: false, error }` instead, like the seed's.
 */
export class HMSServiceClass {
  readonly #options: HMSServiceOptions;
  readonly #transport: Transport;
  readonly #caller: Sessions | ServiceKey;

  /** Throws a TypeError without a `baseUrl` that is an http(s) address, and for options that contradict each other. */
  constructor(options: HMSServiceOptions) {
    this.#options = options;
    this.#transport = new Transport(options);
    this.#caller = callerOf(options, this.#transport);
  }

  /** The login. A service key has none. */
  get #sessions(): Sessions {
    if (this.#caller instanceof Sessions) return this.#caller;
    throw new GatewayProblem({ status: 401, code: "no_session", detail: "A client with a service key has no login." });
  }

  /** The limits after the last answer that reported them, the tightest first. */
  get rateLimits(): readonly RateLimit[] {
    return this.#transport.rateLimits;
  }

  // --- Rooms, as in the seed ---------------------------------------------------------------------------------------

  /** Create a room, untitled if there are no options. Never throws. */
  async createRoom(options?: CreateRoomOptions): Promise<CreateRoomResponse> {
    const { idempotencyKey = newIdempotencyKey(), ...room } = options ?? {};
    const body = Object.keys(room).length > 0 ? room : undefined;
    const headers = { "Idempotency-Key": idempotencyKey };
    try {
      const call: Call = { method: "POST", path: "/rooms", body, headers, answers: "room", repeatable: true };
      return { success: true, room: (await this.#call<{ room: Room }>(call)).room, idempotencyKey };
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const refusal = { success: false, error: message, idempotencyKey } as const;
      return error instanceof GatewayProblem ? { ...refusal, problem: error } : refusal;
    }
  }

  /** Return a join token for the logged-in user. Without a role, it has the least privileged role they may have. */
  async getAuthToken(roomId: string, role?: string): Promise<string> {
    return (await this.mintToken(roomId, role)).token;
  }

  // --- Account and sessions ----------------------------------------------------------------------------------------

  /** Log in. Every later call is made as this user. */
  async login(username: string, password: string): Promise<User> {
    return await this.#begin("/auth/login", { username, password });
  }

  /** Log in with a token of an identity provider that the gateway trusts, such as Firebase, Auth0 or Keycloak. */
  async exchange(token: string): Promise<User> {
    return await this.#begin("/auth/exchange", { token });
  }

  /**
   * End this session, the user's others, or all of them.
   *
   * Except for `others`, the client always forgets its login, even if there is no answer and it throws. In cookie mode
   * the browser then still has it: call again.
   */
  async logout(scope: "current" | "others" | "all" = "current"): Promise<void> {
    const { byCookie } = this.#sessions;
    const held = await this.#sessions.stored();
    if (!held && !byCookie) return; // a cookie can only be removed by the gateway
    if (scope !== "others") await this.#sessions.drop();
    // The refresh token identifies the session even if the access token has expired.
    const body = { refresh_token: held?.refreshToken, scope };
    const call: Call = { method: "POST", path: "/auth/logout", body, byCookie, answers: null, repeatable: true };
    try {
      await this.#transport.send(call, byCookie ? held?.accessToken : undefined); // the user may have removed the cookie
    } catch (error) {
      const ended = byCookie ? ["invalid_grant", "invalid_token", "token_expired"] : ["invalid_grant"];
      const hasEnded = error instanceof GatewayProblem && ended.includes(error.code);
      if (!hasEnded || scope === "others") throw error;
    }
  }

  /** Renew the tokens now, for example after a change of roles. Calls renew them automatically when needed. */
  async refresh(): Promise<User> {
    const held = await this.#sessions.required();
    return (await this.#sessions.renewed(held)).user;
  }

  /** Return the logged-in user, or null. In cookie mode the first call asks the gateway; otherwise none does. */
  async currentUser(): Promise<User | null> {
    return (await this.#sessions.held())?.user ?? null;
  }

  /**
   * Return a client that does everything for a user, by id, with this one's service key and its scope `act:user`.
   *
   * Throws a TypeError without a service key.
   */
  actAs(userId: string): HMSServiceClass {
    return new HMSServiceClass({ ...this.#options, actAs: userId });
  }

  /** Return the caller and their permissions. */
  async me(): Promise<Me> {
    return await this.#read<Me>("/auth/me", "user");
  }

  /** Create an account, if registration is open or with an invite. Does not log in. */
  async register({ username, password, displayName, invite }: NewUser): Promise<User> {
    const body = { username, password, display_name: displayName, invite };
    const call: Call = { method: "POST", path: "/auth/register", body, answers: "user" };
    return (await this.#transport.send<{ user: User }>(call)).user;
  }

  /** Change the user's password. Their other sessions end. */
  async changePassword(currentPassword: string, newPassword: string): Promise<void> {
    const body = { current_password: currentPassword, new_password: newPassword };
    await this.#call({ method: "POST", path: "/auth/password", body, answers: null });
  }

  /** List the user's sessions. */
  async sessions(): Promise<readonly LoginSession[]> {
    return (await this.#read<{ sessions: LoginSession[] }>("/auth/sessions", "sessions")).sessions;
  }

  /** End one of the user's sessions. */
  async endSession(id: string): Promise<void> {
    await this.#call({ method: "DELETE", path: `/auth/sessions/${segment(id)}`, answers: null });
    if ((await this.#sessions.stored())?.sessionId === id) await this.#sessions.drop();
  }

  // --- Rooms -------------------------------------------------------------------------------------------------------

  /** Iterate over the user's rooms, newest first. Pages are fetched on demand. */
  async *rooms(pageSize = 50): AsyncGenerator<Room, void, undefined> {
    let cursor: string | null | undefined;
    do {
      const page = await this.roomPage({ limit: pageSize, cursor: cursor ?? undefined });
      yield* page.rooms;
      cursor = page.next_cursor;
    } while (cursor);
  }

  /** Return one page of the user's rooms, newest first. `limit` is at most 100. */
  async roomPage(options: PageOptions = {}): Promise<RoomPage> {
    return await this.#read<RoomPage>(`/rooms${query(options)}`, "rooms");
  }

  /** Return one room, with the caller's relation to it. */
  async getRoom(roomId: string): Promise<Room> {
    return (await this.#read<{ room: Room }>(`/rooms/${segment(roomId)}`, "room")).room;
  }

  /** Change a room. Omitted fields keep their values. */
  async updateRoom(roomId: string, changes: RoomChanges): Promise<Room> {
    const call: Call = { method: "PATCH", path: `/rooms/${segment(roomId)}`, body: changes, answers: "room" };
    return (await this.#call<{ room: Room }>(call)).room;
  }

  /** Remove all peers from a room. With `lock`, prevent further joins. */
  async endRoom(roomId: string, options: { lock?: boolean; reason?: string } = {}): Promise<Ending> {
    const path = `/rooms/${segment(roomId)}/end`;
    return await this.#call<Ending>({ method: "POST", path, body: options, answers: "ended" });
  }

  /** Return a join token with its role, user and expiry. */
  async mintToken(roomId: string, role?: string): Promise<MintedToken> {
    const path = `/rooms/${segment(roomId)}/token`;
    return await this.#call<MintedToken>({ method: "POST", path, body: { role }, answers: "token", repeatable: true });
  }

  /** Iterate over the users with a relation to a room, the owner first, banned ones included. */
  async *members(roomId: string, pageSize = 100): AsyncGenerator<Member, void, undefined> {
    let cursor: string | null | undefined;
    do {
      const page = await this.memberPage(roomId, { limit: pageSize, cursor: cursor ?? undefined });
      yield* page.members;
      cursor = page.next_cursor;
    } while (cursor);
  }

  /** Return one page of a room's members. `limit` is at most 500. */
  async memberPage(roomId: string, options: PageOptions = {}): Promise<MemberPage> {
    return await this.#read<MemberPage>(`/rooms/${segment(roomId)}/members${query(options)}`, "members");
  }

  /** Set the relation of a user, by id or name. `owner` hands the room over, `banned` also removes the user from it. */
  async setMember(roomId: string, user: string, relation: Relation): Promise<MemberSet> {
    const path = `/rooms/${segment(roomId)}/members/${segment(user)}`;
    return await this.#call<MemberSet>({ method: "PUT", path, body: { relation }, answers: "member" });
  }

  /** Ban a user, by id or name, from a room, and remove them from it. */
  async banMember(roomId: string, user: string): Promise<void> {
    const path = `/rooms/${segment(roomId)}/members/${segment(user)}`;
    await this.#call({ method: "DELETE", path, answers: null });
  }

  /** Create a code that gives each user who accepts it a relation to a room. */
  async createInvite(roomId: string, options: NewInvite = {}): Promise<InviteMade> {
    const { relation, maxUses, expiresInS, guests } = options;
    const path = `/rooms/${segment(roomId)}/invites`;
    const body = { relation, max_uses: maxUses, expires_in_s: expiresInS, guests };
    return await this.#call<InviteMade>({ method: "POST", path, body, answers: "code" });
  }

  /** List the usable invites of a room, without their codes. */
  async invites(roomId: string): Promise<readonly Invite[]> {
    return (await this.#read<{ invites: Invite[] }>(`/rooms/${segment(roomId)}/invites`, "invites")).invites;
  }

  /** Revoke an invite. Users who have accepted it keep their relation. */
  async revokeInvite(roomId: string, inviteId: string): Promise<void> {
    const path = `/rooms/${segment(roomId)}/invites/${segment(inviteId)}`;
    await this.#call({ method: "DELETE", path, answers: null });
  }

  /**
   * Accept an invite. Without a login, an invite for guests creates a guest with this `displayName`, and the client is
   * then logged in as the guest.
   */
  async acceptInvite(code: string, options: { displayName?: string | undefined } = {}): Promise<InviteAccepted> {
    const path = `/invites/${segment(code)}/accept`;
    const body = { display_name: options.displayName };
    const call: Call = { method: "POST", path, shown: "/invites/{code}/accept", body, answers: "room" };
    type Answer = InviteAccepted & { readonly login?: TokenAnswer | null };
    const caller = this.#caller;
    const isGuest = caller instanceof Sessions && !(await caller.held());
    if (!isGuest) return accepted(await this.#call<Answer>(call));
    const answer = await this.#transport.send<Answer>({ ...call, byCookie: caller.byCookie });
    if (answer.login) await caller.adopt(answer.login);
    return accepted(answer);
  }

  // --- Usage -------------------------------------------------------------------------------------------------------

  /** Return the caller's current limits and usage. Free of charge. */
  async usage(): Promise<Usage> {
    return await this.#read<Usage>("/usage", "usage");
  }

  async #read<T>(path: string, answers: string): Promise<T> {
    return await this.#call<T>({ method: "GET", path, answers, repeatable: true });
  }

  async #call<T>(call: Call): Promise<T> {
    return await this.#caller.send<T>(call);
  }

  async #begin(path: string, body: object): Promise<User> {
    const sessions = this.#sessions;
    const call: Call = { method: "POST", path, body, byCookie: sessions.byCookie, answers: "access_token" };
    return (await sessions.adopt(await this.#transport.send<TokenAnswer>(call))).user;
  }
}

function callerOf(options: HMSServiceOptions, transport: Transport): Sessions | ServiceKey {
  const { storage, cookies, serviceKey, actAs, onSessionLost } = options;
  if (serviceKey !== undefined) {
    if (storage || cookies) throw new TypeError("serviceKey: a client with a key has no login, so no storage or cookies");
    return new ServiceKey(transport, serviceKey, actAs);
  }
  if (actAs !== undefined) throw new TypeError("actAs: only a client with a service key can act for users");
  if (!cookies) return new Sessions(transport, { storage: storage ?? memoryStorage(), onLost: onSessionLost });
  if (storage) throw new TypeError("cookies: the browser keeps the login, so there is no storage");
  const sharedAs = `hms-gateway.session ${transport.baseUrl}`;
  return new Sessions(transport, { storage: tabStorage(sharedAs), onLost: onSessionLost, sharedAs });
}

function accepted({ room, relation }: InviteAccepted): InviteAccepted {
  return { room, relation };
}

/** Return the query of a page, without omitted options. */
function query(options: PageOptions): string {
  const pairs = Object.entries(options).filter(([, value]) => value !== undefined);
  if (pairs.length === 0) return "";
  return `?${pairs.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&")}`;
}

/**
 * Return a client, for the line `export const HMSService = createHMSService({ baseUrl })`.
 *
 * Throws a TypeError without a `baseUrl` that is an http(s) address.
 */
export function createHMSService(options: HMSServiceOptions): HMSServiceClass {
  return new HMSServiceClass(options);
}
