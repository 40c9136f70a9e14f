/** The command on a broker of its own, which it may meet with TLS and with an alarm. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer } from "effect"
import * as Certificates from "../../core/test/support/certificates.ts"
import * as TlsListener from "../../core/test/support/TlsListener.ts"
import * as Cli from "./support/cli.ts"

interface Check {
  readonly check: string
  readonly subject: string
  readonly status: string
  readonly message: string
  readonly cure?: string
}

const findings = ({ err, out }: Cli.Ended): ReadonlyArray<Check> => {
  assert.notStrictEqual(out, "", err)
  return JSON.parse(out).checks
}

/** When the certificates of the tests expire. */
const end = Date.parse("2120-01-01T00:00:00Z")

/** Moves the clock of the command, so that so many days are left of the certificates. */
const withDaysLeft = (days: number) => {
  const ahead = end - days * 86_400_000 - 1000
  return { NODE_OPTIONS: `--import data:text/javascript,const{now}=Date,d=${ahead}-now();Date.now=()=>now()+d` }
}

layer(Layer.mergeAll(TestBroker.layerPrivate(), Cli.layer), { excludeTestServices: true, timeout: "2 minutes" })(
  (it) => {
    describe("doctor and certificates", () => {
      /** The findings on a listener with TLS: of certificates, and of the connection. */
      const doctor = Effect.fnUntraced(function* (
        listener: TlsListener.Options,
        env: Readonly<Record<string, string>> = {},
        client?: { readonly cert: string; readonly key: string }
      ) {
        const { vhost } = yield* TestBroker.TestBroker
        const port = yield* TlsListener.make(listener)
        const ca = yield* Cli.file("ca.pem", Certificates.ca)
        const own =
          client === undefined
            ? {}
            : {
                AMQP_TLS_CERT_FILE: yield* Cli.file("client.pem", client.cert),
                AMQP_TLS_KEY_FILE: yield* Cli.file("client.key", client.key)
              }
        const ended = yield* Cli.run(["doctor", "--json"], {
          env: {
            AMQP_URL: `amqps://guest:guest@localhost:${port}/${encodeURIComponent(vhost)}`,
            AMQP_TLS_CA_FILE: ca,
            ...own,
            ...env
          }
        })
        const found = findings(ended)
        return {
          code: ended.code,
          server: found.find(({ check, subject }) => check === "certificate" && subject === `localhost:${port}`),
          client: found.find(({ check, subject }) => check === "certificate" && subject === "of the client"),
          connection: found.find(({ check }) => check === "connection")
        }
      }, Effect.scoped)

      const possible = (run: Effect.Effect<void, unknown, TestBroker.TestBroker | Cli.Built>) =>
        Effect.flatMap(TlsListener.isPossible, (isPossible) => (isPossible ? run : Effect.void))

      it.effect("reports the days that are left, and warns below 30", () =>
        possible(
          Effect.gen(function* () {
            const far = yield* doctor({})
            assert.deepInclude(far.server, { status: "ok" })
            assert.match(far.server?.message ?? "", /^expires in \d{5} days, on 2120-01-01$/)
            assert.deepInclude(far.connection, { status: "ok" })
            assert.isUndefined(far.client)
            const near = yield* doctor({}, withDaysLeft(30))
            assert.deepInclude(near.server, { status: "ok", message: "expires in 30 days, on 2120-01-01" })
            const close = yield* doctor({}, withDaysLeft(29))
            assert.deepInclude(close.server, { status: "warning", message: "expires in 29 days, on 2120-01-01" })
            assert.include(close.server?.cure, "Renew")
          })
        )
      )

      it.effect("an expired certificate of the broker is an error, although it is not connected to", () =>
        possible(
          Effect.gen(function* () {
            const { code, connection, server } = yield* doctor({ identity: Certificates.expired })
            assert.strictEqual(code, 1)
            assert.deepInclude(server, { status: "error" })
            assert.match(server?.message ?? "", /^expired \d+ days ago, on 2021-01-01$/)
            assert.deepInclude(connection, { status: "error" })
            // Also where any certificate is accepted.
            const accepted = yield* doctor({ identity: Certificates.expired }, { AMQP_TLS_VERIFY: "false" })
            assert.deepInclude(accepted.server, { status: "error" })
            assert.deepInclude(accepted.connection, { status: "ok" })
            assert.strictEqual(accepted.code, 1)
          })
        )
      )

      it.effect("the client's certificate is checked as well, also if the broker refuses it", () =>
        possible(
          Effect.gen(function* () {
            const clients = "must show a certificate"
            const valid = yield* doctor({ clients }, {}, Certificates.client)
            assert.deepInclude(valid.client, { status: "ok" })
            assert.deepInclude(valid.server, { status: "ok" })
            assert.deepInclude(valid.connection, { status: "ok" })
            for (const version of ["tlsv1.2", "tlsv1.3"] as const) {
              const expired = yield* doctor({ clients, versions: [version] }, {}, Certificates.expiredClient)
              assert.deepInclude(expired.client, { status: "error" })
              assert.match(expired.client?.message ?? "", /^expired \d+ days ago, on 2021-01-01$/)
              assert.deepInclude(expired.server, { status: "ok" }, version)
              assert.deepInclude(expired.connection, { status: "error" })
            }
          })
        )
      )
    })

    describe("a broker with an alarm", () => {
      it.effect("doctor says so, and every other finding stays true; commands end with an error and its cure", () =>
        Effect.gen(function* () {
          const { blockPublishers, unblockPublishers, url } = yield* TestBroker.TestBroker
          const env = { AMQP_URL: url }
          const topology = yield* Cli.file("topology.json", JSON.stringify({ queues: [{ name: "alarm" }] }))
          yield* Effect.gen(function* () {
            yield* AmqpChannel.use((channel) => channel.queueDeclare("alarm"))
            yield* AmqpPublisher.publish({ routingKey: "alarm", content: "waits" })
          }).pipe(Effect.scoped, Effect.provide(Amqp.layer({ url })))
          yield* Effect.acquireRelease(blockPublishers, () => Effect.ignore(unblockPublishers))
          const [doctor, published, lines, peeked, interrupted] = yield* Effect.all(
            [
              Cli.run(["doctor", "--topology", topology, "--json"], { env }),
              Cli.run(["publish", "-k", "alarm", "x", "--json"], { env }),
              Cli.run(["publish", "-k", "alarm", "--lines"], { env, input: "1\n2\n" }),
              Cli.run(["peek", "alarm", "--json"], { env }),
              Effect.gen(function* () {
                const redrive = yield* Cli.running(["redrive", "alarm", "--to", "alarm", "--yes"], { env })
                yield* redrive.shows("blocked")
                yield* redrive.kill("SIGINT")
                return yield* redrive.ended
              }).pipe(Effect.scoped)
            ],
            { concurrency: 3 }
          )
          const found = findings(doctor)
          assert.strictEqual(doctor.code, 1)
          const alarm = found.find(({ subject }) => subject === "alarm")
          assert.deepInclude(alarm, { check: "broker", status: "error" })
          assert.include(alarm?.message, "blocks publishers")
          assert.include(alarm?.cure, "rabbitmq-diagnostics")
          const queue = found.find(({ check }) => check === "topology")
          assert.deepInclude(queue, { status: "warning", message: "1 message, 0 consumers: nothing consumes it" })
          assert.strictEqual(published.code, 4)
          assert.deepInclude(JSON.parse(published.err.trim().split("\n").at(-1)!).error, { tag: "PublishTimeout" })
          assert.include(lines.err, "Message 1 is not confirmed")
          assert.deepStrictEqual([peeked.code, JSON.parse(peeked.out).total], [0, 1])
          assert.strictEqual(interrupted.code, 130)
        }).pipe(Effect.scoped)
      )
    })
  }
)
