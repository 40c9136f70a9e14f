/**
 * Bun and Deno: a small bundled application on a broker. `npm run test:runtimes` installs both and runs this file.
 * Without them, the tests are skipped.
 */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { existsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { bundle, commands, folder } from "./support/bundles.ts"
import * as Certificates from "./support/certificates.ts"
import { node } from "./support/processes.ts"
import * as TlsProxy from "./support/TlsProxy.ts"

/** The arguments with which each runtime runs a file. */
const runtimes = { bun: [], deno: ["run", "--allow-all"] } as const

const bin = process.env["EFFECT_AMQP_RUNTIMES"] ?? ""

/** The broker's URL over TLS. */
const secured = Effect.fnUntraced(function* (plain: string) {
  const url = new URL(plain)
  const { port } = yield* TlsProxy.make({ host: url.hostname, port: Number(url.port) })
  const ca = join(yield* folder, "ca.pem")
  writeFileSync(ca, Certificates.ca)
  url.protocol = "amqps:"
  url.hostname = "localhost"
  url.port = String(port)
  url.searchParams.set("cacertfile", ca)
  return url.href
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  for (const [runtime, args] of Object.entries(runtimes)) {
    const command = join(bin, runtime)
    const isThere = bin !== "" && existsSync(command)
    const reason = isThere ? "" : ` (skipped: no ${runtime} in EFFECT_AMQP_RUNTIMES, which npm run test:runtimes sets)`
    describe.skipIf(!isThere)(`An application on ${runtime}${reason}`, () => {
      for (const bundled of commands) {
        for (const transport of ["TCP", "TLS"]) {
          it.effect(
            `connects over ${transport}, declares, publishes with confirms, consumes, acks and closes (${bundled[0]})`,
            () =>
              Effect.gen(function* () {
                const { awaitCensus, queues, url } = yield* TestBroker.TestBroker
                const file = yield* bundle("small.ts", bundled)
                const env = { AMQP_URL: transport === "TLS" ? yield* secured(url) : url }
                const { output } = yield* node([...args, file], env, command)
                assert.deepStrictEqual(yield* output, [
                  "declared",
                  "confirmed",
                  "consumed hello",
                  "not found 404",
                  "closed"
                ])
                yield* awaitCensus({ channels: 0, connections: 0 })
                // The queue was deleted with its consumer, after the ack.
                assert.deepStrictEqual(yield* queues, [])
              }).pipe(Effect.scoped),
            120_000
          )
        }
      }
    })
  }
})
