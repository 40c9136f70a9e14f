/** Settings from Flask-Pika's two records. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConfig } from "@effect-amqp/core"
import { Duration, Effect, Redacted } from "effect"
import { refused } from "./AmqpConfig.fixtures.ts"

const login = { username: "alice", password: "s3cret" }

const refusedRecords = (parameters: unknown, pool?: unknown) =>
  refused(AmqpConfig.fromFlaskPika(parameters as AmqpConfig.FlaskPikaParameters, pool as AmqpConfig.FlaskPikaPool))

describe("Flask-Pika's records", () => {
  it.effect("map one to one", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromFlaskPika(
        { host: "rabbit", port: 5673, virtual_host: "shop", ...login },
        { pool_size: 8, pool_recycle: 600 }
      )
      assert.deepStrictEqual(config.hosts, [{ host: "rabbit", port: 5673 }])
      assert.strictEqual(config.vhost, "shop")
      assert.isTrue(config.credentials._tag === "Plain" && config.credentials.username === "alice")
      assert.isTrue(config.credentials._tag === "Plain" && Redacted.value(config.credentials.password) === "s3cret")
      const pool = config.pool === false ? undefined : config.pool
      assert.deepStrictEqual([pool?.min, pool?.max], [0, 8])
      assert.deepStrictEqual(pool?.recycle, Duration.minutes(10))
    })
  )

  it.effect("mean no pool if the pool's record is missing, and no recycling if pool_recycle is -1", () =>
    Effect.gen(function* () {
      assert.isFalse((yield* AmqpConfig.fromFlaskPika(login)).pool)
      assert.isFalse((yield* AmqpConfig.fromFlaskPika(login, null)).pool)
      const { pool } = yield* AmqpConfig.fromFlaskPika(login, { pool_size: 1, pool_recycle: -1 })
      assert.isTrue(pool !== false && pool.recycle === undefined)
    })
  )

  it.effect("can contain the other fields of Pika's ConnectionParameters, in seconds, and None", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromFlaskPika({
        ...login,
        host: null,
        port: "5673",
        channel_max: 10,
        frame_max: 8192,
        heartbeat: 30,
        connection_attempts: 3,
        retry_delay: 0.5,
        socket_timeout: 5,
        stack_timeout: 7,
        locale: "en_GB",
        blocked_connection_timeout: 300,
        client_properties: { connection_name: "orders" },
        ssl_options: { server_hostname: "rabbit.example.org" },
        tcp_options: { TCP_KEEPIDLE: 60 }
      })
      assert.deepStrictEqual(config.hosts, [{ host: "localhost", port: 5673 }])
      assert.deepStrictEqual([config.channelMax, config.frameMax, config.connectionAttempts], [10, 8192, 3])
      const durations = [config.heartbeat, config.retryDelay, config.socketTimeout, config.connectTimeout]
      assert.deepStrictEqual(durations.map(Duration.toMillis), [30_000, 500, 5000, 7000])
      assert.deepStrictEqual(config.blockedConnectionTimeout, Duration.minutes(5))
      assert.deepStrictEqual([config.locale, config.connectionName], ["en_GB", "orders"])
      assert.strictEqual(config.tls?.servername, "rabbit.example.org")
      assert.deepStrictEqual(config.tcp.keepAliveDelay, Duration.minutes(1))
    })
  )

  it.effect("with mistakes are refused, and each mistake is named by its field", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* refusedRecords({}, {}), ["username", "password", "pool_size", "pool_recycle"])
      assert.deepStrictEqual(yield* refusedRecords({ username: "alice" }), ["password"])
      assert.deepStrictEqual(yield* refusedRecords(login, { pool_size: 0, pool_recycle: 0 }), [
        "pool_size",
        "pool_recycle"
      ])
      assert.deepStrictEqual(yield* refusedRecords(login, { pool_size: 1, pool_recycle: -2 }), ["pool_recycle"])
      assert.deepStrictEqual(yield* refusedRecords({ ...login, vhost: "shop", port: "x", heartbeat: 1.5 }), [
        "vhost",
        "port",
        "heartbeat"
      ])
      assert.deepStrictEqual(yield* refusedRecords(null, 3), ["parameters", "pool"])
    })
  )
})
