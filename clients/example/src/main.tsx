import { HMSRoomProvider } from "@100mslive/react-sdk";
import { keyValueStorage } from "@hms-gateway/client";
import { GatewayProvider } from "@hms-gateway/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "./app";

// The login survives a reload. With GATEWAY_COOKIES=on, `cookies: true` keeps it out of the reach of scripts.
const options = { baseUrl: `${location.origin}/api`, storage: keyValueStorage(sessionStorage) };

createRoot(document.getElementById("app")!).render(
  <StrictMode>
    <HMSRoomProvider>
      <GatewayProvider options={options}>
        <App />
      </GatewayProvider>
    </HMSRoomProvider>
  </StrictMode>,
);
