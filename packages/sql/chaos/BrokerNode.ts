/** A private RabbitMQ node that can be killed and comes back with its data. */
import { Effect, Schedule, type Scope } from "effect"
import type { TestBroker } from "@effect-amqp/core/testing"
import * as Crypto from "node:crypto"
import { fromCoordinates } from "../../core/src/testing/internal/access.ts"
import * as DebianPackage from "../../core/src/testing/internal/debianPackage.ts"
import * as Installation from "../../core/src/testing/internal/installation.ts"
import * as Operations from "../../core/src/testing/internal/operations.ts"
import * as Ports from "../../core/src/testing/internal/ports.ts"
import * as PrivateNode from "../../core/src/testing/internal/privateNode.ts"
import { TestBrokerError } from "../../core/src/testing/TestBrokerError.ts"

export interface BrokerNode {
  readonly url: string
  readonly kill9: Effect.Effect<void, TestBrokerError>
  /** Completes when its port for clients is open. */
  readonly start: Effect.Effect<void, TestBrokerError>
  readonly processes: () => TestBroker.Processes
  readonly census: Effect.Effect<TestBroker.Census, TestBrokerError>
  readonly queues: Effect.Effect<ReadonlyArray<TestBroker.QueueCensus>, TestBrokerError>
}

const installation = Effect.gen(function* () {
  if (typeof Installation.find(process.env) === "string") yield* DebianPackage.install("rabbitmq-server")
  const found = Installation.find(process.env)
  if (typeof found !== "string") return found
  return yield* new TestBrokerError({ reason: "StartFailed", message: found })
})

const startOnce = Effect.gen(function* () {
  const [epmdPort = 0] = yield* Ports.free(1)
  return yield* PrivateNode.make(
    yield* installation,
    "binary",
    {},
    {
      name: `effect-amqp-${Crypto.randomBytes(6).toString("hex")}`,
      cookie: PrivateNode.cookie(),
      epmdPort,
      hasEpmd: true
    }
  )
})

/** Starts a node, with the virtual host `/`. It ends when the scope closes, and with this process. */
export const make: Effect.Effect<BrokerNode, TestBrokerError, Scope.Scope> = Effect.gen(function* () {
  const node = yield* Effect.retry(startOnce, { times: 2, while: PrivateNode.isPortTaken })
  let broker = fromCoordinates(node.coordinates)
  const current = <A>(ask: (now: typeof broker) => Effect.Effect<A, TestBrokerError>) =>
    Effect.suspend(() => ask(broker))
  return {
    url: node.coordinates.url,
    kill9: node.end("SIGKILL"),
    start: node.startAgain.pipe(
      Effect.map((coordinates) => {
        broker = fromCoordinates(coordinates)
      }),
      Effect.retry({ times: 2, schedule: Schedule.spaced("500 millis") })
    ),
    processes: () => broker.processes!,
    census: current((now) => Operations.census(now, "/")),
    queues: current((now) => Operations.queues(now, "/"))
  }
})
