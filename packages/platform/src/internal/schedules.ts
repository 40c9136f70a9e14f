/** Schedules of Effect 3 in the options of a connection. */
import type { AmqpError as CoreError } from "@effect-amqp/core"
import * as Cause4 from "@effect-amqp/effect4/Cause"
import * as Duration4 from "@effect-amqp/effect4/Duration"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Schedule4 from "@effect-amqp/effect4/Schedule"
import * as Effect from "effect/Effect"
import type * as Runtime from "effect/Runtime"
import * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleIntervals from "effect/ScheduleIntervals"
import type { AmqpErrorReason } from "../model/error.ts"
import { toReason3 } from "./errors.ts"
import { run3 } from "./run.ts"

/** A schedule of Effect 4 whose steps are those of one of Effect 3, which run in this runtime. */
const toSchedule4 = (
  runtime: Runtime.Runtime<never>,
  schedule: Schedule.Schedule<unknown, AmqpErrorReason>
): Schedule4.Schedule<unknown, CoreError.AmqpErrorReason> =>
  Schedule4.fromStep(
    Effect4.sync(() => {
      // The state begins again with each use, as the schedule does.
      let state: unknown = schedule.initial
      return (now: number, reason: CoreError.AmqpErrorReason) =>
        Effect4.flatMap(
          run3(
            runtime,
            Effect.suspend(() => schedule.step(now, toReason3(reason), state))
          ),
          ([next, out, decision]) => {
            state = next
            return ScheduleDecision.isDone(decision)
              ? Cause4.done(out)
              : Effect4.succeed<[unknown, Duration4.Duration]>([
                  out,
                  Duration4.millis(Math.max(0, ScheduleIntervals.start(decision.intervals) - now))
                ])
          }
        )
    })
  )

/** Options with the schedule of `reconnect` in Effect 4. Other mistakes are left to the core, which lists them. */
export const withSchedule4 = <O>(runtime: Runtime.Runtime<never>, options: O): O => {
  if (typeof options !== "object" || options === null) return options
  const { reconnect } = options as { readonly reconnect?: unknown }
  if (typeof reconnect !== "object" || reconnect === null) return options
  const { schedule } = reconnect as { readonly schedule?: unknown }
  return Schedule.isSchedule(schedule)
    ? { ...options, reconnect: { ...reconnect, schedule: toSchedule4(runtime, schedule as never) } }
    : options
}
