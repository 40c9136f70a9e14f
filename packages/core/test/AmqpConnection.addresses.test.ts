/** Several addresses behind one name, and TLS files that change: with real sockets, and a real broker over TLS. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConfig, type AmqpConnection } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect } from "effect"
import dns from "node:dns"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer, isIP, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { TestContext } from "vitest"
import { configOf, connecting, layerWith, quietly, untilOpen, untilState, withPool } from "./support/amqp.ts"
import * as Certificates from "./support/certificates.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { touch } from "./support/queues.ts"
import { assertNoLeaks } from "./support/leaks.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import * as TlsListener from "./support/TlsListener.ts"

/** Resolves a name to these addresses, in this order, until the scope closes. */
const resolving = (name: string, ...addresses: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = dns.lookup
      const found = addresses.map((address) => ({ address, family: isIP(address) }))
      dns.lookup = ((host: string, options: never, resume: (error: null, all: typeof found) => void) =>
        host === name ? setImmediate(resume, null, found) : before(host, options, resume as never)) as never
      return before
    }),
    (before) =>
      Effect.sync(() => {
        dns.lookup = before
      })
  )

/** A listener at an address and a port that answers each connection with a text, or with nothing. */
const listening = Effect.fnUntraced(function* (address: string, port: number, answer?: string) {
  const sockets = new Set<Socket>()
  const stats = { accepted: 0 }
  yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>, Error>((resume) => {
      const server = createServer((socket) => {
        stats.accepted++
        sockets.add(socket)
        socket.on("error", () => {}).on("close", () => sockets.delete(socket))
        if (answer !== undefined) socket.end(answer)
      })
      server.on("error", (error) => resume(Effect.fail(error)))
      server.listen(port, address, () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
  )
  return stats
})

const silent = "127.0.0.2"
const name = "several.example"

describe("of several addresses of a name", () => {
  const named = (port: number) => `amqp://guest:guest@${name}:${port}`
  const connectTimeout = { connectTimeout: Duration.seconds(2) }

  plain.live(
    "the next is tried within connectTimeout when one accepts and stays silent, and nothing of it remains",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        const stats = yield* listening(silent, broker.port)
        yield* resolving(name, silent, "127.0.0.1")
        yield* Effect.gen(function* () {
          yield* touch
          const { peer } = yield* untilOpen()
          assert.strictEqual(peer, `${name}:${broker.port}`)
          broker.destroy()
          yield* untilOpen(2)
          assert.strictEqual(stats.accepted, 2)
        }).pipe(withPool(named(broker.port), connectTimeout), quietly)
      }).pipe(Effect.scoped, assertNoLeaks)
  )

  plain.live("silence at all of them is ConnectTimeout in time, with the name and the address", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "protocol-header": () => {} } })
      const stats = yield* listening(silent, broker.port)
      yield* resolving(name, silent, "127.0.0.1")
      const [time, reason] = yield* Effect.timed(connecting(configOf(named(broker.port), connectTimeout)))
      assert.strictEqual(reason._tag, "ConnectTimeout")
      assert.include(reason.message, `${name}:${broker.port} (127.0.0.1)`)
      assert.isBelow(Duration.toMillis(time), 2500)
      assert.strictEqual(stats.accepted, 1)
      assert.strictEqual(broker.count("protocol-header"), 1)
    }).pipe(Effect.scoped, assertNoLeaks)
  )

  plain.live("one without a listener or with another protocol is skipped without delay", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* listening(silent, broker.port, "HTTP/1.1 503 Service Unavailable\r\n\r\n")
      yield* resolving(name, "127.0.0.3", silent, "127.0.0.1")
      const [time] = yield* Effect.timed(touch.pipe(withPool(named(broker.port), connectTimeout), quietly))
      assert.isBelow(Duration.toMillis(time), 1000)
    }).pipe(Effect.scoped, assertNoLeaks)
  )

  plain.live("one that has begun to answer may use the whole connectTimeout", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({
        on: { "connection.start-ok": (context) => Effect.map(Effect.sleep("1300 millis"), () => context.proceed()) }
      })
      yield* resolving(name, "127.0.0.1", silent)
      yield* touch.pipe(withPool(named(broker.port), connectTimeout), quietly)
      assert.strictEqual(broker.count("connection.start-ok"), 1)
    }).pipe(Effect.scoped, assertNoLeaks)
  )

  plain.live("no other is tried when one refuses the login", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "connection.start-ok": ScriptedBroker.refuseLogin } })
      const stats = yield* listening(silent, broker.port)
      yield* resolving(name, "127.0.0.1", silent)
      const reason = yield* connecting(configOf(named(broker.port), connectTimeout))
      assert.strictEqual(reason._tag, "AuthenticationFailed")
      assert.include(reason.message, `${name}:${broker.port} (127.0.0.1)`)
      assert.strictEqual(stats.accepted, 0)
    }).pipe(Effect.scoped, assertNoLeaks)
  )
})

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  const test = (title: string, run: () => ReturnType<typeof program>) =>
    it.effect(title, (context: TestContext) =>
      Effect.flatMap(TlsListener.isPossible, (possible) =>
        possible ? run() : Effect.sync(() => context.skip("the broker's ports cannot be reached"))
      )
    )
  const program = <E, R>(body: Effect.Effect<void, E, R>) =>
    Effect.scoped(body) as Effect.Effect<void, unknown, TestBroker.TestBroker>

  const optionsFor = Effect.fnUntraced(function* (port: number, tls: AmqpConfig.TlsOptions) {
    const { vhost } = yield* TestBroker.TestBroker
    return { host: "localhost", port, vhost, username: "guest", password: "guest", tls } as const
  })

  describe("over TLS", () => {
    test("the next address is tried when one accepts and stays silent, and its certificate is checked against the name", () =>
      program(
        Effect.gen(function* () {
          const port = yield* TlsListener.make()
          yield* listening(silent, port)
          yield* resolving("localhost", silent, "127.0.0.1")
          const options = yield* optionsFor(port, { ca: Certificates.ca })
          const config = yield* AmqpConfig.make({ ...options, connectTimeout: "4 seconds" })
          yield* AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })).pipe(
            Effect.scoped,
            Effect.provide(layerWith(config), { local: true }),
            quietly
          )
          const other = yield* TlsListener.make({ identity: Certificates.otherHost })
          yield* resolving("localhost", "127.0.0.1")
          const strict = yield* AmqpConfig.make({ ...options, port: other, connectTimeout: "4 seconds" })
          const reason = yield* connecting(strict)
          assert.deepInclude(reason, { _tag: "TlsFailed", code: "ERR_TLS_CERT_ALTNAME_INVALID" })
        })
      ))
  })

  describe("files of TLS", () => {
    const files = Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "amqp-tls-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    )

    /** A connection to listeners that replace one another, with TLS settings that name files. */
    const connected = Effect.fnUntraced(function* <A, E, R>(
      tls: (folder: string) => AmqpConfig.TlsOptions,
      before: (write: (name: string, text: string) => void) => void,
      listener: TlsListener.Options,
      run: (tools: {
        readonly write: (name: string, text: string) => void
        readonly remove: (name: string) => void
        readonly lead: (to: TlsListener.Options) => Effect.Effect<void, unknown, TestBroker.TestBroker>
        readonly cut: () => void
      }) => Effect.Effect<A, E, R>
    ) {
      const folder = yield* files
      const write = (name: string, text: string) => writeFileSync(join(folder, name), text)
      before(write)
      let port = yield* TlsListener.make(listener)
      const proxy = yield* FaultProxy.make({
        host: "127.0.0.1",
        get port() {
          return port
        }
      })
      const config = yield* AmqpConfig.make({
        ...(yield* optionsFor(proxy.port, tls(folder))),
        // A file that cannot be used does not count as a refusal.
        reconnect: { onRefused: "close" }
      })
      return yield* Effect.andThen(
        untilOpen(1),
        run({
          write,
          remove: (name) => rmSync(join(folder, name)),
          lead: (to) =>
            Effect.map(TlsListener.make(to), (now) => {
              port = now
            }),
          cut: proxy.rst
        })
      ).pipe(Effect.scoped, Effect.provide(layerWith(config), { local: true }), quietly)
    })

    const untilFailed = untilState(
      (now): now is Extract<AmqpConnection.State, { readonly _tag: "Reconnecting" }> =>
        now._tag === "Reconnecting" && now.reason._tag === "ConnectFailed"
    )

    test("an authority that is renewed on disk is trusted at the next connect", () =>
      program(
        connected(
          (folder) => ({ caFile: join(folder, "ca.pem") }),
          (write) => write("ca.pem", Certificates.ca),
          {},
          ({ cut, lead, write }) =>
            Effect.gen(function* () {
              write("ca.pem", Certificates.rogueCa)
              yield* lead({ identity: Certificates.rogueServer })
              cut()
              yield* untilOpen(2)
              yield* touch
            })
        )
      ))

    for (const [what, tls, contents] of [
      [
        "in two files",
        (folder: string) => ({ certFile: join(folder, "cert.pem"), keyFile: join(folder, "key.pem") }),
        ({ cert, key }: { cert: string; key: string }) => ({ "cert.pem": cert, "key.pem": key })
      ],
      [
        "in one file",
        (folder: string) => ({ certFile: join(folder, "both.pem") }),
        ({ cert, key }: { cert: string; key: string }) => ({ "both.pem": cert + key })
      ]
    ] as const) {
      test(`a client's certificate and key, ${what}, that are renewed on disk are presented at the next connect`, () =>
        program(
          connected(
            (folder) => ({ ca: Certificates.ca, ...tls(folder) }),
            (write) => Object.entries(contents(Certificates.rogueClient)).forEach(([name, text]) => write(name, text)),
            {},
            ({ cut, lead, write }) =>
              Effect.gen(function* () {
                Object.entries(contents(Certificates.client)).forEach(([name, text]) => write(name, text))
                yield* lead({ clients: "must show a certificate" })
                cut()
                yield* untilOpen(2)
                yield* touch
              })
          )
        ))
    }

    test("a file that cannot be read at a reconnect is ConnectFailed with the name of its setting, and is read again", () =>
      program(
        connected(
          (folder) => ({ caFile: join(folder, "ca.pem") }),
          (write) => write("ca.pem", Certificates.ca),
          {},
          ({ cut, remove, write }) =>
            Effect.gen(function* () {
              for (const [generation, breakIt] of [
                () => remove("ca.pem"),
                () => write("ca.pem", "-----BEGIN CERTIFICATE-----\nhalf")
              ].entries()) {
                breakIt()
                cut()
                const { reason } = yield* untilFailed
                assert.match(reason.message, /tls\.caFile: ".*ca\.pem" cannot be used \(/)
                write("ca.pem", Certificates.ca)
                yield* untilOpen(generation + 2)
              }
            })
        )
      ))

    test("a certificate that was renewed before its key is ConnectFailed until the key is renewed too", () =>
      program(
        connected(
          (folder) => ({
            ca: Certificates.ca,
            certFile: join(folder, "cert.pem"),
            keyFile: join(folder, "key.pem")
          }),
          (write) => {
            write("cert.pem", Certificates.rogueClient.cert)
            write("key.pem", Certificates.rogueClient.key)
          },
          {},
          ({ cut, write }) =>
            Effect.gen(function* () {
              write("cert.pem", Certificates.client.cert)
              cut()
              const { reason } = yield* untilFailed
              assert.include(reason.message, "tls.certFile, tls.keyFile: the files cannot be used together")
              assert.notInclude(reason.message, "PRIVATE KEY")
              write("key.pem", Certificates.client.key)
              yield* untilOpen(2)
            })
        )
      ))
  })
})
