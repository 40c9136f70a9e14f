/** What the programs have in common: their settings, their connections, and their end. */
import { PgClient } from "@effect/sql-pg"
import { Amqp, type AmqpError } from "@effect-amqp/core"
import { Effect, Layer, Redacted, References } from "effect"
import { createInterface } from "node:readline"
import { randomOf } from "../../../core/chaos/random.ts"
import { mutantOf } from "../mutants.ts"

const required = (name: string): string => {
  const value = process.env[name]
  if (value === undefined) throw new Error(`${name}: expected a value, got none. npm run chaos -- --outbox sets it`)
  return value
}

export const mutant = mutantOf(process.env["CHAOS_MUTANT"])

export const random = randomOf(Number(required("CHAOS_SEED")))

/** Reports something to the program that has started this one. */
export const report = (line: "ready" | "rolled back" | "repeated"): void => {
  process.stdout.write(`${line}\n`)
}

/** The lines that this program gets. It ends when their writer does, however that dies. */
export const lines = createInterface({ input: process.stdin })
lines.on("close", () => process.exit(1))

export const DatabaseLayer = (maxConnections: number) =>
  PgClient.layer({
    url: Redacted.make(required("CHAOS_DATABASE")),
    maxConnections,
    connectTimeout: "5 seconds",
    applicationName: "chaos program"
  })

/** Without a broker the programs start, and wait for it. */
export const BrokerLayer: Layer.Layer<Amqp.Amqp, AmqpError.AmqpError> = Layer.unwrap(
  Effect.sync(() =>
    Amqp.layer({
      url: required("CHAOS_BROKER"),
      lazyConnect: true,
      heartbeat: "5 seconds",
      connectTimeout: "5 seconds",
      reconnect: { minDelay: "50 millis", maxDelay: "500 millis" }
    })
  )
)

/** Says that the program does its work. */
export const ReadyLayer = Layer.effectDiscard(Effect.sync(() => report("ready")))

export const LogLayer = Layer.succeed(References.MinimumLogLevel, "Warn")
