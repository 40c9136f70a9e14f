/** The distribution's PostgreSQL, installed automatically, as root on Debian or Ubuntu. */
import * as Effect from "effect/Effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import * as DebianPackage from "../../../core/src/testing/internal/debianPackage.ts"
import { find } from "./postgresInstallation.ts"
import { TestDatabaseError } from "./TestDatabaseError.ts"

export const installable = DebianPackage.installable

const configuration = "/etc/postgresql-common/createcluster.conf"

/** The package creates a cluster on port 5432, which nothing here uses and the next boot would start. */
const withoutCluster = Effect.acquireRelease(
  Effect.sync(() => {
    const text = existsSync(configuration) ? readFileSync(configuration, "utf8") : undefined
    if (text !== undefined) writeFileSync(configuration, `${text}\ncreate_main_cluster = false\n`)
    return text
  }),
  (text) => Effect.sync(() => text !== undefined && writeFileSync(configuration, text))
)

/** Installs `postgresql` without a cluster and without starting a service, in about 20 seconds. */
export const install: Effect.Effect<void, TestDatabaseError> = DebianPackage.installing((apt) =>
  Effect.gen(function* () {
    // Another test file may have installed it while this one waited.
    if (typeof find() !== "string") return
    const get = (name: string) => apt("install", "-y", "--no-install-recommends", name)
    yield* apt("update")
    yield* get("postgresql-common")
    yield* Effect.scoped(Effect.andThen(withoutCluster, get("postgresql")))
  })
).pipe(Effect.mapError(({ message }) => new TestDatabaseError({ reason: "StartFailed", message })))
