/**
 * A password that is easy to find goes through everything that the library can produce, and is found in none of it:
 * errors, causes, log lines, spans, metrics, states, services, handles, and the sockets behind them.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Amqp,
  AmqpChannel,
  AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  AmqpError,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import {
  Cause,
  ConfigProvider,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Option,
  Redacted,
  References,
  Schedule,
  Schema,
  type Scope,
  Tracer
} from "effect"
import { createPrivateKey } from "node:crypto"
import type { TlsOptions } from "node:tls"
import { inspect } from "node:util"
import { vi } from "vitest"
import { closedByRefusals, configOf, type Overrides, untilState } from "./support/amqp.ts"
import * as Certificates from "./support/certificates.ts"
import { encodeMessage } from "./support/frames.ts"
import { start } from "./support/publisher.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { SecretSearch } from "./support/SecretSearch.ts"
import { handlesTo } from "./support/sockets.ts"
import * as TlsProxy from "./support/TlsProxy.ts"

const millis = Duration.millis

const word = "c4n4ry-b1rd-0815"

/** The word alone, and with characters that URLs, JSON and regular expressions escape. */
const secrets = [word, `${word} /@:?#&=+%2F%é`, `"${word}"\\ \n\t'\``, `^(${word}|.*)+[a-z]{2}$\\d`]

type Watched = Effect.Effect<unknown, unknown, Scope.Scope>

/** Runs a program, and searches everything that it logs (at every level), traces, measures and prints. */
const watching = Effect.fnUntraced(function* (program: (search: SecretSearch) => Watched) {
  const search = new SecretSearch(word)
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  let lines = 0
  const logger = Logger.make((entry) => {
    lines++
    for (const format of [Logger.formatSimple, Logger.formatLogFmt, Logger.formatStructured, Logger.formatJson]) {
      search.look("a log line", format.log(entry))
    }
    const { fiber, ...line } = entry
    search.look("a log line", [line, fiber.getRef(References.CurrentLogAnnotations)])
    search.reach("the fiber of a log line", fiber)
  })
  const warned = (warning: Error) => search.look("a warning", warning)
  const spies = (["log", "info", "warn", "error", "debug"] as const).map((method) =>
    vi.spyOn(console, method).mockImplementation((...args) => search.look(`console.${method}`, args))
  )
  process.on("warning", warned)
  const exit = yield* program(search).pipe(
    Effect.scoped,
    Effect.withSpan("the program"),
    Effect.provide(Logger.layer([logger, Logger.tracerLogger])),
    Effect.provideService(References.MinimumLogLevel, "All"),
    Effect.provideService(Tracer.Tracer, tracer),
    Effect.exit
  )
  process.off("warning", warned)
  for (const spy of spies) spy.mockRestore()
  search.look("the program's exit", exit)
  for (const span of spans) search.look("a span", span)
  assert.deepStrictEqual(search.found, [])
  yield* exit
  return { seen: search.seen, lines, spans: spans.length }
})

const forEach = (program: (secret: string) => (search: SecretSearch) => Watched, all = secrets) =>
  Effect.forEach(all, (secret) => watching(program(secret)))

/** For a program that takes a while. */
const once = (program: (secret: string) => (search: SecretSearch) => Watched) => forEach(program, [secrets.join(" ")])

/** Fails with one of these tags, without the secret. */
const fails = <R>(
  search: SecretSearch,
  name: string,
  effect: Effect.Effect<unknown, unknown, R>,
  ...tags: ReadonlyArray<AmqpError.AmqpErrorReason["_tag"] | "Defect">
) =>
  Effect.gen(function* () {
    const exit = yield* Effect.exit(Effect.scoped(Effect.withSpan(effect, name)))
    search.look(name, exit)
    if (Exit.isSuccess(exit)) return assert.fail(`${name} did not fail`)
    const { cause } = exit
    search.look(name, cause)
    const errors = [Cause.squash(cause), ...Cause.prettyErrors(cause), ...cause.reasons]
    const rejected = yield* Effect.promise(() => Effect.runPromise(Exit.asVoid(exit)).catch((error: unknown) => error))
    for (const error of [...errors, rejected]) search.look(name, error)
    const error = Cause.findErrorOption(cause)
    if (Option.isSome(error) && AmqpError.isAmqpError(error.value)) {
      const { reason } = error.value
      for (const of of [error.value, reason, "cause" in reason ? reason.cause : undefined]) search.look(name, of)
      search.look(`${name}, encoded`, Schema.encodeUnknownSync(AmqpError.AmqpError)(error.value))
      if (tags.length > 0) assert.include(tags, reason._tag, name)
    } else if (tags.length > 0) assert.include(tags, "Defect", name)
  })

