/**
 * An application that serves a dashboard, which a test bundles. It requests its own page, and prints the status of the
 * answer, the hash of its script, and the script sources of its policy.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Amqp, AmqpConfig } from "@effect-amqp/core"
import { AmqpDashboard } from "@effect-amqp/http"
import { Effect, Layer, References } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { createHash } from "node:crypto"
import { createServer } from "node:http"

const main = Effect.gen(function* () {
  const { address } = yield* HttpServer.HttpServer
  const url = `${HttpServer.formatAddress(address)}/amqp/dashboard`
  yield* Effect.promise(async () => {
    const response = await fetch(url)
    const [, script = ""] = /<script>(.*?)<\/script>/s.exec(await response.text()) ?? []
    console.log(`status ${response.status}`)
    console.log(`script 'sha256-${createHash("sha256").update(script).digest("base64")}'`)
    const [, allowed] = /script-src ([^;]*)/.exec(response.headers.get("content-security-policy") ?? "") ?? []
    console.log(`policy ${allowed}`)
  })
})

const application = (config: AmqpConfig.AmqpConfig) =>
  HttpRouter.serve(AmqpDashboard.layer({ authorize: () => Effect.succeed("allow") }), {
    disableLogger: true,
    disableListenLog: true
  }).pipe(
    Layer.provideMerge(NodeHttpServer.layerServer(createServer, { host: "127.0.0.1", port: 0 })),
    Layer.provide(Amqp.fromConfig(config))
  )

void AmqpConfig.fromUrl(process.env["AMQP_URL"] ?? "").pipe(
  Effect.flatMap((config) => Effect.provide(main, application(config))),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  Effect.runPromise
)
