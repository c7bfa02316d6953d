/** The gateway's JSON, unrenamed: what it answers is snake_case. What the client is given is camelCase. */

import type { GatewayProblem } from "./problem.js";

export interface User {
  readonly id: string;
  readonly username: string;
  readonly display_name: string;
  readonly roles: readonly string[];
}

/** Answer to a login or a refresh. The client keeps it to itself. */
export interface TokenAnswer {
  readonly access_token: string;
  readonly token_type: string;
  readonly expires_in: number;
  readonly refresh_token: string;
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
  /** It is the one that asked. */
  readonly current: boolean;
  readonly created_at: string;
  /** When its tokens were last renewed. */
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
  /** RFC 3339, UTC; so are all times. */
  readonly created_at: string;
  /** The caller's relation to the room, where one room is asked for. */
  readonly relation?: Relation | null;
}

/** `cursor` is the `next_cursor` of the page before. */
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
  /** The same key creates no second room. Made anew for each call if left out; give your own to repeat a call. */
  readonly idempotencyKey?: string | undefined;
}

/** The seed's answer. `error` is a sentence for a person, `problem` what a program needs to know of a refusal. */
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
      /** Repeat the call with it when no answer came. */
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

/** Somebody with a relation of his own to a room. No name: the account was deleted. */
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

/** `removed` peers of the user were thrown out of the running session. */
export interface MemberSet {
  readonly member: Member;
  readonly removed: number;
}

/** `ended`: somebody was in the room and is being thrown out. `locked`: nobody can join any more. */
export interface Ending {
  readonly ended: boolean;
  readonly locked: boolean;
}

export interface NewInvite {
  /** What whoever accepts becomes; a participant if left out. */
  readonly relation?: "cohost" | "participant" | "viewer" | undefined;
  /** One if left out. */
  readonly maxUses?: number | undefined;
  /** A day if left out. */
  readonly expiresInS?: number | undefined;
  /** Whoever has the code may come in without an account. */
  readonly guests?: boolean | undefined;
}

/** An invite without its code; `id` revokes it. */
export interface Invite {
  readonly id: string;
  readonly relation: Relation;
  readonly uses_left: number;
  readonly expires_at: string;
  readonly guests: boolean;
  /** Id of the user who made it. */
  readonly by: string;
}

/** The code is told this once. */
export interface InviteMade {
  readonly code: string;
  readonly invite: Invite;
}

/** The room, and the relation to it that the caller has now. */
export interface InviteAccepted {
  readonly room: Room;
  readonly relation: Relation;
}

/** Requests of one action by outcome: done, denied per limit, refused per code, failed on the gateway's side. */
export interface Tally {
  readonly ok: number;
  readonly denied: Readonly<Record<string, number>>;
  readonly refused: Readonly<Record<string, number>>;
  readonly failed: number;
  readonly would_deny: Readonly<Record<string, number>>;
}

/** By action, e.g. `tokens.mint`. */
export type Tallies = Readonly<Record<string, Tally>>;

export interface LimitState {
  readonly name: string;
  /** E.g. `60/min`. */
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
  readonly counter: string;
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

/** The caller's own limits and counters; days and months are UTC's. */
export interface Usage {
  readonly user_id: string;
  readonly limits: readonly LimitState[];
  readonly quotas: readonly QuotaState[];
  readonly leases: readonly LeaseState[];
  readonly blocked_until: string | null;
  readonly usage: { readonly today: Tallies; readonly month: Tallies; readonly total: Tallies };
}
