/** Settings from a plain object: defaults, bounds, and mistakes. */
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { AmqpConfig } from "@effect-amqp/core"
import { Duration, Effect, Redacted, Schedule } from "effect"
import type { Key } from "../src/internal/config/settings.ts"
import { certificate, issuesOf, key, millis, refused, untyped } from "./AmqpConfig.fixtures.ts"

describe("types", () => {
  it("every option is a setting and every setting is an option, otherwise this does not compile", () => {
    type Options = Required<AmqpConfig.Options>
    type Group = "tls" | "tcp" | "reconnect" | "pool"
    type Grouped = { [Name in Group]: `${Name}.${keyof Extract<Options[Name], object> & string}` }[Group]
    // Whether there is TLS or a pool is a setting as well. `credentials` are read into three settings, `url` into all of them.
    type Given = Exclude<keyof Options, Group | "credentials" | "url"> | "tls" | "pool" | "authMechanism" | Grouped
    expectTypeOf<Given>().toEqualTypeOf<Key>()
  })
})

describe("defaults", () => {
  it.effect("without options mean a broker on this machine, with the documented defaults", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.make()
      const { credentials, pool } = config
      assert.deepStrictEqual(config.hosts, [{ host: "localhost", port: 5672 }])
      assert.strictEqual(config.vhost, "/")
      assert.isTrue(credentials._tag === "Plain" && credentials.username === "guest")
      assert.isTrue(credentials._tag === "Plain" && Redacted.value(credentials.password) === "guest")
      assert.isUndefined(config.tls)
      assert.strictEqual(millis(config.heartbeat), 10_000)
      assert.strictEqual(config.channelMax, 2047)
      assert.strictEqual(config.frameMax, 131_072)
      assert.strictEqual(config.locale, "en_US")
      assert.isUndefined(config.connectionName)
      assert.deepStrictEqual({ ...config.clientProperties }, {})
      assert.isFalse(config.lazyConnect)
      assert.strictEqual(config.connectionAttempts, 1)
      assert.strictEqual(millis(config.retryDelay), 2000)
      const { healthyAfter, maxDelay, minDelay, schedule } = config.reconnect
      assert.deepStrictEqual([minDelay, maxDelay, healthyAfter].map(millis), [100, 30_000, 1000])
      assert.isUndefined(schedule)
      assert.strictEqual(config.reconnect.onRefused, "retry")
      assert.strictEqual(millis(config.socketTimeout), 10_000)
      assert.strictEqual(millis(config.connectTimeout), 10_000)
      assert.strictEqual(millis(config.closeTimeout), 3000)
      assert.strictEqual(millis(config.continuationTimeout), 20_000)
      assert.strictEqual(millis(config.publishTimeout), 10_000)
      assert.strictEqual(config.writeBufferSize, 262_144)
      assert.strictEqual(config.maxInboundMessageBodySize, 134_217_728)
      assert.isUndefined(config.blockedConnectionTimeout)
      assert.isTrue(config.tcp.noDelay && config.tcp.keepAlive)
      assert.strictEqual(millis(config.tcp.keepAliveDelay), 30_000)
      assert.strictEqual(millis(config.shutdownTimeout), 10_000)
      assert.isTrue(pool !== false)
      if (pool === false) return
      assert.deepStrictEqual([pool.min, pool.max, pool.maxWaiting], [0, 16, 10_000])
      assert.deepStrictEqual(
        [pool.recycle, pool.idleTimeout, pool.acquireTimeout].map(millis),
        [600_000, 300_000, 5000]
      )
    })
  )

  it.effect("of reconnecting: the longest delay is at least the shortest, and a schedule replaces both", () =>
    Effect.gen(function* () {
      const { reconnect } = yield* AmqpConfig.make({ reconnect: { minDelay: "1 minute", healthyAfter: 0 } })
      assert.deepStrictEqual(
        [reconnect.minDelay, reconnect.maxDelay, reconnect.healthyAfter].map(millis),
        [60_000, 60_000, 0]
      )
      const schedule = Schedule.spaced("1 second")
      assert.strictEqual((yield* AmqpConfig.make({ reconnect: { schedule } })).reconnect.schedule, schedule)
      const wrong = [
        { minDelay: "2 seconds", maxDelay: "1 second" },
        { maxDelay: 0 },
        { schedule: 5 },
        { schedule, minDelay: 1 },
        { delay: 1 },
        { onRefused: "final" },
        true
      ]
      assert.deepStrictEqual(
        yield* Effect.forEach(wrong, (reconnect) =>
          Effect.map(issuesOf(AmqpConfig.make(untyped({ reconnect }))), (issues) =>
            issues.map(({ got, setting }) => `${setting}: ${got}`).join()
          )
        ),
        [
          'reconnect.maxDelay: "1 second"',
          "reconnect.maxDelay: 0",
          "reconnect.schedule: a number",
          "reconnect.minDelay: both",
          "reconnect.delay: an unknown option",
          'reconnect.onRefused: "final"',
          "reconnect: a boolean"
        ]
      )
    })
  )

  it.effect("apply to undefined, at every level", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.make({
        host: undefined,
        tls: undefined,
        heartbeat: undefined,
        tcp: { noDelay: undefined },
        reconnect: { minDelay: undefined, schedule: undefined },
        pool: { max: undefined }
      })
      assert.deepStrictEqual(config, yield* AmqpConfig.make())
    })
  )

  it.effect("of TLS move the default port to 5671, and keep a given port", () =>
    Effect.gen(function* () {
      const login = { username: "orders", password: "s3cret", tls: true }
      const config = yield* AmqpConfig.make({ ...login, hosts: ["a", "b:5672", { host: "c" }, "[::1]:1"] })
      assert.deepStrictEqual(config.hosts, [
        { host: "a", port: 5671 },
        { host: "b", port: 5672 },
        { host: "c", port: 5671 },
        { host: "::1", port: 1 }
      ])
      const named = yield* AmqpConfig.make({ ...login, hosts: ["a", "b:1"], port: 9 })
      assert.deepStrictEqual(
        named.hosts.map((host) => host.port),
        [9, 1]
      )
    })
  )

  it.effect("never make a pool larger than the number of channels of a connection", () =>
    Effect.gen(function* () {
      const { pool } = yield* AmqpConfig.make({ channelMax: 8 })
      assert.strictEqual(pool === false ? 0 : pool.max, 8)
      assert.deepStrictEqual(yield* refused(AmqpConfig.make({ channelMax: 8, pool: { max: 9 } })), ["pool.max"])
    })
  )
})

