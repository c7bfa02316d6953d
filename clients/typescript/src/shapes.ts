/** The gateway's JSON. Answers keep its snake_case; options of the client are camelCase. */

import type { GatewayProblem } from "./problem.js";

export interface User {
  readonly id: string;
  readonly username: string;
  readonly display_name: string;
  readonly roles: readonly string[];
}

/** The answer to a login or a refresh. Used only inside the client. */
export interface TokenAnswer {
  readonly access_token: string;
  readonly token_type: string;
  readonly expires_in: number;
  /** Not in cookie mode. */
  readonly refresh_token?: string;
  readonly refresh_expires_in: number;
  readonly session_id: string;
  readonly user: User;
}

export interface Me {
  readonly user: User;
  readonly permissions: readonly string[];
}

export interface NewUser {
  readonly username: string;
  readonly password: string;
  readonly displayName?: string | undefined;
  readonly invite?: string | undefined;
}

/** One login of the user, on one device. */
export interface LoginSession {
  readonly id: string;
  /** True for the session of the caller. */
  readonly current: boolean;
  readonly created_at: string;
  /** The time of the last renewal of its tokens. */
  readonly used_at: string;
  readonly expires_at: string;
  readonly address: string;
  readonly agent: string;
}

export type Access = "open" | "invited";

export interface Room {
  /** The room's id at 100ms. */
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly access: Access;
  readonly template: string;
  readonly owner_id: string;
  readonly enabled: boolean;
  /** RFC 3339 in UTC, like all times. */
  readonly created_at: string;
  /** The caller's relation to the room. Only in the answer for a single room. */
  readonly relation?: Relation | null;
  /** The owner's name. Only in lists for callers with `rooms:read-any`. */
  readonly owner?: string;
}

/** `cursor` is the `next_cursor` of the previous page. */
export interface PageOptions {
  readonly limit?: number | undefined;
  readonly cursor?: string | undefined;
}

export interface RoomPage {
  readonly rooms: readonly Room[];
  readonly next_cursor: string | null;
}

export interface CreateRoomOptions {
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  readonly access?: Access | undefined;
  /** Name of a template in the gateway's policy. */
  readonly template?: string | undefined;
  /** A repeated key creates no second room. Generated for each call by default; set it to repeat a call. */
  readonly idempotencyKey?: string | undefined;
}

/** The seed's answer. `error` is a text for users, `problem` the refusal for programs. */
export type CreateRoomResponse =
  | {
      readonly success: true;
      readonly room: Room;
      readonly error?: never;
      readonly problem?: never;
      readonly idempotencyKey: string;
    }
  | {
      readonly success: false;
      readonly room?: never;
      readonly error: string;
      readonly problem?: GatewayProblem;
      /** Repeat the call with this key if there was no answer. */
      readonly idempotencyKey: string;
    };

export interface RoomChanges {
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  readonly access?: Access | undefined;
  readonly enabled?: boolean | undefined;
}

/** A join token of 100ms. */
export interface MintedToken {
  readonly token: string;
  readonly room_id: string;
  readonly role: string;
  readonly user_id: string;
  readonly expires_at: string;
}

export type Relation = "owner" | "cohost" | "participant" | "viewer" | "banned";

/** A user with a relation to a room. A deleted account has no name. */
export interface Member {
  readonly user_id: string;
  readonly username: string;
  readonly display_name: string;
  readonly relation: Relation;
}

export interface MemberPage {
  readonly members: readonly Member[];
  readonly next_cursor: string | null;
}

/** `removed` is the number of the user's peers that were removed from the running session. */
export interface MemberSet {
  readonly member: Member;
  readonly removed: number;
}

/** `ended`: a session was running and is being ended. `locked`: further joins are refused. */
export interface Ending {
  readonly ended: boolean;
  readonly locked: boolean;
}

export interface NewInvite {
  /** The relation of users who accept it, by default participant. */
  readonly relation?: "cohost" | "participant" | "viewer" | undefined;
  /** One by default. */
  readonly maxUses?: number | undefined;
  /** One day by default. */
  readonly expiresInS?: number | undefined;
  /** Allows users without an account to accept it as guests. */
  readonly guests?: boolean | undefined;
}

/** An invite without its code; `id` revokes it. */
export interface Invite {
  readonly id: string;
  readonly relation: Relation;
  readonly uses_left: number;
  readonly expires_at: string;
  readonly guests: boolean;
  /** The id of the user who created it. */
  readonly by: string;
}

/** The code is returned only here. */
export interface InviteMade {
  readonly code: string;
  readonly invite: Invite;
}

/** The room, and the caller's new relation to it. */
export interface InviteAccepted {
  readonly room: Room;
  readonly relation: Relation;
}

/**
 * Requests of one action by outcome: succeeded, denied per limit, refused per code, failed in the gateway.
 * The actions `minutes` (time in rooms) and `owned` (time of everyone in the user's rooms) have minutes as `ok`.
 */
export interface Tally {
  readonly ok: number;
  readonly denied: Readonly<Record<string, number>>;
  readonly refused: Readonly<Record<string, number>>;
  readonly failed: number;
  readonly would_deny: Readonly<Record<string, number>>;
  /** The exact number behind minutes. */
  readonly seconds?: number;
}

/** By action, such as `tokens.mint`. */
export type Tallies = Readonly<Record<string, Tally>>;

export interface LimitState {
  readonly name: string;
  /** For example `60/min`. */
  readonly rate: string;
  readonly burst: number;
  readonly remaining: number;
  readonly full_again_at: string;
  readonly full_again_in_s: number;
  /** Counted, but denies nothing yet. */
  readonly shadow: boolean;
}

export interface QuotaState {
  readonly name: string;
  /** Such as `tokens.mint`; `minutes` of the user, or `owned`: of all people in the rooms that the user owns. */
  readonly counter: string;
  /** What `amount`, `used` and `remaining` count. */
  readonly unit: "requests" | "minutes";
  readonly period: "day" | "week" | "month";
  readonly time_zone: string;
  readonly amount: number;
  readonly used: number;
  readonly remaining: number;
  readonly full_again_at: string;
  readonly full_again_in_s: number;
  readonly shadow: boolean;
}

export interface LeaseState {
  readonly name: string;
  readonly most: number;
  readonly held: number;
}

/** The caller's own limits and counters. */
export interface Usage {
  readonly user_id: string;
  /** In which days and months begin. */
  readonly time_zone: string;
  readonly limits: readonly LimitState[];
  readonly quotas: readonly QuotaState[];
  readonly leases: readonly LeaseState[];
  readonly blocked_until: string | null;
  readonly usage: { readonly today: Tallies; readonly month: Tallies; readonly total: Tallies };
}
