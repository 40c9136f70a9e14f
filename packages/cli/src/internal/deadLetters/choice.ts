/** The filters of the commands on dead letters. */
import { AmqpDeadLetters } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { type Failure, usage } from "../failure.ts"

export interface Choice {
  readonly queue: string
  readonly error: ReadonlyArray<string>
  readonly origin: ReadonlyArray<string>
  readonly ids: ReadonlyArray<string>
  /** In milliseconds. */
  readonly olderThan: number | undefined
  readonly deliveryLimit: number | undefined
}

/** The secret that consumers sign reasons with. From the environment only, as every secret. */
export const secretVariable = "EFFECT_AMQP_RETRY_SECRET"

export const deadLettersOf = ({ deliveryLimit, queue }: Choice): Effect.Effect<AmqpDeadLetters.DeadLetters, Failure> =>
  Effect.suspend(() => {
    const secret = process.env[secretVariable]
    // Taken for none, a secret that was lost on the way would make every reason trusted.
    if (secret === "") {
      return Effect.fail(usage(`${secretVariable}: expected a secret (or unset this variable), got an empty string`))
    }
    return Effect.succeed(
      AmqpDeadLetters.of(queue, {
        deliveryLimit,
        secret: secret === undefined ? undefined : Redacted.make(secret)
      })
    )
  })

export const isFiltered = ({ error, ids, olderThan, origin }: Choice): boolean =>
  error.length + ids.length + origin.length > 0 || olderThan !== undefined

/** What an operator calls the error of a letter: its tag, or what the broker did if no error is known. */
export const errorOf = ({ reason }: Pick<AmqpDeadLetters.DeadLetter, "reason">): string => reason.error ?? reason.kind

/** Whether a letter matches every kind of filter. `now` is fixed, so that a long run chooses what its start chose. */
export const matches = ({ error, ids, olderThan, origin }: Choice, now: number): AmqpDeadLetters.Where => {
  const [errors, origins, chosen] = [new Set(error), new Set(origin), new Set(ids)]
  return (letter) => {
    const failedAt = letter.reason.lastAt?.getTime()
    return (
      (errors.size === 0 || errors.has(errorOf(letter)) || errors.has(letter.reason.kind)) &&
      (origins.size === 0 || (letter.origin !== undefined && origins.has(letter.origin.queue))) &&
      (chosen.size === 0 || chosen.has(letter.id)) &&
      (olderThan === undefined || (failedAt !== undefined && failedAt <= now - olderThan))
    )
  }
}

/** The filters in words, for the question before anything happens. */
export const describe = ({ error, ids, olderThan, origin }: Choice): string => {
  const quoted = (values: ReadonlyArray<string>) => values.map((value) => JSON.stringify(value)).join(" or ")
  return [
    error.length === 0 ? "" : ` with error ${quoted(error)}`,
    origin.length === 0 ? "" : ` from queue ${quoted(origin)}`,
    ids.length === 0 ? "" : ` with id ${quoted(ids)}`,
    olderThan === undefined ? "" : ` that failed more than ${olderThan / 1000} s ago`
  ].join("")
}