describe("durations", () => {
  it.effect("as numbers are milliseconds, and every other Duration.Input means what it means in Effect", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.make({
        heartbeat: 5000,
        retryDelay: 0,
        socketTimeout: "2 minutes",
        connectTimeout: Duration.seconds(7),
        closeTimeout: 1_500_000_000n,
        continuationTimeout: [1, 500_000_000],
        publishTimeout: { minutes: 1, seconds: 5 },
        blockedConnectionTimeout: "1 hour"
      })
      const read = [
        config.heartbeat,
        config.retryDelay,
        config.socketTimeout,
        config.connectTimeout,
        config.closeTimeout,
        config.continuationTimeout,
        config.publishTimeout,
        config.blockedConnectionTimeout
      ]
      assert.deepStrictEqual(read.map(millis), [5000, 0, 120_000, 7000, 1500, 1500, 65_000, 3_600_000])
    })
  )

  it.effect("of Infinity mean never where never makes sense, and are refused elsewhere", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.make({
        blockedConnectionTimeout: "Infinity",
        pool: { recycle: Infinity, idleTimeout: Duration.infinity }
      })
      assert.isUndefined(config.blockedConnectionTimeout)
      assert.isTrue(config.pool !== false && config.pool.recycle === undefined)
      assert.isTrue(config.pool !== false && config.pool.idleTimeout === undefined)
      const settings = yield* refused(
        AmqpConfig.make({ socketTimeout: Infinity, retryDelay: "Infinity", pool: { acquireTimeout: "Infinity" } })
      )
      assert.deepStrictEqual(settings, ["retryDelay", "socketTimeout", "pool.acquireTimeout"])
    })
  )

  for (const heartbeat of [0, 1000, 65_535_000]) {
    it.effect(`accept a heartbeat of ${heartbeat} ms`, () =>
      Effect.map(AmqpConfig.make({ heartbeat }), (config) => assert.strictEqual(millis(config.heartbeat), heartbeat))
    )
  }

  const wrong: Record<string, unknown> = {
    "a fraction of a second": 1500,
    "more than 16 bits of seconds": 65_536_000,
    negative: -1000,
    NaN: Number.NaN,
    infinite: Infinity,
    "a text without a unit": "10",
    "a misspelt unit": "10 secs",
    "an object with a misspelt field": { second: 10 },
    "an empty object": {},
    "a tuple of other things": ["10", 0],
    "a Date": new Date(10_000),
    null: null,
    "a boolean": true
  }
  for (const [name, heartbeat] of Object.entries(wrong)) {
    it.effect(`refuse a heartbeat that is ${name}`, () =>
      Effect.map(refused(AmqpConfig.make(untyped({ heartbeat }))), (settings) =>
        assert.deepStrictEqual(settings, ["heartbeat"])
      )
    )
  }

  it.effect("of timeouts above Node's longest timer are refused, because such a timer would fire at once", () =>
    Effect.gen(function* () {
      yield* AmqpConfig.make({ socketTimeout: 2 ** 31 - 1 })
      assert.deepStrictEqual(yield* refused(AmqpConfig.make({ socketTimeout: 2 ** 31 })), ["socketTimeout"])
      assert.deepStrictEqual(yield* refused(AmqpConfig.make({ pool: { recycle: "30 days" } })), ["pool.recycle"])
    })
  )
})

