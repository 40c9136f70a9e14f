import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { TestBrokerError } from "../TestBrokerError.ts"
import type { Coordinates, Origin } from "./broker.ts"
import * as Container from "./container.ts"
import * as DebianPackage from "./debianPackage.ts"
import * as Installation from "./installation.ts"
import { live } from "./liveClock.ts"
import * as Memory from "./memory/standalone.ts"
import * as PrivateNode from "./privateNode.ts"
import * as Url from "./url.ts"

/** A source of a broker: whether it is available, and how to start it. */
export interface Way {
  readonly origin: Origin
  /** Fails with the reason why this source is not available on this machine. */
  readonly start: Effect.Effect<Effect.Effect<Coordinates, TestBrokerError, Scope.Scope>, string>
}

const givenNames = () => (process.env["AMQP_TEST_BROKER"] ?? "").split(/[\s,]+/).filter((name) => name !== "")

/** Restricts the sources to those in `AMQP_TEST_BROKER`, such as `container` on a machine that also has a binary. */
const chosen = (all: ReadonlyArray<Way>): ReadonlyArray<Way> => {
  const names = givenNames()
  return names.length === 0
    ? all
    : all.map((way) =>
        names.includes(way.origin)
          ? way
          : { ...way, start: Effect.fail(`excluded by AMQP_TEST_BROKER=${names.join(",")}`) }
      )
}

export interface Ways extends PrivateNode.NodeOptions {
  readonly exclusive: boolean
  /** Whether the memory broker is the last source. Otherwise it is one only where `AMQP_TEST_BROKER` names it. */
  readonly fallsBack?: boolean | undefined
}

/** The sources, in order. A broker for one test file alone is never the one at `AMQP_URL`. */
export const ways = (options: Ways): ReadonlyArray<Way> => {
  const url: Way = {
    origin: "url",
    start: Effect.suspend(() => {
      const text = process.env["AMQP_URL"] ?? ""
      return text === "" ? Effect.fail("AMQP_URL is not set") : Effect.succeed(Url.connect(text))
    })
  }
  const node = (origin: Origin) =>
    Effect.suspend(() => {
      const found = Installation.find(process.env)
      return typeof found === "string" ? Effect.fail(found) : Effect.succeed(PrivateNode.start(found, origin, options))
    })
  const binary: Way = { origin: "binary", start: node("binary") }
  const container: Way = { origin: "container", start: Effect.as(Container.engine, Container.start(options)) }
  const debianPackage: Way = {
    origin: "package",
    start: Effect.suspend(() => {
      const installable = DebianPackage.installable()
      if (installable !== true) return Effect.fail(installable)
      return Effect.succeed(
        Effect.gen(function* () {
          yield* Effect.logInfo("Installing rabbitmq-server with apt-get, for a private broker")
          yield* DebianPackage.install("rabbitmq-server")
          const start = yield* Effect.mapError(
            node("package"),
            (message) => new TestBrokerError({ reason: "StartFailed", message })
          )
          return yield* start
        })
      )
    })
  }
  const memory: Way = {
    origin: "memory",
    start: Effect.suspend(() =>
      options.fallsBack === true || givenNames().includes("memory")
        ? Effect.succeed(Memory.start)
        : Effect.fail("it is no RabbitMQ: AMQP_TEST_BROKER=memory takes it all the same")
    )
  }
  return chosen([...(options.exclusive ? [] : [url]), binary, container, debianPackage, memory])
}

const advice = [
  "Any one of these provides a broker:",
  "  - a running broker:            export AMQP_URL=amqp://user:password@host:5672",
  "  - Debian, Ubuntu:              sudo apt-get install --no-install-recommends rabbitmq-server",
  "  - Fedora:                      sudo dnf install rabbitmq-server",
  "  - macOS:                       brew install rabbitmq",
  "  - an unpacked generic build:   export RABBITMQ_HOME=/path/to/rabbitmq_server-4.x (and erl on the PATH)",
  "  - Docker or Podman:            start the engine; the image is AMQP_TEST_IMAGE, by default rabbitmq:4.2"
].join("\n")

/** The broker of the first source that works, or an error that says what was tried and what to do. */
export const first = Effect.fnUntraced(function* (
  candidates: ReadonlyArray<Way>
): Effect.fn.Return<Coordinates, TestBrokerError, Scope.Scope> {
  const reasons: Array<string> = []
  for (const way of candidates) {
    const start = yield* way.start.pipe(Effect.catch((reason) => Effect.succeed(reason)))
    if (typeof start === "string") {
      reasons.push(`  - ${way.origin}: ${start}`)
      continue
    }
    // An explicit `AMQP_URL` excludes the other sources, even if it fails.
    if (way.origin === "url") return yield* start
    const result = yield* start.pipe(Effect.catch((error) => Effect.succeed(error)))
    if (!(result instanceof TestBrokerError)) return result
    reasons.push(`  - ${way.origin}: ${result.message}`)
  }
  return yield* new TestBrokerError({
    reason: "NoBroker",
    message: `No RabbitMQ broker is available:\n${reasons.join("\n")}\n${advice}`
  })
}, live)
