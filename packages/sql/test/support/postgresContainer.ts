/** PostgreSQL in a container, where no server is installed. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import { engine } from "../../../core/src/testing/internal/container.ts"
import type { ServerOptions } from "./postgresServer.ts"
import { TestDatabaseError } from "./TestDatabaseError.ts"

/** The image in `AMQP_TEST_POSTGRES_IMAGE`, or a current PostgreSQL. */
export const image = (): string => process.env["AMQP_TEST_POSTGRES_IMAGE"] ?? "postgres:17"

export { engine }

const failed = (error: unknown) =>
  new TestDatabaseError({
    reason: "StartFailed",
    message: `The container of ${image()} did not start: ${error instanceof Error ? error.message : String(error)}`
  })

/** Starts a container through testcontainers, which also removes it if this process is killed. */
export const start = Effect.fnUntraced(function* ({
  durable = true,
  settings = {}
}: ServerOptions): Effect.fn.Return<
  { readonly url: Redacted.Redacted<string>; readonly description: string },
  TestDatabaseError,
  Scope.Scope
> {
  const { GenericContainer, Wait } = yield* Effect.tryPromise({ try: () => import("testcontainers"), catch: failed })
  const password = Crypto.randomBytes(18).toString("hex")
  const all = { ...(durable ? {} : { fsync: "off", synchronous_commit: "off", full_page_writes: "off" }), ...settings }
  const container = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () =>
        new GenericContainer(image())
          .withExposedPorts(5432)
          .withEnvironment({ POSTGRES_PASSWORD: password })
          .withCommand(["postgres", ...Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`])])
          // The image starts the server twice: the first time to initialize it.
          .withWaitStrategy(Wait.forLogMessage(/database system is ready to accept connections/, 2))
          .withStartupTimeout(120_000)
          .start(),
      catch: failed
    }),
    (container) => Effect.ignore(Effect.tryPromise(() => container.stop({ timeout: 0, remove: true })))
  )
  return {
    url: Redacted.make(
      `postgres://postgres:${password}@${container.getHost()}:${container.getMappedPort(5432)}/postgres`,
      { label: "DATABASE_URL" }
    ),
    description: `a container of ${image()} (${container.getId().slice(0, 12)})`
  }
})