const login = (secret: string): Overrides => ({
  credentials: { _tag: "Plain", username: "alice", password: Redacted.make(secret) },
  reconnect: {
    minDelay: millis(1),
    maxDelay: millis(5),
    healthyAfter: millis(1000),
    schedule: undefined,
    onRefused: "retry"
  }
})

const layerOf = (broker: ScriptedBroker.ScriptedBroker, secret: string, more?: Overrides) =>
  Amqp.fromConfig(configOf(broker.url, { ...login(secret), ...more }))

/** Everything that a program holds: its services, and the sockets behind them. */
const everything = Effect.fnUntraced(function* (search: SecretSearch, port: number) {
  const connection = yield* AmqpConnection.AmqpConnection
  const services = [
    connection,
    yield* AmqpPool.AmqpPool,
    yield* AmqpPublisher.AmqpPublisher,
    yield* AmqpConsumer.AmqpConsumer,
    yield* AmqpRpc.AmqpRpc
  ]
  for (const service of services) search.look("a service", service)
  search.look("a configuration", connection.config)
  search.look("a state", connection.state.value)
  search.look("the states", connection.state)
  const metrics = yield* Metric.snapshot
  assert.isTrue(metrics.some(({ id }) => id === "amqp.client.connection.state"))
  search.look("metrics", metrics)
  search.text("metrics", yield* Metric.dump)
  search.reach("the context", yield* Effect.context())
  search.reach("the fiber", Fiber.getCurrent())
  for (const handle of handlesTo(port)) search.reach("a socket", handle)
})

/** A scripted broker that speaks TLS: its port. */
const behindTls = (options: TlsOptions) =>
  ScriptedBroker.make().pipe(
    Effect.flatMap((broker) => TlsProxy.make(broker, options)),
    Effect.map(({ port }) => port)
  )

describe("the search", () => {
  it("finds the word in every encoding, wherever it can be reached", () => {
    const bytes = Buffer.from(`\0alice\0${word}`)
    const withHidden = Object.defineProperty({}, "hidden", { value: word })
    const cyclic: Record<string, unknown> = { deep: { deeper: { deepest: [[[[[{ word }]]]]] } } }
    cyclic["self"] = cyclic
    class Getter {
      get secret() {
        return encodeURIComponent(`${word}/`)
      }
    }
    const kinds: Record<string, unknown> = {
      text: `password=${word}`,
      "upper case": word.toUpperCase(),
      URL: encodeURIComponent(`/${word}/`),
      JSON: JSON.stringify(JSON.stringify({ password: `"${word}"` })),
      base64: bytes.toString("base64"),
      "base64, moved by one": Buffer.from(`.${word}`).toString("base64"),
      "base64, moved by two": Buffer.from(`..${word}`).toString("base64url"),
      hexadecimal: bytes.toString("hex"),
      "a printed Buffer": inspect(bytes),
      "numbers, over lines": `[\n${[...bytes].join(",\n  ")}\n]`,
      "a Buffer": bytes,
      "a Buffer as JSON": bytes.toJSON(),
      "an array of letters": [...word],
      "an error": new Error(word),
      "a cause": new Error("x", { cause: new Error(word) }),
      "a hidden property": withHidden,
      "a symbol": { [Symbol(word)]: 1 },
      "a key": { [word]: 1 },
      "a map": new Map([["a", new Set([word])]]),
      "a getter": new Getter(),
      "a cycle": cyclic,
      "a property of a function": Object.assign(() => {}, { word }),
      "a failed cause": Cause.fail({ word })
    }
    for (const [kind, value] of Object.entries(kinds)) {
      const search = new SecretSearch(word)
      search.look(kind, value)
      assert.isNotEmpty(search.found, kind)
    }
    const search = new SecretSearch(word)
    search.look("a redacted one", { password: Redacted.make(word), other: "c4n4ry b1rd 081" })
    assert.isEmpty(search.found)
  })
})

