/** `doctor`. */
import { Amqp, type AmqpConfig, AmqpConnection, type AmqpError, AmqpPool, type AmqpTopology } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { forCommand } from "../broker/connecting.ts"
import { cureOf } from "../broker/failures.ts"
import { read, type Shared } from "../broker/Settings.ts"
import { Answered } from "../failure.ts"
import * as Output from "../output/Output.ts"
import * as Text from "../output/text.ts"
import { loadPath } from "../topology/load.ts"
import { type Check, error, ok } from "./Check.ts"
import * as Certificates from "./certificates.ts"
import { addressOf, configuration } from "./configuration.ts"
import { probe } from "./probe.ts"
import { queues } from "./queues.ts"
import { broker } from "./versions.ts"

interface Options extends Shared {
  readonly topology: string | undefined
}

/** Findings are printed as they come: an address that does not answer takes its whole timeout. */
type Report = (checks: ReadonlyArray<Check>) => Effect.Effect<void>

const others = "See the broker's log."

/** Whether the broker blocks publishers. It says so to a connection that has published. */
const alarm = Effect.gen(function* () {
  const { flow } = yield* AmqpConnection.AmqpConnection
  const blocked = SubscriptionRef.changes(flow).pipe(
    Stream.filter((now) => now._tag === "Blocked"),
    Stream.take(1),
    Stream.runCollect
  )
  // It answers, or it blocks.
  const answer = AmqpPool.AmqpPool.use((pool) => pool.use((channel) => channel.exchangeDeclarePassive("amq.direct")))
  yield* Effect.raceFirst(blocked, Effect.ignore(answer))
  const now = yield* SubscriptionRef.get(flow)
  return now._tag === "Flowing"
    ? []
    : [
        error(
          "broker",
          "alarm",
          `blocks publishers: ${now.reason}. Messages can be consumed, and none published`,
          "Free memory or disk on the broker, or let consumers catch up: rabbitmq-diagnostics alarms."
        )
      ]
})

/** What is checked on a connection: by the first address that answers. */
const onConnection = (topology: AmqpTopology.AmqpTopology | undefined, report: Report) =>
  Effect.gen(function* () {
    const { state } = yield* AmqpConnection.AmqpConnection
    const current = yield* SubscriptionRef.get(state)
    yield* report(broker(current._tag === "Open" ? current.product : "unknown", topology))
    // Before anything is published: a broker with an alarm answers a connection no more once it has published.
    const compared = topology === undefined ? [] : yield* queues(topology)
    yield* report(yield* probe)
    yield* report(yield* alarm)
    yield* report(compared)
  })

const connection = (
  config: AmqpConfig.AmqpConfig,
  host: AmqpConfig.Host,
  work: Effect.Effect<void, AmqpError.AmqpError, Amqp.Amqp>,
  report: Report
) =>
  Effect.gen(function* () {
    const subject = addressOf(host)
    const started = yield* Clock.currentTimeMillis
    let isConnected = false
    const connected = Effect.gen(function* () {
      isConnected = true
      const millis = (yield* Clock.currentTimeMillis) - started
      const tls =
        config.tls === undefined ? "without TLS" : config.tls.verify ? "by TLS, verified" : "by TLS, not verified"
      yield* report([ok("connection", subject, `connected in ${millis} ms, ${tls}`)])
      yield* work
    })
    const one = { ...forCommand(config, "doctor"), connectionAttempts: 1 }
    yield* connected.pipe(
      Effect.provide(Amqp.fromConfig({ ...one, hosts: [host] })),
      Effect.catchTag("AmqpError", ({ message, reason }) =>
        report([error(isConnected ? "broker" : "connection", subject, message, cureOf(reason) ?? others)])
      )
    )
    return isConnected
  })

const marks = { ok: "green", warning: "yellow", error: "red" } as const

const lineOf = ({ color }: Output.Output["Service"], { check, cure, message, status, subject }: Check): string => {
  const mark = color(marks[status], status.padEnd(7))
  const text = `${mark}  ${check.padEnd(13)}  ${Text.line(`${subject}: ${message}`)}`
  return cure === undefined ? text : `${text}\n${" ".repeat(24)}${color("dim", `→ ${Text.line(cure)}`)}`
}

export const run = Effect.fnUntraced(function* (options: Options) {
  const output = yield* Output.Output
  const checks: Array<Check> = []
  const report: Report = (found) =>
    Effect.suspend(() => {
      checks.push(...found)
      return output.isJson
        ? Effect.void
        : Effect.forEach(found, (check) => Output.print(lineOf(output, check)), { discard: true })
    })
  const topology = options.topology === undefined ? undefined : yield* loadPath(options.topology)
  const settings = yield* read(options).pipe(
    Effect.catchTag("Failure", (failure) =>
      // A flag that is wrong is no finding.
      failure.mistakes === undefined
        ? Effect.fail(failure)
        : Effect.as(
            report(
              failure.mistakes.map(({ message, subject }) =>
                error("configuration", subject, message, failure.cure ?? "Correct this variable.")
              )
            ),
            undefined
          )
    )
  )
  if (settings !== undefined) {
    yield* report(yield* configuration(settings, options))
    yield* report(yield* Certificates.client(settings.config))
    let isDone = false
    for (const host of settings.config.hosts) {
      yield* report(yield* Certificates.broker(settings.config, host))
      const work = isDone ? Effect.void : onConnection(topology, report)
      if (yield* connection(settings.config, host, work, report)) isDone = true
    }
  }
  const count = (status: Check["status"]) => checks.filter((check) => check.status === status).length
  const [errors, warnings] = [count("error"), count("warning")]
  yield* Output.result({ ok: errors === 0, errors, warnings, checks }, () => [
    `${errors === 0 ? "No errors" : `${errors} error${errors === 1 ? "" : "s"}`}, ${warnings} warning${warnings === 1 ? "" : "s"}.`
  ])
  if (errors > 0) return yield* new Answered()
})
