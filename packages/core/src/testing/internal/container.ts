import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import type { StartedTestContainer } from "testcontainers"
import { TestBrokerError } from "../TestBrokerError.ts"
import type { Coordinates } from "./broker.ts"
import * as ControlServer from "./controlServer.ts"
import type { NodeOptions } from "./privateNode.ts"

const controlPort = 25_680
const folder = "/etc/effect-amqp"

/** The image in `AMQP_TEST_IMAGE`, or a current RabbitMQ 4 without the management plugin. */
export const image = (): string => process.env["AMQP_TEST_IMAGE"] ?? "rabbitmq:4.2"

const message = (error: unknown) => (error instanceof Error ? error.message : String(error))

const loaded = <A>(load: () => Promise<A>) =>
  Effect.tryPromise({ try: load, catch: (error) => `testcontainers cannot be loaded: ${message(error)}` })

/** Succeeds if a container can be started on this machine; fails with the reason if not. */
export const engine: Effect.Effect<true, string> = Effect.gen(function* () {
  const { getContainerRuntimeClient } = yield* loaded(() => import("testcontainers"))
  yield* Effect.tryPromise({ try: getContainerRuntimeClient, catch: () => "no Docker engine responds" })
  return true as const
}).pipe(
  Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.fail("the Docker engine does not respond") })
)

const failed = (error: unknown) =>
  new TestBrokerError({
    reason: "StartFailed",
    message: `The container of ${image()} did not start: ${message(error)}`
  })

const stop = (container: StartedTestContainer) =>
  Effect.ignore(Effect.tryPromise(() => container.stop({ timeout: 0, remove: true })))

/**
 * Starts a container. The promise cannot be cancelled: after an interruption, a container that has started is stopped.
 */
const startOrStop = (start: () => Promise<StartedTestContainer>) =>
  Effect.callback<StartedTestContainer, TestBrokerError>((resume) => {
    let interrupted = false
    start().then(
      (container) => (interrupted ? void Effect.runPromise(stop(container)) : resume(Effect.succeed(container))),
      (error: unknown) => resume(Effect.fail(failed(error)))
    )
    return Effect.sync(() => {
      interrupted = true
    })
  })

/** Starts a container through testcontainers, which also removes it if this process is killed. */
export const start = Effect.fnUntraced(function* (
  options: NodeOptions
): Effect.fn.Return<Coordinates, TestBrokerError, Scope.Scope> {
  const { Wait } = yield* Effect.mapError(
    loaded(() => import("testcontainers")),
    failed
  )
  const { RabbitMQContainer } = yield* Effect.mapError(
    loaded(() => import("@testcontainers/rabbitmq")),
    failed
  )
  yield* Effect.logInfo(`Starting a container of ${image()}, for a private broker`)
  const token = Crypto.randomBytes(24).toString("hex")
  const container = yield* Effect.acquireRelease(
    startOrStop(() =>
      new RabbitMQContainer(image())
        .withExposedPorts(5672, controlPort)
        // No spaces: the broker's start script splits this value into words.
        .withEnvironment({
          RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `-eval {ok,_}=file:script("${folder}/control.erl").`
        })
        .withCopyContentToContainer([
          {
            target: `${folder}/control.erl`,
            content: ControlServer.script({ token, port: controlPort, address: "0.0.0.0" })
          },
          {
            target: "/etc/rabbitmq/conf.d/90-effect-amqp.conf",
            content: ["loopback_users = none", ...(options.config ?? []), ""].join("\n")
          },
          { target: "/etc/rabbitmq/enabled_plugins", content: `[${(options.plugins ?? []).join(",")}].\n` }
        ])
        // This line comes later than the broker's own "Server startup complete", which it prints before it can evaluate
        // anything.
        .withWaitStrategy(Wait.forLogMessage(/control server ready on \d+/))
        .withStartupTimeout(120_000)
        .start()
    ),
    stop,
    { interruptible: true }
  )
  return {
    origin: "container",
    url: `amqp://guest:guest@${container.getHost()}:${container.getMappedPort(5672)}`,
    description: `a container of ${image()} (${container.getId().slice(0, 12)})`,
    control: { host: container.getHost(), port: container.getMappedPort(controlPort), token },
    cli: { command: "rabbitmqctl", args: ["-q"], env: "inNode" }
  }
})
