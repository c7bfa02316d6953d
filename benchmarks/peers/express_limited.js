// Express with a login token, a rate limit in Redis and a usage counter, from the usual packages.
import { randomUUID } from "node:crypto";

import express from "express";
import { Redis } from "ioredis";
import jwt from "jsonwebtoken";
import { RateLimiterRedis } from "rate-limiter-flexible";

const { HMS_APP_ACCESS_KEY, HMS_APP_SECRET, LOGIN_SECRET, PORT, REDIS_URL, LIMIT } = process.env;
const redis = new Redis(REDIS_URL);
const limiter = new RateLimiterRedis({ storeClient: redis, points: Number(LIMIT), duration: 3600, keyPrefix: "express" });
const app = express();
app.use(express.json());

app.use((req, res, next) => {
  try {
    const token = (req.get("authorization") ?? "").replace(/^Bearer /, "");
    req.user = jwt.verify(token, LOGIN_SECRET, { algorithms: ["HS256"] });
    next();
  } catch {
    res.status(401).json({ success: false, error: "Log in first." });
  }
});

app.post("/api/rooms/:roomId/token", async (req, res) => {
  try {
    await limiter.consume(req.user.sub);
  } catch (refusal) {
    res.set("Retry-After", String(Math.ceil((refusal.msBeforeNext ?? 1000) / 1000)));
    return res.status(429).json({ success: false, error: "Too many requests." });
  }
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
  res.json({ success: true, token: jwt.sign(payload, HMS_APP_SECRET, { algorithm: "HS256" }) });
});

app.listen(Number(PORT), "127.0.0.1");