describe("bounds", () => {
  const login = { username: "orders", password: "s3cret" }
  const taken: ReadonlyArray<AmqpConfig.Options> = [
    { port: 1 },
    { port: 65_535 },
    { channelMax: 1 },
    { channelMax: 65_535 },
    { frameMax: 4096 },
    { frameMax: 2 ** 32 - 1 },
    { pool: { max: 1, min: 1, maxWaiting: 0 } },
    { vhost: "é".repeat(127) },
    { ...login, username: "u".repeat(255) },
    { host: "::1" },
    { host: "[::1]" },
    { host: "127.0.0.1" },
    { host: "rabbit.localhost" },
    { ...login, host: "rabbit_1.example.org." }
  ]
  for (const options of taken) {
    it.effect(`accept ${JSON.stringify(options).slice(0, 60)}`, () => AmqpConfig.make(options))
  }

  const wrong: ReadonlyArray<readonly [options: unknown, setting: string]> = [
    [{ port: 0 }, "port"],
    [{ port: 65_536 }, "port"],
    [{ port: -1 }, "port"],
    [{ port: 5672.5 }, "port"],
    [{ port: Number.NaN }, "port"],
    [{ port: Infinity }, "port"],
    [{ port: "5672" }, "port"],
    [{ channelMax: 0 }, "channelMax"],
    [{ channelMax: 65_536 }, "channelMax"],
    [{ frameMax: 4095 }, "frameMax"],
    [{ frameMax: 2 ** 32 }, "frameMax"],
    [{ connectionAttempts: 0 }, "connectionAttempts"],
    [{ pool: { max: 0 } }, "pool.max"],
    [{ pool: { max: 65_536 } }, "pool.max"],
    [{ pool: { min: -1 } }, "pool.min"],
    [{ pool: { min: 17 } }, "pool.min"],
    [{ pool: { max: 4, min: 5 } }, "pool.min"],
    [{ pool: { max: 0, min: 20 } }, "pool.max"],
    [{ pool: { maxWaiting: -1 } }, "pool.maxWaiting"],
    [{ pool: { maxWaiting: Infinity } }, "pool.maxWaiting"],
    [{ pool: { acquireTimeout: 0 } }, "pool.acquireTimeout"],
    [{ pool: true }, "pool"],
    [{ pool: 16 }, "pool"],
    [{ tcp: false }, "tcp"],
    [{ tcp: { noDelay: "yes" } }, "tcp.noDelay"],
    [{ tcp: { keepAliveDelay: 999 } }, "tcp.keepAliveDelay"],
    [{ tls: "true" }, "tls"],
    [{ vhost: "" }, "vhost"],
    [{ vhost: "é".repeat(128) }, "vhost"],
    [{ vhost: "a\0b" }, "vhost"],
    [{ vhost: "\ud800" }, "vhost"],
    [{ vhost: 3 }, "vhost"],
    [{ ...login, username: "u".repeat(256) }, "username"],
    [{ ...login, username: "" }, "username"],
    [{ ...login, username: "a\0b" }, "username"],
    [{ locale: "" }, "locale"],
    [{ connectionName: "x".repeat(256) }, "connectionName"],
    [{ host: "" }, "host"],
    [{ host: "a b" }, "host"],
    [{ host: "localhost:5672" }, "host"],
    [{ host: "a,b" }, "host"],
    [{ host: "999.1.1.1" }, "host"],
    [{ host: "[fe80" }, "host"],
    [{ host: "größe.example" }, "host"],
    [{ host: "a".repeat(64) }, "host"],
    [{ host: `${"a.".repeat(126)}aa` }, "host"],
    [{ host: "amqp://localhost" }, "host"],
    [{ hosts: [] }, "hosts"],
    [{ hosts: "localhost" }, "hosts"],
    [{ hosts: ["localhost:0"] }, "hosts"],
    [{ hosts: ["localhost", "localhost:x"] }, "hosts[1]"],
    [{ hosts: ["localhost", { host: "localhost", port: 70_000 }] }, "hosts[1]"],
    [{ hosts: ["localhost", { host: "localhost", prot: 70_000 }] }, "hosts[1]"],
    [{ hosts: ["localhost", "::1:5672:"] }, "hosts[1]"],
    [{ hosts: ["localhost:1"], port: 2 }, "port"],
    [{ host: "localhost", hosts: ["localhost"] }, "host"]
  ]
  for (const [options, setting] of wrong) {
    it.effect(`refuse ${JSON.stringify(options).slice(0, 60)}, and no other setting of it`, () =>
      Effect.map(refused(AmqpConfig.make(untyped(options))), (settings) => assert.deepStrictEqual(settings, [setting]))
    )
  }
})

