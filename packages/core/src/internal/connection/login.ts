/**
 * What the connections of an application log in with, and how a new secret comes to all of them: to those that are
 * open, at once; to those that are made later, when they are.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Redacted from "effect/Redacted"
import * as Semaphore from "effect/Semaphore"
import type { Credentials } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import type { Link } from "./link.ts"
import { secretText } from "../config/decoder.ts"
import { checkText } from "../wire/declarations.ts"
import { refused } from "../wire/fieldTable.ts"
import { fail } from "../../model/failures.ts"

const operation = "connection.update-secret"

/** A connection that logs in. */
export interface Member {
  readonly current: () => Link | undefined
  /** Called when there is a new secret, before its broker knows of it. Must not throw. */
  readonly onReplaced: () => void
  readonly continuationTimeout: Duration.Duration
}

const tell = (
  { continuationTimeout, current }: Member,
  secret: Redacted.Redacted<string>,
  reason: string,
  onRefused: () => void
) =>
  Effect.callback<void, AmqpError.AmqpError>((resume) => {
    const link = current()
    // The next one logs in with it.
    if (link === undefined) return resume(Effect.void)
    link.updateSecret(secret, reason, (outcome) => {
      if (outcome === "taken" || outcome === "lost") return resume(Effect.void)
      // Before anybody connects again, so not when the fiber that waits here runs.
      onRefused()
      const message = `${operation}: ${link.peer} refused the new secret and closed the connection, which comes back with the one before: ${outcome.message}`
      resume(fail(new AmqpError.AuthenticationFailed({ message, operation, replyCode: outcome.replyCode })))
    })
  }).pipe(
    Effect.timeoutOrElse({
      duration: continuationTimeout,
      orElse: () => {
        const limit = `${Duration.format(continuationTimeout)} (continuationTimeout)`
        const message = `${operation}: the broker did not answer within ${limit}. The new secret is used by the next connect.`
        return fail(new AmqpError.ReplyTimeout({ message, operation }))
      }
    })
  )

export class Login {
  /** For the next connect. */
  credentials: Credentials
  /** Whether one of the connections has been open: from then on a refusal may pass. */
  wasAccepted = false
  /** Done when the secret is replaced. */
  replaced = Deferred.makeUnsafe<void>()
  readonly #members = new Set<Member>()
  // A refusal puts back what was there before: with one at a time, that is not another one's.
  readonly #turn = Semaphore.makeUnsafe(1)

  constructor(credentials: Credentials) {
    this.credentials = credentials
  }

  join(member: Member): void {
    this.#members.add(member)
  }

  leave(member: Member): void {
    this.#members.delete(member)
  }

  /** Tells a link that it was opened with a secret that has been replaced meanwhile. */
  catchUp(link: Link): void {
    if (this.credentials._tag !== "Plain") return
    link.updateSecret(this.credentials.password, "replaced while connecting", () => {})
  }

  update(secret: unknown, reason: unknown): Effect.Effect<void, AmqpError.AmqpError> {
    const decoded = secretText("a secret").decode(secret, "plain")
    if (decoded._tag === "Failure") {
      const { got = "a secret that is not valid", wants } = decoded.failure[0]!
      return fail(refused(operation, "secret", wants, got))
    }
    const wrong = checkText(operation, "reason", reason)
    if (wrong !== undefined) return fail(wrong)
    return this.#turn.withPermit(Effect.suspend(() => this.#replace(decoded.success, reason as string)))
  }

  #replace(password: Redacted.Redacted<string>, reason: string): Effect.Effect<void, AmqpError.AmqpError> {
    const before = this.credentials
    if (before._tag !== "Plain") {
      const got = "one beside credentials External, which are the client's certificate"
      return fail(refused(operation, "secret", "no secret", got))
    }
    const now = { ...before, password }
    this.credentials = now
    const { replaced } = this
    this.replaced = Deferred.makeUnsafe()
    for (const member of this.#members) member.onReplaced()
    Deferred.doneUnsafe(replaced, Effect.void)
    const putBack = () => {
      if (this.credentials === now) this.credentials = before
    }
    return Effect.forEach(this.#members, (member) => Effect.exit(tell(member, password, reason, putBack)), {
      concurrency: "unbounded"
    }).pipe(Effect.flatMap((exits) => exits.find(Exit.isFailure) ?? Effect.logInfo("AMQP secret updated")))
  }
}

/** The login that connections made here share with others; `undefined`: one of their own. */
export const SharedLogin: Context.Reference<Login | undefined> = Context.Reference<Login | undefined>(
  "@effect-amqp/core/internal/SharedLogin",
  { defaultValue: () => undefined }
)
