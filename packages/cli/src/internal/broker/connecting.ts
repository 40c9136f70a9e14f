/** The connection of a command. */
import { Amqp, type AmqpConfig, type AmqpError } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { read, type Shared } from "./Settings.ts"

/**
 * The configuration of a command's connection. A command waits for its connection, and names it, so that an operator
 * who looks at the broker sees what it is.
 */
export const forCommand = (config: AmqpConfig.AmqpConfig, command: string): AmqpConfig.AmqpConfig => ({
  ...config,
  lazyConnect: false,
  connectionName: config.connectionName ?? `effect-amqp ${command}`
})

/** The services on a connection for a command, by the configuration of its environment. */
export const layer = (shared: Shared, command: string) =>
  Effect.map(read(shared), ({ config }): Layer.Layer<Amqp.Amqp, AmqpError.AmqpError> =>
    Amqp.fromConfig(forCommand(config, command))
  )

/** Runs a command's work on a connection that is closed in order when it ends, also when it is interrupted. */
export const connected = <A, E, R>(shared: Shared, command: string, work: Effect.Effect<A, E, R>) =>
  Effect.flatMap(layer(shared, command), (layer) => Effect.provide(work, layer))