describe("mistakes", () => {
  it.effect("are all in one error, each with got and expected", () =>
    Effect.gen(function* () {
      const effect = AmqpConfig.make(
        untyped({
          port: 99_999,
          heartbeat: "soon",
          channelMax: 1.5,
          pool: { max: 0 },
          tls: { verfy: false },
          vhots: "x"
        })
      )
      const issues = yield* issuesOf(effect)
      const error = yield* Effect.flip(effect)
      assert.strictEqual(error.reason._tag, "InvalidConfig")
      assert.isFalse(error.isRetryable)
      assert.deepStrictEqual(
        issues.map(({ got, setting }) => [setting, got]),
        [
          ["tls.verfy", "an unknown option"],
          ["vhots", "an unknown option"],
          ["port", "99999"],
          ["channelMax", "1.5"],
          ["heartbeat", '"soon"'],
          ["pool.max", "0"]
        ]
      )
      for (const { got, setting, expected } of issues) {
        assert.include(error.message, `${setting}: expected ${expected}, got ${got}`)
      }
    })
  )

  const misspelt: ReadonlyArray<readonly [options: unknown, setting: string, meant: string]> = [
    [{ tls: { verfy: true } }, "tls.verfy", "tls.verify"],
    [{ tls: { rejectUnauthorized: true } }, "tls.rejectUnauthorized", "verify"],
    [{ tls: { rejectUnauthorised: true } }, "tls.rejectUnauthorised", "verify"],
    [{ pool: { size: 3 } }, "pool.size", "max"],
    [{ pool: { idletimeout: 3 } }, "pool.idletimeout", "pool.idleTimeout"],
    [{ tcp: { nodelay: true } }, "tcp.nodelay", "tcp.noDelay"],
    [{ heartBeat: 3 }, "heartBeat", "heartbeat"],
    [{ virtualHost: "x" }, "virtualHost", "vhost"],
    [{ authMechanism: "external" }, "authMechanism", "credentials"],
    [{ "pool.max": 3 }, "pool.max", "pool"],
    [
      { credentials: { _tag: "External", usrname: "x" }, tls: { cert: certificate, key } },
      "credentials.usrname",
      "credentials.username"
    ],
    [JSON.parse('{ "__proto__": { "host": "evil.example" } }'), "__proto__", "host"]
  ]
  for (const [options, setting, meant] of misspelt) {
    it.effect(`of an unknown option, ${setting}, list the options that exist`, () =>
      Effect.map(issuesOf(AmqpConfig.make(untyped(options))), (issues) => {
        assert.deepStrictEqual(
          issues.map((issue) => issue.setting),
          [setting]
        )
        assert.include(issues[0]?.expected, meant)
      })
    )
  }

  for (const options of [null, "amqp://localhost", 3, [], () => ({})]) {
    it.effect(`of options that are ${Array.isArray(options) ? "an array" : String(options)} are refused`, () =>
      Effect.map(refused(AmqpConfig.make(untyped(options))), (settings) =>
        assert.deepStrictEqual(settings, ["options"])
      )
    )
  }
})

