/**
 * Permissions and the clock, by two exclusive queues of the command's own.
 *
 * AMQP tells neither permissions nor the time. But the broker writes its time, in seconds, into the header `x-death` of
 * a message that it dead-letters, so a message with a time to live of 0 comes back with it.
 */
import { type AmqpError, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { cureOf } from "../broker/failures.ts"
import { type Check, error, ok, warning } from "./Check.ts"

const longest = "5 seconds"

const permissions = {
  configure: "declare queues that the broker names (configure on amq.gen-*)",
  write: "publish to queues by their names (write on amq.default)",
  read: "consume from its own queue (read on amq.gen-*)"
} as const

const cure = "rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ, if applications of this user need it."

type Step = keyof typeof permissions

class Stopped {
  readonly step: Step
  readonly reason: AmqpError.AmqpErrorReason | undefined
  constructor(step: Step, reason: AmqpError.AmqpErrorReason | undefined) {
    this.step = step
    this.reason = reason
  }
}

const during = (step: Step) => Effect.mapError((failure: AmqpError.AmqpError) => new Stopped(step, failure.reason))

/** The broker's time in a dead letter; `undefined` if it has none. */
const deathOf = (headers: Readonly<Record<string, unknown>>): number | undefined => {
  const deaths = headers["x-death"]
  const first: unknown = Array.isArray(deaths) ? deaths[0] : undefined
  const time: unknown = typeof first === "object" && first !== null && "time" in first ? first.time : undefined
  return time instanceof Date ? time.getTime() : undefined
}

/** The broker's time may be any moment of the second that it wrote, between the publish and the arrival. */
const clock = (brokerSecond: number, sent: number, received: number): Check => {
  const [least, most] = [brokerSecond - received, brokerSecond + 999 - sent]
  if (least <= 0 && most >= 0) return ok("clock", "skew", "none seen, to a second")
  const skew = least > 0 ? least : most
  const seconds = `${(Math.abs(skew) / 1000).toFixed(1)} s`
  const message = `the broker's clock is at least ${seconds} ${skew > 0 ? "ahead of" : "behind"} this machine's`
  return Math.abs(skew) < 2000
    ? ok("clock", "skew", message)
    : warning(
        "clock",
        "skew",
        message,
        "Synchronize both clocks (NTP). Times of dead letters and of TLS depend on them."
      )
}

const probing = AmqpPool.AmqpPool.use((pool) =>
  pool.use((channel) =>
    Effect.gen(function* () {
      const own = { exclusive: true, durable: false } as const
      const dead = yield* channel.queueDeclare("", own).pipe(during("configure"))
      const { deliveries } = yield* channel.consume(dead.queue, { noAck: true }).pipe(during("read"))
      // A queue with a dead-letter exchange needs the permission to publish to that.
      const short = yield* channel
        .queueDeclare("", { ...own, messageTtl: 0, deadLetterExchange: "", deadLetterRoutingKey: dead.queue })
        .pipe(during("write"))
      const sent = yield* Clock.currentTimeMillis
      yield* AmqpPublisher.publish(
        { routingKey: short.queue, content: "", persistent: false },
        { mandatory: true, timeout: longest }
      ).pipe(during("write"))
      const delivery = yield* Queue.take(deliveries).pipe(
        Effect.timeoutOrElse({ duration: longest, orElse: () => Effect.fail(new Stopped("read", undefined)) }),
        Effect.catchTag("AmqpError", (failure) => Effect.fail(new Stopped("read", failure.reason))),
        Effect.catchTag("Done", () => Effect.fail(new Stopped("read", undefined)))
      )
      const received = yield* Clock.currentTimeMillis
      const time = deathOf(delivery.properties.headers)
      return time === undefined ? undefined : clock(time, sent, received)
    })
  )
)

const steps = Object.keys(permissions) as ReadonlyArray<Step>

const granted = (step: Step) => ok("permission", step, `may ${permissions[step]}`)

/** The findings. What a refused step prevents is not reported as a finding of its own. */
export const probe = probing.pipe(
  Effect.map((found): ReadonlyArray<Check> => [...steps.map(granted), ...(found === undefined ? [] : [found])]),
  Effect.catch((stopped): Effect.Effect<ReadonlyArray<Check>> => {
    if (!(stopped instanceof Stopped)) {
      const { message, reason } = stopped
      return Effect.succeed([error("permission", "channel", message, cureOf(reason) ?? "See the broker's log.")])
    }
    const { reason, step } = stopped
    const order: ReadonlyArray<Step> = ["configure", "read", "write"]
    const before = order.slice(0, order.indexOf(step)).map(granted)
    if (reason?._tag === "AccessRefused") {
      return Effect.succeed([
        ...before,
        warning(
          "permission",
          step,
          `may not ${permissions[step]}, so that later permissions and the clock are not checked`,
          cure
        )
      ])
    }
    const message = reason?.message ?? `no delivery within ${longest}`
    return Effect.succeed([
      ...before,
      error("permission", step, message, (reason === undefined ? undefined : cureOf(reason)) ?? "See the broker's log.")
    ])
  })
)
