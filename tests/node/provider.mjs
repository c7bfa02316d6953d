// A real OpenID Connect provider on loopback: node provider.mjs PORT BACKCHANNEL_LOGOUT_URI
// People log in without a password as the `login_hint` of the request; those whose names begin with t are teachers.
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [port, logoutUri] = process.argv.slice(2);
const key = (type, options, alg) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }), use: "sig", alg, kid: alg,
});
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: "video-app",
    application_type: "native",
    token_endpoint_auth_method: "none",
    redirect_uris: [`http://127.0.0.1:${port}/app`],
    backchannel_logout_uri: logoutUri,
    backchannel_logout_session_required: true,
  }],
  jwks: { keys: [key("rsa", { modulusLength: 2048 }, "RS256"), key("ec", { namedCurve: "P-256" }, "ES256")] },
  cookies: { keys: [randomBytes(32).toString("hex")] },
  claims: { openid: ["sub"], profile: ["name", "groups"] },
  // Its own `dispatcher` refuses loopback addresses.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  conformIdTokenClaims: false, // the claims are in the ID token
  features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true } },
  interactions: { url: (_, interaction) => `/login/${interaction.uid}` },
  ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
  findAccount: (_, sub) => ({
    accountId: sub,
    claims: () => ({ sub, name: `${sub} of Node`, groups: sub.startsWith("t") ? ["teachers"] : [] }),
  }),
});

async function logIn(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (prompt.name === "login") {
    return provider.interactionFinished(request, response, { login: { accountId: params.login_hint } });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

const answer = provider.callback();
provider.on("backchannel.error", (_, error) => console.error(`back-channel logout failed: ${error}`));
provider.on("server_error", (_, error) => console.error(error));
createServer((request, response) => {
  if (!request.url.startsWith("/login/")) return answer(request, response);
  logIn(request, response).catch((error) => { console.error(error); response.writeHead(500).end(); });
}).listen(Number(port), "127.0.0.1", () => console.log("the provider listens"));
