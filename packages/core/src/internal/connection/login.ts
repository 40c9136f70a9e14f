/**
 * The credentials of an application's connections. A new secret reaches open connections at once, and later connections
 * when they log in.
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
import { checkNameOrEmpty } from "../wire/declarations.ts"
import { invalidArgument } from "../wire/fieldTable.ts"
import { fail } from "../../model/failures.ts"

const operation = "connection.update-secret"

/** A connection that uses the shared credentials. */
export interface LoginMember {
  readonly current: () => Link | undefined
  /** Called when the secret is replaced, before it is sent to the broker. Must not throw. */
  readonly onReplaced: () => void
  readonly continuationTimeout: Duration.Duration
}

const sendSecret = (
  { continuationTimeout, current }: LoginMember,
  secret: Redacted.Redacted<string>,
  reason: string,
  onRefused: () => void
) =>
  Effect.callback<void, AmqpError.AmqpError>((resume) => {
    const link = current()
    // No connection is open. The next one logs in with the new secret.
    if (link === undefined) return resume(Effect.void)
    link.updateSecret(secret, reason, (outcome) => {
      if (outcome === "taken" || outcome === "lost") return resume(Effect.void)
      // Called here, in the tick of the close, and not when the waiting fiber runs: the previous secret must be
      // restored before any reconnect.
      onRefused()
      const message = `${operation}: ${link.peer} refused the new secret and closed the connection, which is reopened with the previous secret: ${outcome.message}`
      resume(fail(new AmqpError.AuthenticationFailed({ message, operation, replyCode: outcome.replyCode })))
    })
  }).pipe(
    Effect.timeoutOrElse({
      duration: continuationTimeout,
      orElse: () => {
        const limit = `${Duration.format(continuationTimeout)} (continuationTimeout)`
        const message = `${operation}: the broker did not answer within ${limit}. The next login uses the new secret.`
        return fail(new AmqpError.ReplyTimeout({ message, operation }))
      }
    })
  )

export class Login {
  /** The credentials of the next login. */
  credentials: Credentials
  /** Whether one of the connections has ever been open: after that, a refusal may be transient. */
  wasAccepted = false
  /** Completed when the secret is replaced. */
  replaced = Deferred.makeUnsafe<void>()
  readonly #members = new Set<LoginMember>()
  // A refusal restores the previous credentials. Updates run one at a time, so that those are never another update's.
  readonly #mutex = Semaphore.makeUnsafe(1)

  constructor(credentials: Credentials) {
    this.credentials = credentials
  }

  join(member: LoginMember): void {
    this.#members.add(member)
  }

  leave(member: LoginMember): void {
    this.#members.delete(member)
  }

  /** Sends the current secret to a link that was opened with an older one. */
  catchUp(link: Link): void {
    if (this.credentials._tag !== "Plain") return
    link.updateSecret(this.credentials.password, "replaced while connecting", () => {})
  }

  update(secret: unknown, reason: unknown): Effect.Effect<void, AmqpError.AmqpError> {
    const decoded = secretText("a secret").decode(secret, "plain")
    if (decoded._tag === "Failure") {
      const { got = "a secret that is not valid", expected } = decoded.failure[0]!
      return fail(invalidArgument(operation, "secret", expected, got))
    }
    const wrong = checkNameOrEmpty(operation, "reason", reason)
    if (wrong !== undefined) return fail(wrong)
    return this.#mutex.withPermit(Effect.suspend(() => this.#replace(decoded.success, reason as string)))
  }

  #replace(password: Redacted.Redacted<string>, reason: string): Effect.Effect<void, AmqpError.AmqpError> {
    const before = this.credentials
    if (before._tag !== "Plain") {
      const got = "one, although credentials External log in with the client's certificate"
      return fail(invalidArgument(operation, "secret", "no secret", got))
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
    return Effect.forEach(this.#members, (member) => Effect.exit(sendSecret(member, password, reason, putBack)), {
      concurrency: "unbounded"
    }).pipe(
      Effect.flatMap(
        (exits) => exits.find(Exit.isFailure) ?? Effect.logInfo("AMQP secret updated: later logins use it")
      )
    )
  }
}

/** The login that connections share with others; `undefined`: a connection has its own. */
export const SharedLogin: Context.Reference<Login | undefined> = Context.Reference<Login | undefined>(
  "@effect-amqp/core/internal/SharedLogin",
  { defaultValue: () => undefined }
)