describe("the password is nowhere", () => {
  it.live("in a program that works: its services, channels, deliveries, states, sockets and logs", () =>
    Effect.gen(function* () {
      const runs = yield* forEach(
        (secret) => (search) =>
          Effect.gen(function* () {
            const broker = yield* ScriptedBroker.make()
            yield* Effect.gen(function* () {
              yield* everything(search, broker.port)
              const handles = yield* Effect.all([
                AmqpChannel.use(Effect.succeed),
                AmqpChannel.useConfirm(Effect.succeed),
                AmqpChannel.useTransaction(Effect.succeed)
              ])
              for (const handle of handles) search.look("a channel", handle)
              const [channel] = handles
              yield* channel.queueDeclare("q")
              yield* AmqpPublisher.publish({ routingKey: "q", content: "m" })
              search.look("a delivery", yield* channel.get("q"))
              const delivered = yield* Deferred.make<unknown>()
              broker.enqueue("q", "m")
              const consumer = yield* start(AmqpConsumer.consume("q", (now) => Deferred.succeed(delivered, now)))
              search.look("a delivery", yield* Deferred.await(delivered))
              search.look("statistics", [
                yield* AmqpPool.stats,
                yield* (yield* AmqpPublisher.AmqpPublisher).stats,
                yield* AmqpRpc.stats
              ])
              const { connection: consumers } = yield* AmqpConsumer.AmqpConsumer
              search.look("the consumers' connection", yield* consumers)
              yield* Fiber.interrupt(consumer)
              search.look("a fiber", consumer)
              yield* everything(search, broker.port)
            }).pipe(Effect.scoped, Effect.provide(layerOf(broker, secret)))
            assert.isAbove(broker.count("connection.start-ok"), 1)
          })
      )
      for (const { lines, seen, spans } of runs) {
        assert.isAbove(seen, 2000)
        assert.isAbove(lines, 3)
        assert.isAbove(spans, 0)
      }
    })
  )

  it.live("in any failure to connect", () =>
    forEach(
      (secret) => (search) =>
        Effect.gen(function* () {
          const ways: Record<string, readonly [ScriptedBroker.Options, ...Array<AmqpError.AmqpErrorReason["_tag"]>]> = {
            "a refused login": [{ on: { "connection.start-ok": ScriptedBroker.refuseLogin } }, "AuthenticationFailed"],
            "a refused virtual host": [
              { on: { "connection.open": ScriptedBroker.unknownVhost } },
              "VirtualHostRefused"
            ],
            "no common mechanism": [
              { on: { "protocol-header": ({ reply }) => reply("connection.start", { mechanisms: "EXTERNAL" }) } },
              "AuthenticationFailed"
            ],
            "a challenge": [
              { on: { "connection.start-ok": ({ reply }) => reply("connection.secure") } },
              "ProtocolError"
            ],
            "a login that comes back": [
              {
                on: { "connection.start-ok": ({ args, write }) => write(encodeMessage(0, "connection.start-ok", args)) }
              },
              "ProtocolError"
            ],
            "an absurd tune": [{ tune: { frameMax: 7 } }, "ProtocolError"],
            rubbish: [{ on: { "connection.start-ok": ({ write }) => write(Buffer.from("HTTP/1.1 400 Bad Request")) } }],
            "no start": [{ on: { "protocol-header": () => {} } }, "ConnectTimeout"],
            "no tune": [{ on: { "connection.start-ok": () => {} } }, "ConnectTimeout"],
            "no open-ok": [{ on: { "connection.open": () => {} } }, "ConnectTimeout"],
            "a reset": [{ on: { "connection.start-ok": ({ destroy }) => destroy() } }, "ConnectionClosed"],
            "an end": [{ on: { "connection.open": ({ end }) => end() } }, "ConnectionClosed"]
          }
          for (const [name, [options, ...tags]] of Object.entries(ways)) {
            const broker = yield* ScriptedBroker.make({ protocolErrors: "record", ...options })
            const endsByTime = tags.length === 0 || tags.includes("ConnectTimeout")
            const layer = layerOf(broker, secret, { connectTimeout: millis(endsByTime ? 150 : 10_000) })
            yield* fails(search, name, Layer.build(layer), ...tags)
            yield* broker.down
          }
          for (const cutAfter of [1, 8, 40, 120, 200, 300, 400, 500]) {
            const broker = yield* ScriptedBroker.make({ cutAfter, protocolErrors: "record" })
            yield* Effect.exit(fails(search, "a cut handshake", Layer.build(layerOf(broker, secret))))
            yield* broker.down
            if (cutAfter === 500)
              yield* fails(search, "nobody there", Layer.build(layerOf(broker, secret)), "ConnectFailed")
          }
          const nowhere = configOf("amqp://x:y@no-such-host.invalid:1", login(secret))
          yield* fails(search, "no such host", Layer.build(Amqp.fromConfig(nowhere)), "ConnectFailed")
        })
    )
  )

  it.live("with TLS that works and TLS that fails, and neither is the key nor its passphrase", () =>
    forEach(
      (secret) => (search) =>
        Effect.gen(function* () {
          const key = createPrivateKey(Certificates.client.key)
          const passphrase = Redacted.make(secret)
          const encrypted = key.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: secret })
          const { cert } = Certificates.client
          const optionsFor = (port: number, tls: AmqpConfig.TlsOptions): AmqpConfig.Options => {
            const identity = { cert, key: encrypted.toString(), passphrase }
            // On many machines the name has two addresses, and Node's list of sockets loses one that has tried the
            // first.
            const server = { servername: "localhost", ...identity, ...tls }
            return { host: "127.0.0.1", port, username: "alice", password: secret, tls: server }
          }
          const keys = new SecretSearch(key.export({ type: "pkcs8", format: "pem" }).toString().split("\n")[1]!)
          const mutual: TlsOptions = { requestCert: true, rejectUnauthorized: true, ca: Certificates.ca }
          const works = yield* behindTls(mutual)
          const open = { key: Certificates.client.key, passphrase: undefined }
          for (const identity of [{}, open]) {
            yield* Effect.gen(function* () {
              yield* everything(search, works)
              for (const handle of handlesTo(works)) keys.look("a socket", handle)
              assert.isNotEmpty(handlesTo(works))
            }).pipe(
              Effect.scoped,
              Effect.provide(Amqp.layer(optionsFor(works, { ca: Certificates.ca, ...identity })), { local: true })
            )
          }
          assert.deepStrictEqual(keys.found, [])
          const untrusted = yield* behindTls({ ...mutual, ca: Certificates.rogueCa })
          const asked = (port: number, tls: AmqpConfig.TlsOptions) => Layer.build(Amqp.layer(optionsFor(port, tls)))
          const { ca } = Certificates
          yield* fails(search, "an unknown authority", asked(works, {}), "TlsFailed")
          yield* fails(search, "another name", asked(works, { ca, servername: "rabbit.example" }), "TlsFailed")
          yield* fails(search, "a refused client", asked(untrusted, { ca }), "TlsFailed", "ConnectionClosed")
          yield* fails(search, "a wrong passphrase", asked(works, { ca, passphrase: `${secret}!` }), "InvalidConfig")
          // These settings were not validated: the key fails when it is used.
          const broken = configOf(`amqps://x:y@localhost:${works}`, {
            ...login(secret),
            tls: {
              ca: [ca],
              cert,
              key: Redacted.make(encrypted.toString()),
              passphrase: Redacted.make(`${secret}!`),
              servername: undefined,
              verify: true,
              minVersion: "TLSv1.2",
              ciphers: undefined
            }
          })
          yield* fails(
            search,
            "a key that does not open",
            Layer.build(Amqp.fromConfig(broken)),
            "TlsFailed",
            "UnknownError"
          )
        })
    )
  )

  it.live("in settings, URLs and environments that are refused when a layer is built", () =>
    forEach(
      (secret) => (search) =>
        Effect.gen(function* () {
          const env = (variables: Record<string, string>) =>
            Layer.build(Amqp.AmqpLive).pipe(
              Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env: variables }))
            )
          const escaped = encodeURIComponent(secret)
          const url = `amqp://alice:${escaped}@rabbit`
          yield* fails(search, "options", Layer.build(Amqp.layer({ username: "alice", password: secret, port: 0 })))
          yield* fails(search, "a URL", Effect.flatMap(AmqpConfig.fromUrl(`${url}?hartbeat=1`), Effect.fail))
          yield* fails(search, "AMQP_URL", env({ AMQP_URL: `${url}:0` }))
          yield* fails(
            search,
            "AMQP_PASSWORD",
            env({ AMQP_USERNAME: "alice", AMQP_PASSWORD: secret, AMQP_POOL_SIZE: "x" })
          )
        })
    )
  )

  it.live("when a connection is lost and refused, and when a new secret is accepted, refused or never answered", () =>
    once(
      (secret) => (search) =>
        Effect.gen(function* () {
          const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
          yield* Effect.gen(function* () {
            const { updateSecret } = yield* AmqpConnection.AmqpConnection
            const update = (reason?: string) => updateSecret(Redacted.make(`new ${secret}`), reason)
            yield* update("taken")
            yield* everything(search, broker.port)
            broker.once("connection.update-secret", ({ closeConnection }) => closeConnection(530, "NOT_ALLOWED - no"))
            yield* fails(search, "a refused secret", update(), "AuthenticationFailed")
            yield* untilState((state) => state._tag === "Open")
            broker.once("connection.update-secret", () => {})
            yield* fails(search, "a secret without an answer", update(), "ReplyTimeout")
            broker.once("connection.update-secret", ({ destroy }) => destroy())
            yield* update("the connection dies")
            yield* untilState((state) => state._tag === "Open")
            const before = broker.count("connection.start-ok")
            broker.once("connection.update-secret", ({ args, write }) =>
              write(encodeMessage(0, "connection.update-secret", args))
            )
            yield* update("it comes back")
            yield* broker.received("connection.start-ok", before + 1)
            yield* untilState((state) => state._tag === "Open")
            for (const wrong of [Redacted.make(`${secret}\0`), Redacted.make([secret]), [secret]]) {
              yield* fails(
                search,
                "a wrong secret",
                updateSecret(wrong as Redacted.Redacted<string>),
                "InvalidArgument"
              )
            }
            yield* everything(search, broker.port)
            broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
            broker.destroy()
            search.look("the last state", yield* untilState((state) => state._tag === "Closed"))
            yield* fails(search, "a closed connection", AmqpChannel.use(Effect.succeed), "AuthenticationFailed")
            yield* fails(
              search,
              "a closed connection",
              AmqpConsumer.consume("q", Effect.succeed),
              "AuthenticationFailed"
            )
          }).pipe(
            Effect.scoped,
            Effect.provide(layerOf(broker, secret, { ...closedByRefusals, continuationTimeout: millis(1000) }))
          )
          // A schedule of the application dies.
          const dies = Schedule.fromStepWithMetadata(
            Effect.succeed(() => Effect.die(new Error("no schedule"))) as never
          )
          const reconnect = {
            minDelay: millis(1),
            maxDelay: millis(5),
            healthyAfter: millis(9),
            schedule: dies as never,
            onRefused: "retry" as const
          }
          broker.off("connection.start-ok")
          yield* Effect.gen(function* () {
            broker.destroy()
            search.look("the last state", yield* untilState((state) => state._tag === "Closed"))
          }).pipe(Effect.scoped, Effect.provide(layerOf(broker, secret, { reconnect })))
        })
    )
  )

  it.live("when operations are refused, time out or break the protocol, and when handlers fail and die", () =>
    once(
      (secret) => (search) =>
        Effect.gen(function* () {
          const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
          const declare = AmqpChannel.use((channel) => channel.queueDeclare("q"))
          const publish = AmqpPublisher.publish({ routingKey: "q", content: "m" }, { mandatory: true })
          const more: Overrides = {
            continuationTimeout: millis(1000),
            publishTimeout: millis(1000),
            pool: { max: 1, acquireTimeout: millis(1500) }
          }
          yield* Effect.gen(function* () {
            for (const [code, tag] of [
              [403, "AccessRefused"],
              [404, "NotFound"],
              [406, "PreconditionFailed"]
            ] as const) {
              broker.once("queue.declare", ({ closeChannel }) => closeChannel(code))
              yield* fails(search, `a ${code}`, declare, tag)
            }
            broker.once("queue.declare", () => {})
            yield* fails(search, "no reply", declare, "ReplyTimeout")
            const pool = yield* AmqpPool.AmqpPool
            yield* fails(
              search,
              "no channel",
              pool.use(() => pool.use(Effect.succeed)),
              "AcquireTimeout"
            )
            const released = yield* Effect.scoped(AmqpChannel.use(Effect.succeed))
            yield* fails(search, "a released channel", released.queueDeclare("q"), "ChannelReleased")
            broker.once("basic.publish", ({ channel, connection }) =>
              connection.send(channel, "basic.nack", { deliveryTag: 1, multiple: false })
            )
            yield* fails(search, "a nack", publish, "PublishNacked")
            broker.once("basic.publish", () => {})
            yield* fails(search, "no confirm", publish, "PublishTimeout")
            broker.once("basic.publish", ({ destroy }) => destroy())
            yield* fails(search, "death", publish, "PublishUnknown")
            yield* untilState((state) => state._tag === "Open")
            const consume = (handler: Effect.Effect<unknown, unknown>) =>
              Effect.gen(function* () {
                const ran = yield* Deferred.make<void>()
                broker.enqueue("q", "m")
                const settled = broker.count("basic.nack") + broker.count("basic.reject")
                const consumer = yield* start(
                  AmqpConsumer.consume("q", () => Effect.ensuring(handler, Deferred.succeed(ran, undefined)))
                )
                yield* Deferred.await(ran)
                yield* broker.until((now) => now.count("basic.nack") + now.count("basic.reject") > settled)
                yield* Fiber.interrupt(consumer)
                search.look("a consumer's fiber", consumer)
              })
            yield* consume(Effect.die(new Error("a defect of a handler")))
            yield* consume(Effect.fail("a failure of a handler"))
            broker.once("basic.consume", ({ closeChannel }) => closeChannel(403))
            yield* fails(search, "a refused consumer", AmqpConsumer.consume("q", Effect.succeed), "AccessRefused")
            const ask = AmqpRpc.client(AmqpRpc.make("nowhere"), { timeout: "50 millis" })
            yield* fails(search, "no answer", ask())
            broker.once("queue.declare", ({ connection }) => connection.write(Buffer.from("rubbish that is no frame")))
            yield* fails(search, "rubbish", declare)
            yield* untilState((state) => state._tag === "Open" && state.generation > 2)
            yield* everything(search, broker.port)
          }).pipe(Effect.scoped, Effect.provide(layerOf(broker, secret, more)))
        })
    )
  )

  it.live("in the memory behind small buffers, which the login does not share with the application", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const secret = "a secret of this test alone, 4711"
      const pools = new Set([Buffer.from("a").buffer])
      yield* Effect.gen(function* () {
        const { updateSecret } = yield* AmqpConnection.AmqpConnection
        yield* updateSecret(Redacted.make(secret))
        pools.add(Buffer.from("b").buffer)
      }).pipe(Effect.scoped, Effect.provide(layerOf(broker, secret)))
      const held = [...pools].filter((pool) => Buffer.from(pool).includes(secret))
      assert.isEmpty(held)
    })
  )
})
