/**
 * Keeps a topology declared: on every new connection, when something of it is missing, and one declaration apart from the
 * others where the broker refuses it.
 *
 * - A declaration that costs its channel (403, 404, 405, 406) is set aside and tried again with growing pauses; the others
 *   go on, on another channel.
 * - A declaration that ends the connection, such as an exchange whose plugin is missing (503 on RabbitMQ 3), would end each
 *   new connection. It is set aside at once, and tried again on a short-lived connection of its own, one at a time.
 *   Bindings that need it wait for it.
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
import type { Blame } from "../connection/blame.ts"
import { elapsed } from "../waiting/elapsed.ts"
import { isAbsence, type Keeper, type Kept } from "../connection/keepers.ts"
import type { Link } from "../connection/link.ts"
import { joinTo, linksOf } from "../connection/links.ts"
import * as Logging from "../telemetry/logging.ts"
import { SharedLogin } from "../connection/login.ts"
import { during, type Session } from "./session.ts"
import { type Step, stepsOf } from "./steps.ts"
import type { AmqpTopology } from "../../model/topology.ts"

/** In milliseconds. What may pass at once, such as the lock of a connection that was lost, is tried again soon. */
const soonPause = 100
const firstPause = 1000
const longestPause = 60_000
/** Between two rounds that were asked for: what is missing may be reported by thousands of messages at once. */
const betweenRestores = 1000
/** Between two rounds for messages that reached no queue, which many applications publish on purpose. */
const betweenUnroutable = 30_000
/** So many names are looked at without a pause. */
const looksAtOnce = 100

/** What has been set aside. */
interface SetAside {
  /** Undefined: nothing is known against it since the connection is new. */
  readonly reason: AmqpError.AmqpErrorReason | undefined
  /** How often it has been tried since. */
  readonly attempts: number
  readonly dueAt: number
}

class Declaration {
  readonly step: Step
  setAside: SetAside | undefined = undefined
  /** Connections that have ended while it was under way, one after the other, for a reason that may be another. */
  losses = 0
  /** Connections that it has ended. */
  kills = 0
  /** Whether it may only be tried on a connection of its own. */
  isIsolated = false

  constructor(step: Step) {
    this.step = step
  }

  /** Whether it has never been tried since it was set aside. */
  get isFresh(): boolean {
    return this.setAside?.attempts === 0
  }
}

/** `unavailable`: there is no channel. */
type Outcome = "declared" | "refused" | "lost" | "unavailable"

let count = 0

const isConnectionLost = (reason: AmqpError.AmqpErrorReason) => reason.severity === "connection"

/** The settings of the connection on which a declaration is tried alone. */
const isolatedConfig = (config: AmqpConfig): AmqpConfig => ({
  ...config,
  connectionName: config.connectionName === undefined ? "topology" : `${config.connectionName} topology`,
  lazyConnect: false,
  connectionAttempts: 1
})

export class Redeclaring implements Keeper {
  readonly #id = ++count
  readonly #connection: AmqpConnection["Service"]
  readonly #clock: Clock.Clock
  readonly #declarations: ReadonlyArray<Declaration>
  readonly #byName = new Map<string, Declaration>()
  readonly #checkInterval: number | undefined
  #waits: ReadonlyArray<() => void> = []
  /** The link on which all was tried, and the number of that connection. */
  #link: Link | undefined
  #generation: number
  #nextRoundAt = 0
  /** Whether something is missing, and when it was seen to last; names for the log. */
  readonly #missing = new Set<string>()
  #restoredAt = -Infinity
  #unroutableAt = -Infinity
  #restored: ReadonlyArray<() => void> = []
  #checkAt = Infinity
  #isPrepared: (link: Link) => void = () => {}

  constructor(
    connection: AmqpConnection["Service"],
    topology: AmqpTopology,
    checkInterval: number | undefined,
    clock: Clock.Clock,
    declaredOn: { readonly link: Link | undefined; readonly generation: number }
  ) {
    this.#connection = connection
    this.#clock = clock
    this.#checkInterval = checkInterval
    this.#declarations = stepsOf(topology).map((step) => new Declaration(step))
    for (const declaration of this.#declarations) {
      const { kind, name } = declaration.step
      if (kind !== "binding") this.#byName.set(`${kind} ${name}`, declaration)
    }
    this.#link = declaredOn.link
    this.#generation = declaredOn.generation
  }

