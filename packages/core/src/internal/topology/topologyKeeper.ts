/**
 * Keeps a topology declared: makes its declarations on every new connection, and again when a part is missing. One pass
 * over the declarations is called a round. A declaration that the broker refuses must not prevent the others:
 *
 * - A declaration that closes its channel (403, 404, 405, 406) is set aside and tried again with growing pauses; the
 *   others continue on another channel.
 * - A declaration that ends the connection, such as an exchange whose plugin is missing (503 on RabbitMQ 3), would end
 *   each new connection. It is isolated: it is set aside at once, and tried again on a short-lived dedicated
 *   connection. Only one isolated declaration is tried at a time. Bindings that depend on it wait for it.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConnection } from "../../model/connection.ts"
import { make } from "../connection/supervisor.ts"
import * as AmqpError from "../../model/error.ts"
import type { AmqpConfig } from "../../model/config.ts"
import type { Attribution } from "../connection/attribution.ts"
import { monotonicMillis } from "../waiting/monotonicMillis.ts"
import { isMissingEntity, type RecoverableTopology, type RecoverableKind } from "../connection/topologyRecovery.ts"
import type { Link } from "../connection/link.ts"
import type { Preparation } from "../connection/preparations.ts"
import { shareInternals, connectionInternals } from "../connection/connectionInternals.ts"
import * as Logging from "../telemetry/logging.ts"
import { SharedLogin } from "../connection/login.ts"
import { withDeclarationChannel, type DeclarationChannel } from "./declarationChannel.ts"
import { type Step, stepsOf } from "./steps.ts"
import type { AmqpTopology } from "../../model/topology.ts"

/** The first pause for causes that may end at once, such as the lock of a connection that was lost, in milliseconds. */
const shortPause = 100
/** The first pause for other causes, in milliseconds. */
const firstPause = 1000
/** The longest pause, in milliseconds. */
const longestPause = 60_000
/**
 * Minimum time between two requested rounds, in milliseconds. Thousands of messages may report a missing part at once.
 */
const restoreInterval = 1000
/**
 * Minimum time between two rounds that returned messages request, in milliseconds. Many applications publish messages
 * on purpose that reach no queue.
 */
const unroutableInterval = 30_000
/** The number of names that are checked without a pause. */
const checksPerPause = 100

/** The state of a declaration that was set aside. */
interface SetAside {
  /** The reason of the last failure; `undefined` if the declaration has not failed on this connection. */
  readonly reason: AmqpError.AmqpErrorReason | undefined
  /** The number of attempts since the declaration was set aside. */
  readonly attempts: number
  readonly dueAt: number
}

class Declaration {
  readonly step: Step
  setAside: SetAside | undefined = undefined
  /** The number of consecutive connections that ended during this declaration. The reason may be unrelated to it. */
  losses = 0
  /** The number of connections that this declaration has ended. */
  connectionsClosed = 0
  /** Whether the declaration may be tried only on a dedicated connection. */
  isIsolated = false
  /** Whether the declaration has ever succeeded. */
  hasSucceeded: boolean

  constructor(step: Step, hasSucceeded: boolean) {
    this.step = step
    this.hasSucceeded = hasSucceeded
  }

  /** Whether the declaration was set aside and has not been tried since. */
  get isUntried(): boolean {
    return this.setAside?.attempts === 0
  }
}

/** The outcome of one declaration. `unavailable`: no channel could be opened for it. */
type Outcome = "declared" | "refused" | "lost" | "unavailable"

let keeperCount = 0

const isConnectionLost = (reason: AmqpError.AmqpErrorReason) => reason.severity === "connection"

/** The configuration of a connection for one isolated declaration. */
const isolatedConfig = (config: AmqpConfig): AmqpConfig => ({
  ...config,
  connectionName: config.connectionName === undefined ? "topology" : `${config.connectionName} topology`,
  lazyConnect: false,
  connectionAttempts: 1
})

