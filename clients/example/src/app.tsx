/** A user logs in, makes a room, and gets what 100ms's SDK needs to join it. */

import { selectIsConnectedToRoom, useHMSActions, useHMSStore } from "@100mslive/react-sdk";
import type { Room } from "@hms-gateway/client";
import { useGateway, useRoomToken } from "@hms-gateway/react";
import { type FormEvent, useEffect, useState } from "react";

export function App() {
  const { status, user, logout } = useGateway();
  const [room, setRoom] = useState<Room | null>(null);
  if (status === "loading") return <p>Loading…</p>;
  if (status === "signed-out") return <LogIn />;
  return (
    <>
      <header>
        <h1>Video rooms</h1>
        <span>
          {user?.display_name} <button onClick={() => void logout()}>Log out</button>
        </span>
      </header>
      {room ? <OneRoom room={room} leave={() => setRoom(null)} /> : <Rooms enter={setRoom} />}
    </>
  );
}

function LogIn() {
  const { login, lost } = useGateway();
  const [error, setError] = useState<string | null>(null);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setError(null);
    try {
      await login(String(form.get("username")), String(form.get("password")));
    } catch (failure) {
      setError(textOf(failure));
    }
  };
  return (
    <form onSubmit={(event) => void submit(event)}>
      <h1>Log in</h1>
      <input name="username" autoComplete="username" placeholder="User name" aria-label="User name" required />
      <input
        name="password"
        type="password"
        autoComplete="current-password"
        placeholder="Password"
        aria-label="Password"
        required
      />
      <button>Log in</button>
      {(error ?? lost) && <p role="alert">{error ?? "Your session has ended. Log in again."}</p>}
    </form>
  );
}

function Rooms({ enter }: { enter: (room: Room) => void }) {
  const { gateway } = useGateway();
  const [rooms, setRooms] = useState<readonly Room[] | null>(null);
  const [error, setError] = useState<string | null>(null);
  useEffect(() => {
    gateway.roomPage({ limit: 20 }).then(
      (page) => setRooms(page.rooms),
      (failure: unknown) => setError(textOf(failure)),
    );
  }, [gateway]);
  const create = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const name = String(new FormData(event.currentTarget).get("name"));
    setError(null);
    const answer = await gateway.createRoom({ name });
    if (answer.success) enter(answer.room);
    else setError(answer.error);
  };
  return (
    <>
      <form onSubmit={(event) => void create(event)}>
        <input name="name" placeholder="Name of a new room" aria-label="Name of a new room" required />
        <button>Create room</button>
      </form>
      {error && <p role="alert">{error}</p>}
      {rooms?.length === 0 && <p>You have no rooms yet.</p>}
      <ul>
        {rooms?.map((room) => (
          <li key={room.id}>
            {room.name || "Untitled"} <button onClick={() => enter(room)}>Enter</button>
          </li>
        ))}
      </ul>
    </>
  );
}

function OneRoom({ room, leave }: { room: Room; leave: () => void }) {
  const { user } = useGateway();
  const { status, token, role, expiresAt, error, retry } = useRoomToken(room.id);
  const actions = useHMSActions();
  const isConnected = useHMSStore(selectIsConnectedToRoom);
  const [failure, setFailure] = useState<string | null>(null);
  const join = async () => {
    if (!token) return;
    setFailure(null);
    try {
      await actions.join({ authToken: token, userName: user?.display_name ?? "" });
    } catch (reason) {
      setFailure(textOf(reason)); // always with the local 100ms, which has no media server
    }
  };
  return (
    <section>
      <h2>{room.name || "Untitled"}</h2>
      {status === "loading" && <p>Getting a join token…</p>}
      {status === "failed" && (
        <p role="alert">
          {error?.message} <button onClick={retry}>Try again</button>
        </p>
      )}
      {status === "ready" && (
        <p>
          You may join as <strong>{role}</strong> until {expiresAt?.toLocaleTimeString()}.
        </p>
      )}
      <button onClick={() => void (isConnected ? actions.leave() : join())} disabled={!token}>
        {isConnected ? "Leave" : "Join"}
      </button>{" "}
      <button onClick={leave}>Back</button>
      {failure && <p role="alert">{failure}</p>}
    </section>
  );
}

function textOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}
