/**
 * The library under test, on a given broker: configurations with short deadlines, layers, states, and reasons of
 * failures.
 */
import { Duration, Effect, flow, Layer, Logger, Option, Redacted, References, Stream, SubscriptionRef } from "effect"
import { type AmqpConfig, AmqpConnection, AmqpError, AmqpPool } from "@effect-amqp/core"
import { until } from "./polling.ts"

const seconds = Duration.seconds

const pool: AmqpConfig.PoolConfig = {
  min: 0,
  max: 4,
  recycle: undefined,
  idleTimeout: undefined,
  acquireTimeout: seconds(5),
  maxWaiting: 10_000,
  longBorrow: undefined
}

export interface Overrides extends Partial<Omit<AmqpConfig.AmqpConfig, "pool">> {
  readonly pool?: false | Partial<AmqpConfig.PoolConfig>
}

/** The settings for a broker's URL, without the conveniences of `AmqpConfig.fromUrl`, which has its own tests. */
export const configOf = (url: string, overrides: Overrides = {}): AmqpConfig.AmqpConfig => {
  const { hostname, password, pathname, port, username } = new URL(url)
  return {
    hosts: [{ host: hostname, port: Number(port) }],
    vhost: pathname.length > 1 ? decodeURIComponent(pathname.slice(1)) : "/",
    credentials: {
      _tag: "Plain",
      username: decodeURIComponent(username) || "guest",
      password: Redacted.make(decodeURIComponent(password) || "guest")
    },
    tls: undefined,
    heartbeat: seconds(10),
    channelMax: 2047,
    frameMax: 131_072,
    locale: "en_US",
    connectionName: undefined,
    clientProperties: {},
    lazyConnect: false,
    connectionAttempts: 1,
    retryDelay: seconds(2),
    reconnect: {
      minDelay: Duration.millis(100),
      maxDelay: seconds(30),
      healthyAfter: seconds(1),
      schedule: undefined,
      onRefused: "retry"
    },
    socketTimeout: seconds(10),
    connectTimeout: seconds(10),
    closeTimeout: seconds(3),
    continuationTimeout: seconds(20),
    publishTimeout: seconds(10),
    writeBufferSize: 262_144,
    maxInboundMessageBodySize: 134_217_728,
    blockedConnectionTimeout: undefined,
    tcp: { noDelay: true, keepAlive: true, keepAliveDelay: seconds(30) },
    shutdownTimeout: seconds(10),
    ...overrides,
    pool: overrides.pool === false ? false : { ...pool, ...overrides.pool }
  }
}

/** A refusal closes a connection for good, even if it was open before. */
export const closedByRefusals = {
  reconnect: { ...configOf("amqp://127.0.0.1").reconnect, onRefused: "close" }
} as const satisfies Overrides

/** A connection and its pool. */
export const layerWith = (config: AmqpConfig.AmqpConfig) =>
  Layer.provideMerge(AmqpPool.layer, AmqpConnection.layer(config))

/** A connection and its pool on the broker of a URL. */
export const layerOf = (url: string, overrides?: Overrides) => layerWith(configOf(url, overrides))

/** Runs a program with its own connection and pool, which are closed afterwards. Its log begins at warnings. */
export const withPool = (url: string, overrides?: Overrides) =>
  flow(
    Effect.provide(layerOf(url, overrides), { local: true }),
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )

/** Waits until the state of the connection is as expected, and returns it. Waits at most 10 seconds by default. */
export const untilState: {
  <S extends AmqpConnection.State>(
    wanted: (state: AmqpConnection.State) => state is S,
    within?: Duration.Input
  ): Effect.Effect<S, never, AmqpConnection.AmqpConnection>
  (
    wanted: (state: AmqpConnection.State) => boolean,
    within?: Duration.Input
  ): Effect.Effect<AmqpConnection.State, never, AmqpConnection.AmqpConnection>
} = (wanted: (state: AmqpConnection.State) => boolean, within: Duration.Input = "10 seconds") =>
  Effect.flatMap(AmqpConnection.AmqpConnection, ({ state }) =>
    SubscriptionRef.changes(state).pipe(
      Stream.filter(wanted),
      Stream.runHead,
      Effect.map((now) => Option.getOrThrow(now) as never),
      Effect.timeoutOrElse({
        duration: within,
        orElse: () => Effect.die(new Error(`the connection stayed ${JSON.stringify(state.value)}`))
      })
    )
  )

/** Waits until the connection is open, with at least this generation. */
export const untilOpen = (generation = 1, within?: Duration.Input) =>
  untilState(
    (now): now is Extract<AmqpConnection.State, { readonly _tag: "Open" }> =>
      now._tag === "Open" && now.generation >= generation,
    within
  )

/** Logs nothing. Most tests of failures would log. */
export const quietly = Effect.provide(Logger.layer([]))

/** Waits until the pool's counts are as expected. */
export const untilStats = (wanted: (stats: AmqpPool.Stats) => boolean) => until(AmqpPool.stats, wanted, "the pool")

/** Why an effect failed. An error that is not an AMQP error becomes a defect. */
export const reasonOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Effect.flip(effect), (error) =>
    AmqpError.isAmqpError(error) ? Effect.succeed(error.reason) : Effect.die(error)
  )

/** The tag of an effect's reason, or `Success`. */
export const tagOf = <A, R>(effect: Effect.Effect<A, AmqpError.AmqpError, R>) =>
  Effect.match(effect, { onFailure: (error) => error.reason._tag, onSuccess: () => "Success" as const })

/** Why a connection cannot be opened. */
export const connecting = (config: AmqpConfig.AmqpConfig) => reasonOf(Effect.scoped(AmqpConnection.make(config)))
