// Reads an app token as 100ms's web client does before its first request (web-sdks, hms-video-store, utils/jwt.ts):
// three parts, the middle one decoded with atob and parsed as JSON. It reads only three claims.
"use strict";
const token = process.argv[2];
if (token.length === 0) throw new Error("token is empty");
const parts = token.split(".");
if (parts.length !== 3) throw new Error("token has not three parts");
const { room_id, user_id, role } = JSON.parse(atob(parts[1])); // atob refuses the - and _ of base64url
console.log(JSON.stringify({ room_id, user_id, role }));