export class TopologyKeeper implements RecoverableTopology {
  readonly #id = ++keeperCount
  readonly #connection: AmqpConnection["Service"]
  readonly #clock: Clock.Clock
  readonly #declarations: ReadonlyArray<Declaration>
  readonly #byName = new Map<string, Declaration>()
  readonly #checkInterval: number | undefined
  /** Called by `#wake`: each ends one wait. */
  #wakeCallbacks: ReadonlyArray<() => void> = []
  /** The link on which every declaration has been tried, and its generation. */
  #link: Link | undefined
  #generation: number
  #nextRoundAt = 0
  /** Names of missing parts, for the log. A round is requested while there are any. */
  readonly #missing = new Set<string>()
  /** Whether a message reached no queue, so that a part may be missing. This requests a round as well. */
  #isUnroutable = false
  /** When the last requested round began, in milliseconds. */
  #lastRestoreAt = -Infinity
  /** When a returned message last requested a round, in milliseconds. */
  #lastUnroutableAt = -Infinity
  /** Called when the next requested round has ended. */
  #restoreCallbacks: ReadonlyArray<() => void> = []
  #checkAt = Infinity
  #preparation: Preparation | undefined

  /** `declaredOn` is where the topology was declared; `undefined` if it was not declared yet. */
  constructor(
    connection: AmqpConnection["Service"],
    topology: AmqpTopology,
    checkInterval: number | undefined,
    clock: Clock.Clock,
    declaredOn: { readonly link: Link | undefined; readonly generation: number } | undefined
  ) {
    this.#connection = connection
    this.#clock = clock
    this.#checkInterval = checkInterval
    this.#declarations = stepsOf(topology).map((step) => new Declaration(step, declaredOn !== undefined))
    for (const declaration of this.#declarations) {
      const { kind, name } = declaration.step
      if (kind !== "binding") this.#byName.set(`${kind} ${name}`, declaration)
    }
    this.#link = declaredOn?.link
    this.#generation = declaredOn?.generation ?? 0
  }