  /** Runs until the scope closes. */
  readonly run: Effect.Effect<void, never, Scope.Scope> = Effect.gen({ self: this }, function* () {
    const links = linksOf(this.#connection)
    // Publishers and consumers on the next connection wait for it.
    const preparation = yield* Effect.acquireRelease(
      Effect.sync(() => {
        links.keepers.add(this)
        return links.preparations.add(this.#link)
      }),
      (preparation) =>
        Effect.sync(() => {
          links.keepers.remove(this)
          links.preparations.remove(preparation)
          for (const declaration of this.#declarations) links.conditions.clear(this.#keyOf(declaration))
          this.#endWaits()
        })
    )
    this.#isPrepared = (link) => preparation.done(link)
    yield* this.#scheduleCheck
    yield* Effect.forkScoped(
      Stream.runForEach(SubscriptionRef.changes(this.#connection.state), () => Effect.sync(() => this.#wake()))
    )
    yield* Effect.forkScoped(this.#guarded(this.#keep))
    yield* Effect.forkScoped(this.#guarded(this.#tryIsolated))
  })

  /** A defect of ours must not end it in silence. */
  #guarded(loop: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.forever(
      Effect.catchCause(loop, (cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.failCause(cause as Cause.Cause<never>)
          : Effect.andThen(
              this.#annotate(Effect.logError("AMQP topology: this is a defect of effect-amqp", cause)),
              Effect.sleep(firstPause)
            )
      )
    )
  }

  // --- What others know of it ----------------------------------------------------------------------------------------

  keeps(kind: Kept, name: string): boolean {
    return this.#byName.has(`${kind} ${name}`)
  }

  missing(kind: Kept, name: string): void {
    const declaration = this.#byName.get(`${kind} ${name}`)
    // It is tried at its own pace.
    if (declaration === undefined || declaration.setAside !== undefined) return
    this.#missing.add(declaration.step.what)
    this.#wake()
  }

  unroutable(): void {
    const now = this.#now
    if (now - this.#unroutableAt < betweenUnroutable) return
    this.#unroutableAt = now
    this.#missing.add("a route of a message that was returned")
    this.#wake()
  }

  readonly restore = (queue: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      // It is tried at its own pace.
      if (this.#byName.get(`queue ${queue}`)?.setAside !== undefined) return Effect.void
      const { continuationTimeout } = this.#connection.config
      const restored = Effect.callback<void>((resume) => {
        const done = () => resume(Effect.void)
        this.#restored = [...this.#restored, done]
        this.#wake()
        return Effect.sync(() => {
          this.#restored = this.#restored.filter((each) => each !== done)
        })
      })
      return Effect.asVoid(Effect.timeoutOption(restored, continuationTimeout))
    })

  // --- Waiting -------------------------------------------------------------------------------------------------------

  get #now(): number {
    return elapsed(this.#clock)
  }

  #wake(): void {
    const waits = this.#waits
    this.#waits = []
    for (const wake of waits) wake()
  }

  #endWaits(): void {
    this.#wake()
    const restored = this.#restored
    this.#restored = []
    for (const done of restored) done()
  }

  /** Waits until it is woken up, or that time has come; not at all if `isDue` already. */
  #until(at: number, isDue: () => boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      const woken = Effect.callback<void>((resume) => {
        if (isDue()) return resume(Effect.void)
        const wake = () => resume(Effect.void)
        this.#waits = [...this.#waits, wake]
        return Effect.sync(() => {
          this.#waits = this.#waits.filter((each) => each !== wake)
        })
      })
      return at === Infinity
        ? woken
        : Effect.asVoid(Effect.timeoutOption(woken, Math.max(0, Math.ceil(at - this.#now))))
    })
  }

  /** A pause that doubles, with jitter: what a restarted broker has to do for all its clients at once is spread out. */
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

  /** The number of the connection that is open now; 0: none is. */
  get #open(): number {
    const { value } = this.#connection.state
    return value._tag === "Open" && linksOf(this.#connection).current() !== undefined ? value.generation : 0
  }

  // --- On the application's connection -------------------------------------------------------------------------------

  /** What may be tried now on the application's connection, of what was set aside. */
  #isDue({ isIsolated, setAside, step }: Declaration): boolean {
    return !isIsolated && setAside !== undefined && setAside.dueAt <= this.#now && this.#hasItsNeeds(step)
  }

  #hasItsNeeds({ needs }: Step): boolean {
    return needs.every(({ kind, name }) => {
      const needed = this.#byName.get(`${kind} ${name}`)
      return needed === undefined || !needed.isIsolated || needed.setAside === undefined
    })
  }

  get #isAskedFor(): boolean {
    return this.#missing.size > 0 || this.#restored.length > 0
  }

  readonly #nextAt = (): number => {
    if (this.#open === 0) return Infinity
    if (this.#open > this.#generation) return this.#nextRoundAt
    let next = this.#checkAt
    if (this.#isAskedFor) next = Math.min(next, this.#restoredAt + betweenRestores)
    for (const { isIsolated, setAside, step } of this.#declarations) {
      if (!isIsolated && setAside !== undefined && this.#hasItsNeeds(step)) next = Math.min(next, setAside.dueAt)
    }
    return Math.max(next, this.#nextRoundAt)
  }

  readonly #keep: Effect.Effect<void> = Effect.suspend(() => {
    const generation = this.#open
    const now = this.#now
    if (generation > 0 && now >= this.#nextRoundAt) {
      if (generation > this.#generation) return this.#onNewConnection(generation)
      if (this.#isAskedFor && now >= this.#restoredAt + betweenRestores) return this.#restoreMissing
      const due = this.#declarations.filter((declaration) => this.#isDue(declaration))
      if (due.length > 0) return Effect.map(this.#round(due), () => this.#announce())
      if (now >= this.#checkAt) return Effect.andThen(this.#check, this.#scheduleCheck)
    }
    const at = this.#nextAt()
    return this.#until(at, () => this.#nextAt() < at)
  })

  #onNewConnection(generation: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const now = this.#now
      for (const declaration of this.#declarations) {
        // It was declared on a connection of its own, and may have gone with the last one.
        if (declaration.isIsolated && declaration.setAside === undefined) {
          declaration.setAside = { reason: undefined, attempts: 0, dueAt: now }
        }
      }
      this.#wake()
      const link = linksOf(this.#connection).current()
      if (link === undefined) return Effect.void
      return Effect.map(this.#round(this.#declarations), (isComplete) => {
        if (!isComplete) return
        this.#generation = generation
        this.#link = link
        this.#announce()
      })
    })
  }

  readonly #restoreMissing: Effect.Effect<void> = Effect.suspend(() => {
    const missing = Array.from(this.#missing)
    const waiting = this.#restored
    this.#missing.clear()
    this.#restored = []
    this.#restoredAt = this.#now
    return this.#round(this.#declarations).pipe(
      Effect.flatMap((isComplete) =>
        isComplete && missing.length > 0
          ? this.#annotate(Effect.logWarning("AMQP topology declared again: something of it was missing"), { missing })
          : Effect.void
      ),
      Effect.ensuring(
        Effect.sync(() => {
          for (const done of waiting) done()
        })
      )
    )
  })

  /** Declares these, one after the other. Whether the connection has lasted. */
  #round(declarations: ReadonlyArray<Declaration>): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const link = linksOf(this.#connection).current()
      if (link === undefined) return Effect.succeed(false)
      return during(this.#connection, link, (session) =>
        Effect.gen({ self: this }, function* () {
          for (const declaration of declarations) {
            if (declaration.isIsolated || !this.#hasItsNeeds(declaration.step)) continue
            const outcome = yield* this.#declare(declaration, session)
            if (outcome === "declared" || outcome === "refused") continue
            // Not again at once on a link that has ended and does not know it yet.
            this.#nextRoundAt = this.#now + (outcome === "lost" ? 50 : firstPause)
            return false
          }
          this.#nextRoundAt = 0
          return true
        })
      )
    })
  }

