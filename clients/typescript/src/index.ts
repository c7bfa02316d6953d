export { HMSServiceClass, createHMSService, type HMSServiceOptions } from "./hms-service.js";
export {
  type ClientCode,
  type FieldError,
  GatewayProblem,
  GatewayUnreachable,
  PROBLEM_CODES,
  type ProblemCode,
  type ProblemFields,
} from "./problem.js";
export { type RateLimit, parseRateLimits, parseRetryAfter } from "./rate-limit.js";
export type * from "./shapes.js";
export { type KeyValueStore, type Session, type SessionStorage, keyValueStorage, memoryStorage } from "./storage.js";
export type { RetryOptions, TransportOptions } from "./transport.js";
