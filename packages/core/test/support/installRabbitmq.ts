/** Installs RabbitMQ for the tests, where there is none and this machine can: see `scripts/rabbitmq.mjs`. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { install, installable } from "../../src/testing/internal/debianPackage.ts"
import { find } from "../../src/testing/internal/installation.ts"

const main = Effect.gen(function* () {
  if (typeof find(process.env) !== "string") return yield* Effect.log("RabbitMQ is installed")
  const possible = installable()
  if (possible !== true) return yield* Effect.log(`RabbitMQ is not installed automatically: ${possible}`)
  yield* Effect.log("Installing rabbitmq-server with apt-get")
  yield* install("rabbitmq-server")
})

NodeRuntime.runMain(main)