  /** Runs until the scope closes. */
  readonly run: Effect.Effect<void, never, Scope.Scope> = Effect.gen({ self: this }, function* () {
    const internals = connectionInternals(this.#connection)
    // On each connection on which the topology was not declared yet, publishers and consumers wait until this
    // preparation is marked as done.
    this.#preparation = yield* Effect.acquireRelease(
      Effect.sync(() => {
        internals.topologyRecovery.add(this)
        return internals.preparations.add(this.#link)
      }),
      (preparation) =>
        Effect.sync(() => {
          internals.topologyRecovery.remove(this)
          internals.preparations.remove(preparation)
          for (const declaration of this.#declarations) internals.conditions.clear(this.#keyOf(declaration))
          this.#endWaits()
        })
    )
    yield* this.#scheduleCheck
    yield* Effect.forkScoped(
      Stream.runForEach(SubscriptionRef.changes(this.#connection.state), () => Effect.sync(() => this.#wake()))
    )
    yield* Effect.forkScoped(this.#guarded(this.#keepDeclared))
    yield* Effect.forkScoped(this.#guarded(this.#tryIsolated))
  })

  /** Runs a loop forever. A defect of this library is logged, and does not end the loop. */
  #guarded(loop: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.forever(
      Effect.catchCause(loop, (cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.failCause(cause as Cause.Cause<never>)
          : Effect.andThen(
              this.#annotate(
                Effect.logError("AMQP topology failed with a defect of effect-amqp, continuing after 1 second", cause)
              ),
              Effect.sleep(firstPause)
            )
      )
    )
  }

  // --- RecoverableTopology -------------------------------------------------------------------------------------------

  declares(kind: RecoverableKind, name: string): boolean {
    return this.#byName.has(`${kind} ${name}`)
  }

  onMissing(kind: RecoverableKind, name: string): void {
    const declaration = this.#byName.get(`${kind} ${name}`)
    // A declaration that was set aside is retried on its own schedule.
    if (declaration === undefined || declaration.setAside !== undefined) return
    this.#missing.add(declaration.step.what)
    this.#wake()
  }

  onUnroutable(): void {
    const now = this.#now
    if (now - this.#lastUnroutableAt < unroutableInterval) return
    this.#lastUnroutableAt = now
    this.#isUnroutable = true
    this.#wake()
  }

  readonly recover = (queue: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      // A declaration that was set aside is retried on its own schedule.
      if (this.#byName.get(`queue ${queue}`)?.setAside !== undefined) return Effect.void
      const { continuationTimeout } = this.#connection.config
      const restored = Effect.callback<void>((resume) => {
        const done = () => resume(Effect.void)
        this.#restoreCallbacks = [...this.#restoreCallbacks, done]
        this.#wake()
        return Effect.sync(() => {
          this.#restoreCallbacks = this.#restoreCallbacks.filter((each) => each !== done)
        })
      })
      return Effect.asVoid(Effect.timeoutOption(restored, continuationTimeout))
    })

  // --- Waiting -------------------------------------------------------------------------------------------------------

  get #now(): number {
    return monotonicMillis(this.#clock)
  }

  #wake(): void {
    const waits = this.#wakeCallbacks
    this.#wakeCallbacks = []
    for (const wake of waits) wake()
  }

  #endWaits(): void {
    this.#wake()
    const restored = this.#restoreCallbacks
    this.#restoreCallbacks = []
    for (const done of restored) done()
  }

  /** Waits until `#wake` is called, or until the time `at`. Returns at once if `isDue` already returns true. */
  #waitUntil(at: number, isDue: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      const woken = Effect.callback<void>((resume) => {
        if (isDue()) return resume(Effect.void)
        const wake = () => resume(Effect.void)
        this.#wakeCallbacks = [...this.#wakeCallbacks, wake]
        return Effect.sync(() => {
          this.#wakeCallbacks = this.#wakeCallbacks.filter((each) => each !== wake)
        })
      })
      return at === Infinity
        ? woken
        : Effect.asVoid(Effect.timeoutOption(woken, Math.max(0, Math.ceil(at - this.#now))))
    })
  }

  /** A pause that doubles per attempt. Its jitter spreads the load of all clients on a restarted broker. */
  #pause(first: number, attempt: number): Effect.Effect<number> {
    const bound = Math.min(longestPause, first * 2 ** Math.min(attempt, 16))
    return Effect.map(Random.next, (random) => bound * (0.5 + random / 2))
  }

  get #scheduleCheck(): Effect.Effect<void> {
    const interval = this.#checkInterval
    if (interval === undefined) return Effect.void
    return Effect.map(Random.next, (random) => {
      this.#checkAt = this.#now + interval * (0.9 + random / 5)
    })
  }

  /** The generation of the connection that is open now; 0 if none is open. */
  get #openGeneration(): number {
    const { value } = this.#connection.state
    return value._tag === "Open" && connectionInternals(this.#connection).currentLink() !== undefined
      ? value.generation
      : 0
  }

  // --- On the application's connection -------------------------------------------------------------------------------

