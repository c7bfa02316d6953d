/** What an application of the seed's does with its class, for tests/e2e/test_typescript_client.py. Prints JSON. */

import { HMSServiceClass } from "../seed/hms-service.js";

const service = new HMSServiceClass();
const untitled = await service.createRoom();
const named = await service.createRoom({ name: "Stand-up", description: "every day" });
const token = await service.getAuthToken(named.room?.id ?? "", "host");
const refused = await service.getAuthToken(named.room?.id ?? "", "ghost");
console.log(JSON.stringify({ untitled, named, token, refused: refused ?? null }));