describe("credentials", () => {
  const outcomes: ReadonlyArray<readonly [options: unknown, refusedSettings: ReadonlyArray<string>]> = [
    [{ username: "orders" }, ["password"]],
    [{ password: "s3cret" }, ["username"]],
    [{ username: "orders", password: "" }, ["password"]],
    [{ username: "orders", password: Redacted.make("") }, ["password"]],
    [{ username: "orders", password: Redacted.make(3) }, ["password"]],
    [{ username: "orders", password: "a\0b" }, ["password"]],
    [{ credentials: { _tag: "Plain" } }, ["credentials.username", "credentials.password"]],
    [{ credentials: { _tag: "Plain", username: "orders" } }, ["credentials.password"]],
    [{ credentials: { _tag: "External", username: "orders" } }, ["credentials.username", "tls.cert"]],
    [{ credentials: { _tag: "plain", username: "orders", password: "s3cret" } }, ["credentials._tag"]],
    [{ credentials: "External" }, ["credentials"]],
    [{ credentials: { _tag: "Plain", username: "a", password: "b" }, username: "c" }, ["username"]],
    [{ credentials: { _tag: "External" }, username: "c", password: "d" }, ["username", "password", "tls.cert"]],
    [{ credentials: { _tag: "External" } }, ["tls.cert"]],
    [{ credentials: { _tag: "External" }, tls: true }, ["tls.cert"]],
    [{ credentials: { _tag: "External" }, tls: { key } }, ["tls.cert"]],
    [{ credentials: { _tag: "External" }, tls: { cert: certificate } }, ["tls.key"]]
  ]
  for (const [options, settings] of outcomes) {
    it.effect(`${JSON.stringify(options)} are refused because of ${settings.join(" and ")}`, () =>
      Effect.map(refused(AmqpConfig.make(untyped(options))), (found) =>
        assert.deepStrictEqual([...found].sort(), [...settings].sort())
      )
    )
  }

  it.effect("with a wiped password are refused", () =>
    Effect.gen(function* () {
      const password = Redacted.make("s3cret")
      Redacted.wipeUnsafe(password)
      assert.deepStrictEqual(yield* refused(AmqpConfig.make({ username: "orders", password })), ["password"])
    })
  )

  it.effect("default to guest for this machine only", () =>
    Effect.gen(function* () {
      for (const host of ["localhost", "127.0.0.1", "127.1.2.3", "::1", "LOCALHOST"]) {
        yield* AmqpConfig.make({ host })
      }
      for (const host of ["rabbit", "10.0.0.1", "localhost.example.org", "::2", "127.example.org"]) {
        assert.deepStrictEqual(yield* refused(AmqpConfig.make({ host })), ["username"])
      }
      assert.deepStrictEqual(yield* refused(AmqpConfig.make({ hosts: ["localhost", "rabbit"] })), ["username"])
      yield* AmqpConfig.make({ host: "rabbit", username: "guest", password: "guest" })
    })
  )

  it.effect("for EXTERNAL need neither user name nor password", () =>
    Effect.gen(function* () {
      const tls = { cert: certificate, key }
      const config = yield* AmqpConfig.make({ host: "rabbit", tls, credentials: { _tag: "External" } })
      assert.deepStrictEqual(config.credentials, { _tag: "External" })
    })
  )
})

