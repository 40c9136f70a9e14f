/** Installs PostgreSQL for the tests, where there is none and this machine can: see `scripts/postgresql.mjs`. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { find } from "../postgresInstallation.ts"
import { install, installable } from "../postgresPackage.ts"

const main = Effect.gen(function* () {
  const found = find()
  if (typeof found !== "string") return yield* Effect.log(`PostgreSQL ${found.version} is installed, in ${found.bin}`)
  const possible = installable()
  if (possible !== true) return yield* Effect.log(`PostgreSQL is not installed automatically: ${possible}`)
  yield* Effect.log("Installing postgresql with apt-get")
  yield* install
})

NodeRuntime.runMain(main)
