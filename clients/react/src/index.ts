/** React hooks for the gateway. */

export { GatewayProvider, useGateway, type GatewayProviderProps, type GatewayState } from "./gateway.js";
export { useRoomToken, type RoomToken, type RoomTokenOptions } from "./room-token.js";