describe("client properties", () => {
  it.effect("are copied deeply, without prototypes, and a connection name among them becomes the connection's", () =>
    Effect.gen(function* () {
      const labels = ["a"]
      const config = yield* AmqpConfig.make({
        clientProperties: { product: "shop", connection_name: "orders", nested: { labels, none: undefined } }
      })
      labels.push("b")
      assert.strictEqual(config.connectionName, "orders")
      assert.strictEqual(JSON.stringify(config.clientProperties), '{"product":"shop","nested":{"labels":["a"]}}')
      assert.isNull(Object.getPrototypeOf(config.clientProperties))
    })
  )

  const cyclic: Record<string, unknown> = {}
  cyclic["self"] = cyclic
  const wrong: ReadonlyArray<readonly [properties: unknown, setting: string]> = [
    ["product", "clientProperties"],
    [[1], "clientProperties"],
    [new Map(), "clientProperties"],
    [{ f: () => 1 }, "clientProperties.f"],
    [{ n: Number.NaN }, "clientProperties.n"],
    [{ d: { e: [1, new Date(0)] } }, "clientProperties.d.e[1]"],
    [{ capabilities: {} }, "clientProperties.capabilities"],
    [JSON.parse('{ "__proto__": 1 }'), "clientProperties.__proto__"],
    [{ x: "x".repeat(2048) }, "clientProperties"],
    [{ connection_name: 3 }, "clientProperties.connection_name"]
  ]
  for (const [clientProperties, setting] of wrong) {
    it.effect(`with ${setting} that AMQP's tables cannot contain, or must not, are refused`, () =>
      Effect.map(refused(AmqpConfig.make(untyped({ clientProperties }))), (settings) =>
        assert.deepStrictEqual(settings, [setting])
      )
    )
  }

  it.effect("that contain themselves are refused", () =>
    Effect.map(refused(AmqpConfig.make({ clientProperties: cyclic })), (settings) => assert.lengthOf(settings, 1))
  )

  it.effect("with a second name for the connection are refused", () =>
    Effect.map(
      refused(AmqpConfig.make({ connectionName: "a", clientProperties: { connection_name: "b" } })),
      (settings) => assert.deepStrictEqual(settings, ["clientProperties.connection_name"])
    )
  )
})