  #declare(declaration: Declaration, session: Session): Effect.Effect<Outcome> {
    return Effect.matchEffect(session.open, {
      onFailure: () => Effect.succeed("unavailable" as const),
      onSuccess: (channel) =>
        Effect.flatMap(Effect.exit(declaration.step.declare(channel)), (exit): Effect.Effect<Outcome> => {
          if (Exit.isSuccess(exit)) return Effect.as(this.#declared(declaration), "declared")
          if (Cause.hasInterruptsOnly(exit.cause)) return Effect.interrupt
          const reason = reasonOf(exit.cause)
          return isConnectionLost(reason)
            ? Effect.as(this.#lost(declaration, reason, session.blame), "lost")
            : Effect.as(this.#refused(declaration, reason), "refused")
        })
    })
  }

  #declared(declaration: Declaration): Effect.Effect<void> {
    declaration.losses = 0
    const { setAside, step } = declaration
    if (setAside === undefined) return Effect.void
    declaration.setAside = undefined
    linksOf(this.#connection).conditions.clear(this.#keyOf(declaration))
    // Bindings that could not be made without it.
    for (const other of this.#declarations) {
      if (other.setAside !== undefined && other.step.needs.includes(step)) {
        other.setAside = { ...other.setAside, dueAt: this.#now }
      }
    }
    this.#wake()
    return setAside.reason === undefined
      ? Effect.void
      : this.#annotate(Effect.logInfo("AMQP topology: a declaration that was set aside has been made"), {
          declaration: step.what
        })
  }

  /** It has cost its channel, or was not answered. */
  #refused(declaration: Declaration, reason: AmqpError.AmqpErrorReason): Effect.Effect<void> {
    const mayPass = reason.isRetryable || (reason._tag === "NotFound" && !isAbsence(reason))
    return this.#setAside(declaration, reason, mayPass)
  }

