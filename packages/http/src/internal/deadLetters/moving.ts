/** A redrive or a discard that a request has asked for: its audit lines, its events and its answer. */
import { AmqpError, type AmqpConsumer, type AmqpDeadLetters } from "@effect-amqp/core"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { problemOf, type Refusal } from "../gateway/refusals.ts"

type Moved = Effect.Effect<AmqpDeadLetters.Report, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer>

/** The operation, which reports its counts. */
export type Run = (onProgress: (progress: AmqpDeadLetters.Progress) => Effect.Effect<void>) => Moved

export interface Audit {
  readonly action: "redrive" | "discard"
  readonly queue: string
  /** Who has asked; `undefined` if the application did not say. */
  readonly user: string | undefined
  /** The body of the request. */
  readonly request: unknown
}

const heartbeatMillis = 15_000

/** Longest request that is logged, in characters: the ids of a request may be many. */
const longestRequest = 1000

/** Logs a line when the operation begins, and one with its counts however it ends. */
export const audited = ({ action, queue, request, user }: Audit, run: Run): Run => {
  const text = JSON.stringify(request)
  const annotations = {
    "amqp.queue": queue,
    user: user ?? "unknown",
    request: text.length > longestRequest ? `${text.slice(0, longestRequest - 1)}…` : text
  }
  return (onProgress) => {
    let counts: object = {}
    const countsOf = (progress: Omit<AmqpDeadLetters.Progress, "queue">) => {
      const { discarded, duplicates, failed, left, redriven, scanned, total } = progress
      counts = { total, scanned, redriven, discarded, left, duplicates, failed }
    }
    return Effect.andThen(
      Effect.logInfo(`AMQP dead letters: ${action} begins`),
      run((progress) => {
        countsOf(progress)
        return onProgress(progress)
      })
    ).pipe(
      Effect.onExit((exit) => {
        if (Exit.isSuccess(exit)) countsOf(exit.value)
        const line = Exit.isSuccess(exit)
          ? Effect.logInfo(`AMQP dead letters: ${action} is done`)
          : Cause.hasInterruptsOnly(exit.cause)
            ? Effect.logWarning(
                `AMQP dead letters: ${action} was stopped, because its client left or this server stops`
              )
            : Effect.logError(`AMQP dead letters: ${action} failed`, exit.cause)
        return Effect.annotateLogs(line, counts as Record<string, unknown>)
      }),
      Effect.annotateLogs(annotations)
    )
  }
}

const eventOf = (name: string, data: unknown) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`

/**
 * The operation as events. It runs as long as a client reads them: a client that leaves stops it, in order. A client
 * that reads slowly gets the latest counts, and does not hold up the operation.
 */
export const eventsOf = (
  run: Run,
  refusalOf: (error: AmqpError.AmqpError) => Refusal
): Stream.Stream<string, never, AmqpConsumer.AmqpConsumer> =>
  Stream.callback<string, never, AmqpConsumer.AmqpConsumer>(
    (queue) =>
      Effect.gen(function* () {
        const offer = (text: string) => Effect.asVoid(Queue.offer(queue, text))
        yield* Effect.forkScoped(
          Effect.forever(Effect.andThen(Effect.sleep(heartbeatMillis), offer(": heartbeat\n\n")))
        )
        const exit = yield* Effect.exit(run((progress) => offer(eventOf("progress", progress))))
        if (Exit.isSuccess(exit)) {
          yield* offer(eventOf("report", exit.value))
        } else {
          const error = Cause.findError(exit.cause)
          yield* offer(
            eventOf(
              "problem",
              problemOf(
                Result.isSuccess(error) && AmqpError.isAmqpError(error.success)
                  ? refusalOf(error.success)
                  : { status: 500 }
              )
            )
          )
        }
        yield* Queue.end(queue)
      }),
    // The report is the last element, so it is never the one that slides out.
    { bufferSize: 2, strategy: "sliding" }
  )