  /** Whether a declaration that was set aside may be tried now on the application's connection. */
  #isDue({ isIsolated, setAside, step }: Declaration): boolean {
    return !isIsolated && setAside !== undefined && setAside.dueAt <= this.#now && this.#hasDependencies(step)
  }

  #hasDependencies({ dependencies }: Step): boolean {
    return dependencies.every(({ kind, name }) => {
      const needed = this.#byName.get(`${kind} ${name}`)
      return needed === undefined || !needed.isIsolated || needed.setAside === undefined
    })
  }

  get #isRoundRequested(): boolean {
    return this.#missing.size > 0 || this.#isUnroutable || this.#restoreCallbacks.length > 0
  }

  readonly #nextAt = (): number => {
    if (this.#openGeneration === 0) return Infinity
    if (this.#openGeneration > this.#generation) return this.#nextRoundAt
    let next = this.#checkAt
    if (this.#isRoundRequested) next = Math.min(next, this.#lastRestoreAt + restoreInterval)
    for (const { isIsolated, setAside, step } of this.#declarations) {
      if (!isIsolated && setAside !== undefined && this.#hasDependencies(step)) next = Math.min(next, setAside.dueAt)
    }
    return Math.max(next, this.#nextRoundAt)
  }

  readonly #keepDeclared: Effect.Effect<void> = Effect.suspend(() => {
    const generation = this.#openGeneration
    const now = this.#now
    if (generation > 0 && now >= this.#nextRoundAt) {
      if (generation > this.#generation) return this.#onNewConnection(generation)
      if (this.#isRoundRequested && now >= this.#lastRestoreAt + restoreInterval) return this.#restoreMissing
      const due = this.#declarations.filter((declaration) => this.#isDue(declaration))
      if (due.length > 0) return Effect.map(this.#round(due), () => this.#markPreparedIfTried())
      if (now >= this.#checkAt) return Effect.andThen(this.#check, this.#scheduleCheck)
    }
    const at = this.#nextAt()
    return this.#waitUntil(at, () => this.#nextAt() < at)
  })

  #onNewConnection(generation: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const now = this.#now
      for (const declaration of this.#declarations) {
        // What this declaration has made on a dedicated connection may no longer exist, because the application's
        // connection was lost.
        if (declaration.isIsolated && declaration.setAside === undefined) {
          declaration.setAside = { reason: undefined, attempts: 0, dueAt: now }
        }
      }
      this.#wake()
      const { currentLink, preparations } = connectionInternals(this.#connection)
      const link = currentLink()
      const preparation = this.#preparation
      if (link === undefined || preparation === undefined) return Effect.void
      const round = Effect.suspend(() =>
        currentLink() === link ? this.#round(this.#declarations) : Effect.succeed(false)
      )
      const { continuationTimeout } = this.#connection.config
      return Effect.map(
        Effect.andThen(preparations.waitForEarlier(preparation, link, continuationTimeout), round),
        (isComplete) => {
          if (!isComplete) return
          this.#generation = generation
          this.#link = link
          preparation.markAttempted(link)
          this.#markPreparedIfTried()
        }
      )
    })
  }

  readonly #restoreMissing: Effect.Effect<void> = Effect.suspend(() => {
    this.#lastRestoreAt = this.#now
    // Many applications publish messages that reach no queue on purpose. Only a check shows whether a part is missing.
    const isSearched = this.#isUnroutable && this.#missing.size === 0
    this.#isUnroutable = false
    return isSearched ? Effect.andThen(this.#check, this.#declareMissing) : this.#declareMissing
  })

  readonly #declareMissing: Effect.Effect<void> = Effect.suspend(() => {
    const missing = Array.from(this.#missing)
    const waiting = this.#restoreCallbacks
    this.#missing.clear()
    this.#restoreCallbacks = []
    return this.#round(this.#declarations).pipe(
      Effect.flatMap((isComplete) =>
        isComplete && missing.length > 0
          ? this.#annotate(Effect.logWarning("AMQP topology declared again: parts of it were missing"), { missing })
          : Effect.void
      ),
      Effect.ensuring(
        Effect.sync(() => {
          for (const done of waiting) done()
        })
      )
    )
  })

  /** Makes the given declarations one after the other. Returns whether the connection lasted until the end. */
  #round(declarations: ReadonlyArray<Declaration>): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const link = connectionInternals(this.#connection).currentLink()
      if (link === undefined) return Effect.succeed(false)
      return withDeclarationChannel(this.#connection, link, (session) =>
        Effect.gen({ self: this }, function* () {
          for (const declaration of declarations) {
            if (declaration.isIsolated || !this.#hasDependencies(declaration.step)) continue
            const outcome = yield* this.#declare(declaration, session)
            if (outcome === "declared" || outcome === "refused") continue
            // The next round is delayed, because the link may have ended although the connection does not show it yet.
            this.#nextRoundAt = this.#now + (outcome === "lost" ? 50 : firstPause)
            return false
          }
          this.#nextRoundAt = 0
          return true
        })
      )
    })
  }

  #declare(declaration: Declaration, session: DeclarationChannel): Effect.Effect<Outcome> {
    return Effect.matchEffect(session.open, {
      onFailure: () => Effect.succeed("unavailable" as const),
      onSuccess: (channel) =>
        Effect.flatMap(Effect.exit(declaration.step.declare(channel)), (exit): Effect.Effect<Outcome> => {
          if (Exit.isSuccess(exit)) return Effect.as(this.#declared(declaration), "declared")
          if (Cause.hasInterruptsOnly(exit.cause)) return Effect.interrupt
          const reason = reasonOf(exit.cause)
          return isConnectionLost(reason)
            ? Effect.as(this.#lost(declaration, reason, session.attribution), "lost")
            : Effect.as(this.#refused(declaration, reason), "refused")
        })
    })
  }

  #declared(declaration: Declaration): Effect.Effect<void> {
    declaration.losses = 0
    declaration.hasSucceeded = true
    const { setAside, step } = declaration
    if (setAside === undefined) return Effect.void
    declaration.setAside = undefined
    connectionInternals(this.#connection).conditions.clear(this.#keyOf(declaration))
    // Declarations that depend on this one are due now.
    for (const other of this.#declarations) {
      if (other.setAside !== undefined && other.step.dependencies.includes(step)) {
        other.setAside = { ...other.setAside, dueAt: this.#now }
      }
    }
    this.#wake()
    return setAside.reason === undefined
      ? Effect.void
      : this.#annotate(Effect.logInfo("AMQP topology: a declaration that was set aside has succeeded"), {
          declaration: step.what
        })
  }

  /** Sets aside a declaration that has closed its channel or got no reply. */
  #refused(declaration: Declaration, reason: AmqpError.AmqpErrorReason): Effect.Effect<void> {
    const isTemporary = reason.isRetryable || (reason._tag === "NotFound" && !isMissingEntity(reason))
    return this.#setAside(declaration, reason, isTemporary)
  }

  #setAside(declaration: Declaration, reason: AmqpError.AmqpErrorReason, isTemporary: boolean): Effect.Effect<void> {
    const first = reason.isRetryable && !declaration.isIsolated ? shortPause : firstPause
    return Effect.flatMap(this.#pause(first, declaration.setAside?.attempts ?? 0), (pause) => {
      const before = declaration.setAside
      declaration.setAside = { reason, attempts: (before?.attempts ?? 0) + 1, dueAt: this.#now + pause }
      return this.#report(declaration, reason, before?.reason, isTemporary)
    })
  }

  #report(
    declaration: Declaration,
    reason: AmqpError.AmqpErrorReason,
    before: AmqpError.AmqpErrorReason | undefined,
    isTemporary: boolean
  ): Effect.Effect<void> {
    const { what } = declaration.step
    connectionInternals(this.#connection).conditions.report(
      this.#keyOf(declaration),
      {
        kind: "DeclarationSetAside",
        message: `${what} is not declared: ${reason.message}`,
        // Without `lazyConnect` an application whose declaration has never succeeded would not have started.
        notReady: !declaration.hasSucceeded
      },
      this.#clock.currentTimeMillisUnsafe()
    )
    const isNew = before?._tag !== reason._tag
    const log = !isNew ? Effect.logDebug : isTemporary ? Effect.logWarning : Effect.logError
    return this.#annotate(log("AMQP topology: a declaration was set aside and will be retried"), {
      declaration: what,
      reason: reason.message
    })
  }

  /** Handles the end of the connection during a declaration. */
  #lost(declaration: Declaration, reason: AmqpError.AmqpErrorReason, attribution: Attribution): Effect.Effect<void> {
    declaration.losses++
    // A first loss without an attribution may be a coincidence.
    const isCause = attribution !== "none" || declaration.losses > 1
    if (!isCause) {
      return this.#annotate(Effect.logWarning("AMQP topology not declared yet: the connection was lost"), {
        declaration: declaration.step.what,
        reason: reason.message
      })
    }
    declaration.losses = 0
    declaration.connectionsClosed++
    declaration.isIsolated = true
    const before = declaration.setAside
    declaration.setAside = { reason, attempts: 0, dueAt: this.#now }
    this.#wake()
    return this.#report(declaration, reason, before?.reason, false)
  }

  /**
   * Marks this connection as prepared when every declaration has been tried since it was opened, and none is set aside
   * for a temporary reason. An isolated declaration only has to be tried. Publishers and consumers wait for the mark,
   * for at most `continuationTimeout`.
   */
  #markPreparedIfTried(): void {
    const link = this.#link
    const isAwaited = ({ isUntried, isIsolated, setAside }: Declaration) =>
      isIsolated ? isUntried : setAside?.reason?.isRetryable === true
    if (link !== undefined && !this.#declarations.some(isAwaited)) this.#preparation?.markDone(link)
  }

  // --- On a dedicated connection -------------------------------------------------------------------------------------

  readonly #nextIsolated = (): Declaration | undefined => {
    let next: Declaration | undefined
    if (this.#openGeneration === 0) return next
    for (const declaration of this.#declarations) {
      if (!declaration.isIsolated || declaration.setAside === undefined) continue
      if (next === undefined || declaration.setAside.dueAt < next.setAside!.dueAt) next = declaration
    }
    return next
  }

  readonly #tryIsolated: Effect.Effect<void> = Effect.suspend(() => {
    const next = this.#nextIsolated()
    const at = next?.setAside?.dueAt ?? Infinity
    if (next !== undefined && at <= this.#now) {
      return Effect.andThen(
        this.#attemptIsolated(next),
        Effect.sync(() => this.#markPreparedIfTried())
      )
    }
    return this.#waitUntil(at, () => (this.#nextIsolated()?.setAside?.dueAt ?? Infinity) < at)
  })

  /**
   * Tries an isolated declaration on a dedicated connection and, if it succeeds, the declarations that depend on it.
   */
  #attemptIsolated(declaration: Declaration): Effect.Effect<void> {
    const main = this.#connection
    const attempt = Effect.gen({ self: this }, function* () {
      // The outcome of the declaration is logged. The dedicated connection itself logs nothing, because it is
      // short-lived.
      const level = yield* References.MinimumLogLevel
      return yield* Effect.gen({ self: this }, function* () {
        const connection = yield* make(isolatedConfig(main.config))
        shareInternals(connection, main)
        const link = yield* connectionInternals(connection).nextLink
        return yield* withDeclarationChannel(connection, link, (session) =>
          Effect.provideService(this.#declareIsolated(declaration, session), References.MinimumLogLevel, level)
        )
      }).pipe(
        Effect.scoped,
        Effect.provideService(SharedLogin, connectionInternals(main).login),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
    })
    return Effect.flatMap(Effect.exit(attempt), (exit) => {
      if (Exit.isSuccess(exit)) return exit.value
      if (Cause.hasInterruptsOnly(exit.cause)) return Effect.interrupt
      // If no connection or channel was opened, the declaration was not tried. So the reason of its last failure is
      // kept.
      return this.#setAside(declaration, declaration.setAside?.reason ?? reasonOf(exit.cause), true)
    })
  }

  /** Returns an effect that must run after the dedicated connection has closed. */
  #declareIsolated(
    declaration: Declaration,
    session: DeclarationChannel
  ): Effect.Effect<Effect.Effect<void>, AmqpError.AmqpError> {
    return Effect.gen({ self: this }, function* () {
      const channel = yield* session.open
      const exit = yield* Effect.exit(declaration.step.declare(channel))
      if (Exit.isFailure(exit)) {
        if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.interrupt
        const reason = reasonOf(exit.cause)
        if (isConnectionLost(reason)) return this.#setAside(declaration, reason, false)
        // The declaration was refused without ending the connection. So it needs no dedicated connection any more.
        declaration.isIsolated = false
        return this.#refused(declaration, reason)
      }
      const { setAside, step } = declaration
      if (step.isExclusive) {
        // An exclusive queue is deleted with this connection. It is declared on the application's connection
        // afterwards.
        return Effect.sync(() => {
          declaration.isIsolated = false
          declaration.setAside = { reason: setAside?.reason, attempts: 1, dueAt: this.#now }
          this.#wake()
        })
      }
      // If only one connection has ended, another declaration may have caused that. A declaration that has ended two
      // connections stays isolated.
      if (declaration.connectionsClosed < 2) declaration.isIsolated = false
      yield* this.#declared(declaration)
      for (const other of this.#declarations) {
        if (!other.step.dependencies.includes(step) || other.isIsolated || !this.#hasDependencies(other.step)) continue
        if (other.step.isExclusive) other.setAside ??= { reason: undefined, attempts: 1, dueAt: this.#now }
        else if ((yield* this.#declare(other, session)) === "lost") break
      }
      return Effect.sync(() => this.#wake())
    })
  }

  // --- Checks --------------------------------------------------------------------------------------------------------

  /**
   * Verifies by passive declarations that the exchanges and queues exist. This changes nothing, and costs one round
   * trip per name. AMQP cannot verify bindings.
   */
  readonly #check: Effect.Effect<void> = Effect.suspend(() => {
    const link = connectionInternals(this.#connection).currentLink()
    if (link === undefined) return Effect.void
    return withDeclarationChannel(this.#connection, link, (session) =>
      Effect.gen({ self: this }, function* () {
        let checks = 0
        for (const { setAside, step } of this.#declarations) {
          const { kind, mayExpire, name } = step
          if (kind === "binding" || mayExpire || setAside !== undefined) continue
          if (++checks % checksPerPause === 0) yield* Effect.sleep(100)
          const opened = yield* Effect.option(session.open)
          if (Option.isNone(opened)) return
          const passive =
            kind === "queue" ? opened.value.queueDeclarePassive(name) : opened.value.exchangeDeclarePassive(name)
          const seen = yield* Effect.exit(passive)
          if (Exit.isSuccess(seen)) continue
          if (Cause.hasInterruptsOnly(seen.cause)) return yield* Effect.interrupt
          const reason = reasonOf(seen.cause)
          if (isConnectionLost(reason)) return
          if (isMissingEntity(reason)) this.onMissing(kind, name)
        }
      })
    )
  })

  // --- Reports -------------------------------------------------------------------------------------------------------

  #keyOf({ step }: Declaration): string {
    return `topology ${this.#id}: ${step.what}`
  }

  #annotate(log: Effect.Effect<void>, annotations: Readonly<Record<string, unknown>> = {}): Effect.Effect<void> {
    return Effect.annotateLogs(log, { ...annotations, ...Logging.connectionAnnotations(this.#connection.config) })
  }
}

const reasonOf = (cause: Cause.Cause<AmqpError.AmqpError>): AmqpError.AmqpErrorReason =>
  Option.match(Cause.findErrorOption(cause), {
    onNone: () =>
      new AmqpError.UnknownError({
        message: "a topology declaration failed with a defect",
        cause: Cause.squash(cause)
      }),
    onSome: ({ reason }) => reason
  })