  #setAside(declaration: Declaration, reason: AmqpError.AmqpErrorReason, mayPass: boolean): Effect.Effect<void> {
    const first = reason.isRetryable && !declaration.isIsolated ? soonPause : firstPause
    return Effect.flatMap(this.#pause(first, declaration.setAside?.attempts ?? 0), (pause) => {
      const before = declaration.setAside
      declaration.setAside = { reason, attempts: (before?.attempts ?? 0) + 1, dueAt: this.#now + pause }
      return this.#report(declaration, reason, before?.reason, mayPass)
    })
  }

  #report(
    declaration: Declaration,
    reason: AmqpError.AmqpErrorReason,
    before: AmqpError.AmqpErrorReason | undefined,
    mayPass: boolean
  ): Effect.Effect<void> {
    const { what } = declaration.step
    linksOf(this.#connection).conditions.report(
      this.#keyOf(declaration),
      { kind: "DeclarationSetAside", message: `${what} is not declared: ${reason.message}`, notReady: false },
      this.#clock.currentTimeMillisUnsafe()
    )
    const isNew = before?._tag !== reason._tag
    const log = !isNew ? Effect.logDebug : mayPass ? Effect.logWarning : Effect.logError
    return this.#annotate(log("AMQP topology: a declaration was set aside, it is tried again"), {
      declaration: what,
      reason: reason.message
    })
  }

  /** The connection has ended while it was under way. */
  #lost(declaration: Declaration, reason: AmqpError.AmqpErrorReason, blame: Blame): Effect.Effect<void> {
    declaration.losses++
    // Whatever else a connection is lost for may be a coincidence, once.
    const isGuilty = blame !== "none" || declaration.losses > 1
    if (!isGuilty) {
      return this.#annotate(Effect.logWarning("AMQP topology not declared again yet: the connection was lost"), {
        declaration: declaration.step.what,
        reason: reason.message
      })
    }
    declaration.losses = 0
    declaration.kills++
    declaration.isIsolated = true
    const before = declaration.setAside
    declaration.setAside = { reason, attempts: 0, dueAt: this.#now }
    this.#wake()
    return this.#report(declaration, reason, before?.reason, false)
  }

  /**
   * Those who publish and consume go on when each declaration has been tried on this connection, and none of them is
   * expected to pass soon. They wait no longer than `continuationTimeout` for that.
   */
  #announce(): void {
    const link = this.#link
    const isAwaited = ({ isFresh, isIsolated, setAside }: Declaration) =>
      isIsolated ? isFresh : setAside?.reason?.isRetryable === true
    if (link !== undefined && !this.#declarations.some(isAwaited)) this.#isPrepared(link)
  }

  // --- On a connection of its own ------------------------------------------------------------------------------------

  readonly #nextIsolated = (): Declaration | undefined => {
    let next: Declaration | undefined
    if (this.#open === 0) return next
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
        this.#isolated(next),
        Effect.sync(() => this.#announce())
      )
    }
    return this.#until(at, () => (this.#nextIsolated()?.setAside?.dueAt ?? Infinity) < at)
  })

  /** Tries it, and if it is made what waits for it. */
  #isolated(declaration: Declaration): Effect.Effect<void> {
    const main = this.#connection
    const attempt = Effect.gen({ self: this }, function* () {
      // What becomes of the declaration is what matters, not what becomes of its connection.
      const level = yield* References.MinimumLogLevel
      return yield* Effect.gen({ self: this }, function* () {
        const connection = yield* make(isolatedConfig(main.config))
        joinTo(connection, main)
        const link = yield* linksOf(connection).next
        return yield* during(connection, link, (session) =>
          Effect.provideService(this.#declareAlone(declaration, session), References.MinimumLogLevel, level)
        )
      }).pipe(
        Effect.scoped,
        Effect.provideService(SharedLogin, linksOf(main).login),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
    })
    return Effect.flatMap(Effect.exit(attempt), (exit) => {
      if (Exit.isSuccess(exit)) return exit.value
      if (Cause.hasInterruptsOnly(exit.cause)) return Effect.interrupt
      // There was no connection, or no channel: it says nothing of the declaration.
      return this.#setAside(declaration, declaration.setAside?.reason ?? reasonOf(exit.cause), true)
    })
  }

  /** What is to be done about it when the connection has ended. */
  #declareAlone(declaration: Declaration, session: Session): Effect.Effect<Effect.Effect<void>, AmqpError.AmqpError> {
    return Effect.gen({ self: this }, function* () {
      const channel = yield* session.open
      const exit = yield* Effect.exit(declaration.step.declare(channel))
      if (Exit.isFailure(exit)) {
        if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.interrupt
        const reason = reasonOf(exit.cause)
        if (isConnectionLost(reason)) return this.#setAside(declaration, reason, false)
        // It costs no connection any more.
        declaration.isIsolated = false
        return this.#refused(declaration, reason)
      }
      const { setAside, step } = declaration
      if (step.isExclusive) {
        // It goes with this connection, and is made where it belongs afterwards.
        return Effect.sync(() => {
          declaration.isIsolated = false
          declaration.setAside = { reason: setAside?.reason, attempts: 1, dueAt: this.#now }
          this.#wake()
        })
      }
      // Another may have ended the connection. One that has done so twice is not trusted again.
      if (declaration.kills < 2) declaration.isIsolated = false
      yield* this.#declared(declaration)
      for (const other of this.#declarations) {
        if (!other.step.needs.includes(step) || other.isIsolated || !this.#hasItsNeeds(other.step)) continue
        if (other.step.isExclusive) other.setAside ??= { reason: undefined, attempts: 1, dueAt: this.#now }
        else if ((yield* this.#declare(other, session)) === "lost") break
      }
      return Effect.sync(() => this.#wake())
    })
  }

  // --- Looking -------------------------------------------------------------------------------------------------------

  /**
   * Looks whether the exchanges and queues are there, without declaring them. It changes nothing, and costs a round trip
   * each. Bindings cannot be looked at.
   */
  readonly #check: Effect.Effect<void> = Effect.suspend(() => {
    const link = linksOf(this.#connection).current()
    if (link === undefined) return Effect.void
    return during(this.#connection, link, (session) =>
      Effect.gen({ self: this }, function* () {
        let looks = 0
        for (const { setAside, step } of this.#declarations) {
          const { kind, mayExpire, name } = step
          if (kind === "binding" || mayExpire || setAside !== undefined) continue
          if (++looks % looksAtOnce === 0) yield* Effect.sleep(100)
          const opened = yield* Effect.option(session.open)
          if (Option.isNone(opened)) return
          const look =
            kind === "queue" ? opened.value.queueDeclarePassive(name) : opened.value.exchangeDeclarePassive(name)
          const seen = yield* Effect.exit(look)
          if (Exit.isSuccess(seen)) continue
          if (Cause.hasInterruptsOnly(seen.cause)) return yield* Effect.interrupt
          const reason = reasonOf(seen.cause)
          if (isConnectionLost(reason)) return
          if (isAbsence(reason)) this.missing(kind, name)
        }
      })
    )
  })

  // --- Reports -------------------------------------------------------------------------------------------------------

  #keyOf({ step }: Declaration): string {
    return `topology ${this.#id}: ${step.what}`
  }

  #annotate(log: Effect.Effect<void>, annotations: Readonly<Record<string, unknown>> = {}): Effect.Effect<void> {
    return Effect.annotateLogs(log, { ...annotations, ...Logging.ofConnection(this.#connection.config) })
  }
}

const reasonOf = (cause: Cause.Cause<AmqpError.AmqpError>): AmqpError.AmqpErrorReason =>
  Option.match(Cause.findErrorOption(cause), {
    onNone: () => new AmqpError.UnknownError({ message: "a declaration died of a defect", cause: Cause.squash(cause) }),
    onSome: ({ reason }) => reason
  })
