// Fastify with a login token, a rate limit in Redis and a usage counter, from its own plugins.
import { randomUUID } from "node:crypto";

import fastifyJwt from "@fastify/jwt";
import rateLimit from "@fastify/rate-limit";
import fastify from "fastify";
import { Redis } from "ioredis";

const { HMS_APP_ACCESS_KEY, HMS_APP_SECRET, LOGIN_SECRET, PORT, REDIS_URL, LIMIT } = process.env;
const redis = new Redis(REDIS_URL);
const app = fastify();
await app.register(fastifyJwt, { secret: LOGIN_SECRET, namespace: "login" });
await app.register(fastifyJwt, { secret: HMS_APP_SECRET, namespace: "join", jwtVerify: "joinVerify", jwtSign: "joinSign" });
await app.register(rateLimit, {
  redis,
  max: Number(LIMIT),
  timeWindow: 3_600_000,
  hook: "preHandler",
  keyGenerator: (req) => req.user.sub,
});

app.addHook("onRequest", async (req, res) => {
  try {
    await req.loginJwtVerify();
  } catch {
    return res.code(401).send({ success: false, error: "Log in first." });
  }
});

app.post("/api/rooms/:roomId/token", async (req) => {
  await redis.hincrby(`usage:${req.user.sub}`, "tokens.mint", 1);
  const now = Math.floor(Date.now() / 1000);
  const payload = {
    access_key: HMS_APP_ACCESS_KEY,
    room_id: req.params.roomId,
    user_id: req.user.sub,
    role: "guest",
    type: "app",
    version: 2,
    jti: randomUUID(),
    iat: now,
    nbf: now,
    exp: now + 3600,
  };
  return { success: true, token: app.jwt.join.sign(payload) };
});

await app.listen({ port: Number(PORT), host: "127.0.0.1" });
