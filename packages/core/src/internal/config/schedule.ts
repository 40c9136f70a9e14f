/** The setting that is a value of Effect: text cannot spell it. */
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type { AmqpErrorReason } from "../../model/error.ts"
import { type Decoder, decoder, refuse } from "./decoder.ts"
import { kind } from "./shown.ts"

type ReconnectSchedule = Schedule.Schedule<unknown, AmqpErrorReason>

const isSchedule = (value: unknown): value is ReconnectSchedule => Schedule.isSchedule(value)

export const schedule: Decoder<ReconnectSchedule> = decoder((value) =>
  isSchedule(value) ? Result.succeed(value) : refuse("a Schedule of Effect", kind(value))
)
