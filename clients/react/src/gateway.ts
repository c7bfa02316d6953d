/** The login of the app's user, for all components below a GatewayProvider. */

import {
  type GatewayProblem,
  type HMSServiceClass,
  type HMSServiceOptions,
  type User,
  createHMSService,
} from "@hms-gateway/client";
import {
  type ReactElement,
  type ReactNode,
  createContext,
  createElement,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useState,
} from "react";

export interface GatewayState {
  /** The client, for everything that has no hook: rooms, members, invites, usage. */
  readonly gateway: HMSServiceClass;
  /** `loading` until a kept login has been looked for. */
  readonly status: "loading" | "signed-out" | "signed-in";
  readonly user: User | null;
  /** Why the gateway has ended the login; null after `logout()` and after the next login. */
  readonly lost: GatewayProblem | null;
  /** Log in. Throws GatewayProblem or GatewayUnreachable. */
  readonly login: (username: string, password: string) => Promise<User>;
  /** Log in with a token of an identity provider. Throws as `login`. */
  readonly exchange: (token: string) => Promise<User>;
  /** End this session, the user's others, or all of them. */
  readonly logout: (scope?: "current" | "others" | "all") => Promise<void>;
}

export interface GatewayProviderProps {
  /** Options of the client. Those of the first render count. */
  readonly options: HMSServiceOptions;
  readonly children?: ReactNode;
}

interface Login {
  readonly status: GatewayState["status"];
  readonly user: User | null;
  readonly lost: GatewayProblem | null;
}

const LOADING: Login = { status: "loading", user: null, lost: null };
const SIGNED_OUT: Login = { status: "signed-out", user: null, lost: null };

const Context = createContext<GatewayState | null>(null);

/** Provide one client and the login of its user. */
export function GatewayProvider({ options, children }: GatewayProviderProps): ReactElement {
  const [login, setLogin] = useState(LOADING);
  const [gateway] = useState(() =>
    createHMSService({
      ...options,
      onSessionLost: (problem) => {
        setLogin({ ...SIGNED_OUT, lost: problem });
        options.onSessionLost?.(problem);
      },
    }),
  );

  useEffect(() => {
    let isCurrent = true;
    const found = (user: User | null) => {
      // A login that was faster than the look at the storage counts.
      if (isCurrent) setLogin((now) => (now.status === "loading" ? stateOf(user) : now));
    };
    gateway.currentUser().then(found, () => found(null));
    return () => {
      isCurrent = false;
    };
  }, [gateway]);

  const enter = useCallback(async (entering: Promise<User>) => {
    const user = await entering;
    setLogin(stateOf(user));
    return user;
  }, []);
  const state = useMemo<GatewayState>(
    () => ({
      gateway,
      ...login,
      login: (username, password) => enter(gateway.login(username, password)),
      exchange: (token) => enter(gateway.exchange(token)),
      logout: async (scope = "current") => {
        try {
          await gateway.logout(scope);
        } finally {
          // The client forgets its login even if there was no answer.
          if (scope !== "others") setLogin(SIGNED_OUT);
        }
      },
    }),
    [gateway, login, enter],
  );
  return createElement(Context.Provider, { value: state }, children);
}

/** Return the login and the client. Throws outside a GatewayProvider. */
export function useGateway(): GatewayState {
  const state = useContext(Context);
  if (!state) throw new Error("useGateway must be used below a <GatewayProvider>");
  return state;
}

function stateOf(user: User | null): Login {
  return user ? { status: "signed-in", user, lost: null } : SIGNED_OUT;
}
