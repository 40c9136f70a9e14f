/** Settings from the environment. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConfig } from "@effect-amqp/core"
import { Config, ConfigProvider, Effect } from "effect"
import { variables } from "../src/internal/config/settings.ts"
import {
  certificate,
  fromEnvironment,
  key,
  login,
  millis,
  refusedEnvironment,
  refusedVariables
} from "./AmqpConfig.fixtures.ts"

describe("variables", () => {
  it.effect("none of them set means the same as an empty object", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* fromEnvironment({ PATH: "/bin" }), yield* AmqpConfig.make())
    })
  )

  it.effect("host and login can be given by separate variables", () =>
    Effect.gen(function* () {
      const config = yield* fromEnvironment({
        AMQP_HOST: "rabbit",
        AMQP_PORT: "5673",
        AMQP_VHOST: "shop/orders",
        AMQP_USERNAME: "alice",
        AMQP_PASSWORD: "p@ss w/rd%41"
      })
      assert.deepStrictEqual(config.hosts, [{ host: "rabbit", port: 5673 }])
      assert.deepStrictEqual([...login(config), config.vhost], ["alice", "p@ss w/rd%41", "shop/orders"])
    })
  )

  it.effect("several hosts are separated by commas", () =>
    Effect.gen(function* () {
      const login = { AMQP_USERNAME: "alice", AMQP_PASSWORD: "s3cret" }
      const { hosts } = yield* fromEnvironment({ ...login, AMQP_HOSTS: "a, b:5673,[::1]", AMQP_TLS: "true" })
      assert.deepStrictEqual(hosts, [
        { host: "a", port: 5671 },
        { host: "b", port: 5673 },
        { host: "::1", port: 5671 }
      ])
    })
  )

  it.effect("every other setting has a variable", () =>
    Effect.gen(function* () {
      const config = yield* fromEnvironment({
        AMQP_URL: "amqps://rabbit/shop",
        AMQP_AUTH_MECHANISM: "EXTERNAL",
        AMQP_TLS_CERT: certificate,
        AMQP_TLS_KEY: key,
        AMQP_TLS_SERVERNAME: "rabbit.example.org",
        AMQP_TLS_VERIFY: "false",
        AMQP_TLS_MIN_VERSION: "TLSv1.3",
        AMQP_TLS_CIPHERS: "ECDHE-RSA-AES128-GCM-SHA256",
        AMQP_HEARTBEAT: "5",
        AMQP_CHANNEL_MAX: "100",
        AMQP_FRAME_MAX: "8192",
        AMQP_LOCALE: "en_GB",
        AMQP_CONNECTION_NAME: "orders",
        AMQP_CLIENT_PROPERTIES: '{ "product": "shop" }',
        AMQP_CONNECTION_ATTEMPTS: "3",
        AMQP_RETRY_DELAY: "0.5",
        AMQP_SOCKET_TIMEOUT: "4 seconds",
        AMQP_CONNECT_TIMEOUT: "6",
        AMQP_CLOSE_TIMEOUT: "1500 millis",
        AMQP_CONTINUATION_TIMEOUT: "7",
        AMQP_PUBLISH_TIMEOUT: "8",
        AMQP_BLOCKED_CONNECTION_TIMEOUT: "9",
        AMQP_TCP_NO_DELAY: "no",
        AMQP_TCP_KEEP_ALIVE: "off",
        AMQP_TCP_KEEP_ALIVE_DELAY: "60",
        AMQP_SHUTDOWN_TIMEOUT: "0",
        AMQP_POOL: "true",
        AMQP_POOL_SIZE: "8",
        AMQP_POOL_MIN: "2",
        AMQP_POOL_RECYCLE: "600",
        AMQP_POOL_IDLE_TIMEOUT: "never",
        AMQP_POOL_ACQUIRE_TIMEOUT: "2.5",
        AMQP_POOL_MAX_WAITING: "0"
      })
      assert.deepStrictEqual(config.hosts, [{ host: "rabbit", port: 5671 }])
      assert.strictEqual(config.vhost, "shop")
      assert.deepStrictEqual(config.credentials, { _tag: "External" })
      const { tls } = config
      assert.deepStrictEqual([tls?.servername, tls?.verify, tls?.minVersion], ["rabbit.example.org", false, "TLSv1.3"])
      assert.strictEqual(tls?.ciphers, "ECDHE-RSA-AES128-GCM-SHA256")
      assert.deepStrictEqual([config.channelMax, config.frameMax, config.connectionAttempts], [100, 8192, 3])
      assert.deepStrictEqual([config.locale, config.connectionName], ["en_GB", "orders"])
      assert.strictEqual(JSON.stringify(config.clientProperties), '{"product":"shop"}')
      assert.strictEqual(millis(config.heartbeat), 5000)
      assert.strictEqual(millis(config.retryDelay), 500)
      assert.strictEqual(millis(config.socketTimeout), 4000)
      assert.strictEqual(millis(config.connectTimeout), 6000)
      assert.strictEqual(millis(config.closeTimeout), 1500)
      assert.strictEqual(millis(config.continuationTimeout), 7000)
      assert.strictEqual(millis(config.publishTimeout), 8000)
      assert.strictEqual(millis(config.blockedConnectionTimeout), 9000)
      assert.deepStrictEqual([config.tcp.noDelay, config.tcp.keepAlive], [false, false])
      assert.strictEqual(millis(config.tcp.keepAliveDelay), 60_000)
      assert.strictEqual(millis(config.shutdownTimeout), 0)
      const pool = config.pool === false ? undefined : config.pool
      assert.deepStrictEqual([pool?.max, pool?.min, pool?.maxWaiting, pool?.idleTimeout], [8, 2, 0, undefined])
      assert.deepStrictEqual([pool?.recycle, pool?.acquireTimeout].map(millis), [600_000, 2500])
    })
  )

  it.effect(
    "AMQP_POOL=false disables the pool, and AMQP_POOL_SIZE=0 is refused with a message that names AMQP_POOL",
    () =>
      Effect.gen(function* () {
        assert.isFalse((yield* fromEnvironment({ AMQP_POOL: "false" })).pool)
        assert.include(yield* refusedEnvironment({ AMQP_POOL_SIZE: "0" }), "AMQP_POOL=false")
        assert.deepStrictEqual(yield* refusedVariables({ AMQP_POOL: "false", AMQP_POOL_SIZE: "3" }), ["AMQP_POOL_SIZE"])
      })
  )

  it.effect("AMQP_POOL_RECYCLE takes seconds, a duration text, and -1 or never", () =>
    Effect.gen(function* () {
      for (const [text, expected] of [
        ["90", 90_000],
        ["2 hours", 7_200_000],
        ["-1", undefined],
        ["never", undefined]
      ] as const) {
        const { pool } = yield* fromEnvironment({ AMQP_POOL_RECYCLE: text })
        assert.strictEqual(pool === false ? 0 : millis(pool.recycle), expected)
      }
    })
  )

  it.effect("any TLS variable enables TLS", () =>
    Effect.gen(function* () {
      const login = { AMQP_HOST: "rabbit", AMQP_USERNAME: "alice", AMQP_PASSWORD: "s3cret" }
      assert.isTrue((yield* fromEnvironment({ ...login, AMQP_TLS: "true" })).tls?.verify)
      assert.strictEqual((yield* fromEnvironment({ ...login, AMQP_TLS_SERVERNAME: "a" })).tls?.servername, "a")
      const off = { ...login, AMQP_TLS: "false", AMQP_TLS_SERVERNAME: "a" }
      assert.deepStrictEqual(yield* refusedVariables(off), ["AMQP_TLS_SERVERNAME"])
    })
  )
})

describe("AMQP_URL", () => {
  it.effect("combines with variables of settings that it does not contain", () =>
    Effect.gen(function* () {
      const config = yield* fromEnvironment({ AMQP_URL: "amqp://alice:s3cret@rabbit/shop", AMQP_POOL_SIZE: "8" })
      assert.isTrue(config.pool !== false && config.pool.max === 8)
      assert.deepStrictEqual(login(config), ["alice", "s3cret"])
    })
  )

  it.effect("can leave the user name or the password to their variables", () =>
    Effect.gen(function* () {
      const password = { AMQP_PASSWORD: "s3cret" }
      const whole = yield* fromEnvironment({ AMQP_URL: "amqp://rabbit", AMQP_USERNAME: "alice", ...password })
      const half = yield* fromEnvironment({ AMQP_URL: "amqp://alice@rabbit", ...password })
      assert.deepStrictEqual(
        [login(whole), login(half)],
        [
          ["alice", "s3cret"],
          ["alice", "s3cret"]
        ]
      )
    })
  )

  it.effect("is refused together with a variable for a setting that it contains", () =>
    Effect.gen(function* () {
      const names = yield* refusedVariables({
        AMQP_URL: "amqp://alice:s3cret@rabbit/shop?heartbeat=5",
        AMQP_HOST: "rabbit",
        AMQP_HOSTS: "rabbit",
        AMQP_PORT: "5672",
        AMQP_VHOST: "shop",
        AMQP_TLS: "false",
        AMQP_USERNAME: "alice",
        AMQP_PASSWORD: "s3cret",
        AMQP_HEARTBEAT: "5"
      })
      assert.sameMembers(
        [...names],
        ["HOST", "HOSTS", "PORT", "VHOST", "TLS", "USERNAME", "PASSWORD", "HEARTBEAT"].map((x) => `AMQP_${x}`)
      )
    })
  )

  it.effect("is the name under which its mistakes are reported", () =>
    Effect.gen(function* () {
      const names = yield* refusedVariables({ AMQP_URL: "amqp://alice@rabbit:0/a/b?heartbeat=x&foo=1" })
      assert.sameMembers(
        [...names],
        ["host", "virtual host", "?foo=", "?heartbeat="].map((part) => `AMQP_URL ${part}`).concat("AMQP_PASSWORD")
      )
    })
  )
})

describe("mistakes", () => {
  it.effect("are all in one ConfigError", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        fromEnvironment({ AMQP_HOST: "a b", AMQP_PORT: "5672x", AMQP_POOL_SIZE: "many", AMQP_HEARTBEAT: "" })
      )
      assert.instanceOf(error, Config.ConfigError)
      for (const text of ["AMQP_HOST", '"a b"', "AMQP_PORT", '"5672x"', "AMQP_POOL_SIZE", '"many"', "65535"]) {
        assert.include(error.message, text)
      }
    })
  )

  it.effect("in the name of a variable are refused, with the name that was meant", () =>
    Effect.gen(function* () {
      const misspelt: Record<string, string> = {
        AMQP_POOL_SZIE: "AMQP_POOL_SIZE",
        AMQP_POOL_MAXIMUM: "AMQP_POOL_SIZE",
        AMQP_POOL_MAX: "AMQP_POOL_SIZE",
        AMQP_POOL_IDEL_TIMEOUT: "AMQP_POOL_IDLE_TIMEOUT",
        AMQP_TLS_VERFY: "AMQP_TLS_VERIFY",
        AMQP_TLS_REJECT_UNAUTHORIZED: "AMQP_TLS_VERIFY",
        AMQP_HSOT: "AMQP_HOST",
        AMQP_HEARTBEET: "AMQP_HEARTBEAT",
        AMQP_CONECT_TIMEOUT: "AMQP_CONNECT_TIMEOUT",
        AMQP_PASSWROD: "AMQP_PASSWORD",
        AMQP_USER: "AMQP_USERNAME",
        AMQP_URI: "AMQP_URL"
      }
      for (const [name, meant] of Object.entries(misspelt)) {
        const text = yield* refusedEnvironment({ [name]: "false" })
        assert.include(text, `at ["${name}"]`)
        assert.include(text, meant)
      }
    })
  )

  it.effect("do not include variables of the application and of the tests", () =>
    fromEnvironment({
      AMQP_EXCHANGE: "orders",
      AMQP_QUEUE_NAME: "x",
      AMQP_TEST_IMAGE: "rabbitmq:4",
      AMQPX: "1",
      AMQP_: "1"
    })
  )

  for (const name of ["URL", "HOST", "HOSTS", "PORT", "VHOST", "USERNAME", "PASSWORD", "TLS"]) {
    it.effect(`an empty AMQP_${name} is refused: it would mean localhost, guest or no TLS`, () =>
      Effect.gen(function* () {
        const rest = { AMQP_TLS_SERVERNAME: "rabbit.example.org", AMQP_POOL_SIZE: "4" }
        assert.deepStrictEqual(yield* refusedVariables({ [`AMQP_${name}`]: "" }), [`AMQP_${name}`])
        yield* fromEnvironment(name === "TLS" ? rest : {})
        const object = ConfigProvider.fromUnknown({ [`AMQP_${name}`]: "" })
        const fromObject = Effect.flatMap(Effect.void, () => AmqpConfig.config)
        const error = yield* Effect.flip(Effect.provideService(fromObject, ConfigProvider.ConfigProvider, object))
        assert.include(error.message, `AMQP_${name}`)
      })
    )
  }

  it.effect("do not hide that a provider failed", () =>
    Effect.gen(function* () {
      const broken = ConfigProvider.make(() => Effect.fail(new ConfigProvider.SourceError({ message: "no vault" })))
      const error = yield* Effect.flip(AmqpConfig.config.parse(broken))
      assert.include(error.message, "no vault")
    })
  )
})

describe("other providers", () => {
  it.effect("can add a prefix, which is part of every name that is read or refused", () =>
    Effect.gen(function* () {
      const config = AmqpConfig.config.pipe(Config.nested("BILLING"))
      const read = yield* fromEnvironment({ BILLING_AMQP_URL: "amqp://a:b@rabbit", AMQP_POOL_SIZE: "0" }, config)
      assert.deepStrictEqual(read.hosts, [{ host: "rabbit", port: 5672 }])
      const names = yield* refusedVariables(
        { BILLING_AMQP_POOL_SIZE: "0", BILLING_AMQP_POOL_SZIE: "1", BILLING_AMQP_URL: "", AMQP_POOL_MIN: "-1" },
        config
      )
      assert.sameMembers([...names], ["BILLING_AMQP_POOL_SIZE", "BILLING_AMQP_POOL_SZIE", "BILLING_AMQP_URL"])
    })
  )

  it.effect("of any kind can be parsed: an object, another record, a fallback", () =>
    Effect.gen(function* () {
      const object = ConfigProvider.fromUnknown({ AMQP_URL: "amqp://a:b@rabbit", AMQP_POOL_SIZE: 8, AMQP_TLS_VERFY: 1 })
      const error = yield* Effect.flip(AmqpConfig.config.parse(object))
      assert.include(error.message, "AMQP_TLS_VERFY")
      const first = ConfigProvider.fromEnv({ env: { AMQP_POOL_SIZE: "4" } })
      const second = ConfigProvider.fromEnv({ env: { AMQP_POOL_SIZE: "5", AMQP_POOL_MIN: "2" } })
      const { pool } = yield* AmqpConfig.config.parse(ConfigProvider.orElse(first, second))
      assert.deepStrictEqual(pool === false ? [] : [pool.max, pool.min], [4, 2])
    })
  )

  it("every variable is listed once", () => {
    assert.lengthOf(new Set(variables.keys()), variables.size)
    assert.lengthOf(new Set(variables.values()), variables.size)
  })
})

describe("The variables that Kubernetes sets for a Service named amqp", () => {
  const serviceLinks = {
    AMQP_PORT: "tcp://10.96.0.12:5672",
    AMQP_PORT_5672_TCP: "tcp://10.96.0.12:5672",
    AMQP_PORT_5672_TCP_ADDR: "10.96.0.12",
    AMQP_PORT_5672_TCP_PORT: "5672",
    AMQP_PORT_5672_TCP_PROTO: "tcp",
    AMQP_SERVICE_HOST: "10.96.0.12",
    AMQP_SERVICE_PORT: "5672"
  }

  for (const [given, variables] of Object.entries({
    "a host": { AMQP_HOST: "rabbit", AMQP_USERNAME: "u", AMQP_PASSWORD: "p" },
    "a URL": { AMQP_URL: "amqp://u:p@rabbit" }
  })) {
    it.effect(`are refused with ${given}, and the error names enableServiceLinks`, () =>
      Effect.gen(function* () {
        const text = yield* refusedEnvironment({ ...variables, ...serviceLinks })
        assert.include(text, "enableServiceLinks: false")
        assert.deepStrictEqual(yield* refusedVariables({ ...variables, ...serviceLinks }), ["AMQP_PORT"])
      })
    )
  }
})
