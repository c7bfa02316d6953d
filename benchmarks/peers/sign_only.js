// Express that only signs: the server of the guide that this project comes from, without any login.
import cors from "cors";
import express from "express";
import jwt from "jsonwebtoken";

const { HMS_APP_ACCESS_KEY, HMS_APP_SECRET, PORT } = process.env;
const app = express();
app.use(cors());
app.use(express.json());

app.post("/api/rooms/:roomId/token", (req, res) => {
  const now = Math.floor(Date.now() / 1000);
  const payload = {
    access_key: HMS_APP_ACCESS_KEY,
    room_id: req.params.roomId,
    user_id: req.body.userId ?? "user",
    role: req.body.role ?? "guest",
    type: "app",
    version: 2,
    iat: now,
    exp: now + 24 * 60 * 60,
  };
  res.json({ success: true, token: jwt.sign(payload, HMS_APP_SECRET, { algorithm: "HS256" }) });
});

app.listen(Number(PORT), "127.0.0.1");
