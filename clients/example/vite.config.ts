import { defineConfig } from "vite";

// The page and the gateway share an origin in development, so that nothing needs CORS.
const gateway = process.env["GATEWAY_URL"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  resolve: { dedupe: ["react", "react-dom"] },
  server: { host: "127.0.0.1", proxy: { "/api": gateway } },
  preview: { host: "127.0.0.1", proxy: { "/api": gateway } },
});
