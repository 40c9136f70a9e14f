/** How connections are opened: with amqplib, unless a test provides a broker in this process. */
import * as Context from "effect/Context"
import { open } from "./open.ts"

export class Opener extends Context.Reference<typeof open>("@effect-amqp/core/internal/driver/Opener", {
  defaultValue: () => open
}) {}
