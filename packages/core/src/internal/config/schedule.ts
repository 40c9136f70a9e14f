/** The reconnect schedule, a value of Effect that text cannot express. */
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type { AmqpErrorReason } from "../../model/error.ts"
import { type Decoder, decoder, refuse } from "./decoder.ts"
import { describeType } from "./formatValue.ts"

type ReconnectSchedule = Schedule.Schedule<unknown, AmqpErrorReason>

const isSchedule = (value: unknown): value is ReconnectSchedule => Schedule.isSchedule(value)

export const schedule: Decoder<ReconnectSchedule> = decoder((value) =>
  isSchedule(value) ? Result.succeed(value) : refuse("an Effect Schedule", describeType(value))
)
