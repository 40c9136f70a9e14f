/**
 * The border: effects of Effect 4 in fibers of Effect 3, and handlers of Effect 3 in fibers of Effect 4.
 *
 * Each effect that crosses runs in a fiber of its own on the other side. An interruption on one side interrupts the
 * fiber on the other and waits for its end. What the caller's fiber decides goes with it: its tracer and span with
 * what it adds to spans, its loggers with their levels and annotations, and its clock.
 */
import type * as Cause4 from "@effect-amqp/effect4/Cause"
import * as Clock4 from "@effect-amqp/effect4/Clock"
import * as Context4 from "@effect-amqp/effect4/Context"
import * as Duration4 from "@effect-amqp/effect4/Duration"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Fiber4 from "@effect-amqp/effect4/Fiber"
import * as References4 from "@effect-amqp/effect4/References"
import * as Scope4 from "@effect-amqp/effect4/Scope"
import * as Tracer4 from "@effect-amqp/effect4/Tracer"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as HashMap from "effect/HashMap"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { toAny4 } from "./errors.ts"
import { defectsOf, toCause3, toCause4, toExit3, toExit4 } from "./exits.ts"
import { Caller, logging } from "./logging.ts"
import { toLink4, toSpan3, toSpan4, toTracer4 } from "./tracing.ts"

// --- The context of a caller -------------------------------------------------------------------------------------------

const liveClock = Context.get(DefaultServices.liveServices, Clock.Clock)

const clocks = new WeakMap<Clock.Clock, Clock4.Clock>()

/** Another clock than the system's, such as a `TestClock`. */
const toClock4 = (clock: Clock.Clock): Clock4.Clock => {
  let known = clocks.get(clock)
  if (known === undefined) {
    const millis = () => clock.unsafeCurrentTimeMillis()
    const nanos = () => clock.unsafeCurrentTimeNanos()
    known = {
      currentTimeMillisUnsafe: millis,
      currentTimeMillis: Effect4.sync(millis),
      currentTimeNanosUnsafe: nanos,
      currentTimeNanos: Effect4.sync(nanos),
      monotonicTimeNanosUnsafe: nanos,
      monotonicTimeNanos: Effect4.sync(nanos),
      sleep: (duration) => run3(Runtime.defaultRuntime, clock.sleep(Duration.millis(Duration4.toMillis(duration))))
    }
    clocks.set(clock, known)
  }
  return known
}

/** The services of Effect 4 that the application has built, with what each caller adds to them. */
export class Inside<in out R> {
  readonly context: Context4.Context<R>
  // Those of the last caller: one fiber often crosses several times in a row, and fibers share their default services.
  #services: Context.Context<DefaultServices.DefaultServices> | undefined
  #withServices: Context4.Context<R>
  #isTraced = false
  #isEnabled = true
  #isTimed = true
  #annotations: HashMap.HashMap<string, unknown> | undefined
  #links: Chunk.Chunk<Tracer.SpanLink> | undefined
  #caller: Fiber.RuntimeFiber<unknown, unknown> | undefined
  #span: Tracer.AnySpan | undefined
  #last: Context4.Context<R>

  constructor(context: Context4.Context<R>) {
    this.context = this.#withServices = this.#last = context
  }

  contextOf(caller: Fiber.RuntimeFiber<unknown, unknown>): Context4.Context<R> {
    const { currentDefaultServices: services, currentSpan: span } = caller
    if (services !== this.#services) {
      this.#services = services
      this.#withServices = this.#serve(services)
    } else if (caller === this.#caller && span === this.#span && (!this.#isTraced || this.#hasSameReferences(caller))) {
      return this.#last
    }
    this.#caller = caller
    this.#span = span
    const context = Context4.add(this.#withServices, Caller, caller)
    return (this.#last = this.#isTraced ? this.#trace(context, caller, span) : context)
  }

  #hasSameReferences(caller: Fiber.RuntimeFiber<unknown, unknown>): boolean {
    return (
      caller.getFiberRef(FiberRef.currentTracerEnabled) === this.#isEnabled &&
      caller.getFiberRef(FiberRef.currentTracerTimingEnabled) === this.#isTimed &&
      caller.getFiberRef(FiberRef.currentTracerSpanAnnotations) === this.#annotations &&
      caller.getFiberRef(FiberRef.currentTracerSpanLinks) === this.#links
    )
  }

  // One reference at a time: `getFiberRefs` copies them all.
  #trace(
    context: Context4.Context<R>,
    caller: Fiber.RuntimeFiber<unknown, unknown>,
    span: Tracer.AnySpan | undefined
  ): Context4.Context<R> {
    this.#isEnabled = caller.getFiberRef(FiberRef.currentTracerEnabled)
    this.#isTimed = caller.getFiberRef(FiberRef.currentTracerTimingEnabled)
    this.#annotations = caller.getFiberRef(FiberRef.currentTracerSpanAnnotations)
    this.#links = caller.getFiberRef(FiberRef.currentTracerSpanLinks)
    let traced = context as Context4.Context<never>
    if (span !== undefined) traced = Context4.add(traced, Tracer4.ParentSpan, toSpan4(span)) as typeof traced
    if (!this.#isEnabled) traced = Context4.add(traced, References4.TracerEnabled, false)
    if (!this.#isTimed) traced = Context4.add(traced, References4.TracerTimingEnabled, false)
    if (!HashMap.isEmpty(this.#annotations)) {
      const annotations = Object.fromEntries(HashMap.entries(this.#annotations))
      traced = Context4.add(traced, References4.TracerSpanAnnotations, annotations)
    }
    if (Chunk.isNonEmpty(this.#links)) {
      const links = Chunk.toReadonlyArray(this.#links).map(toLink4)
      traced = Context4.add(traced, References4.TracerSpanLinks, links)
    }
    return traced as Context4.Context<R>
  }

  #serve(services: Context.Context<DefaultServices.DefaultServices>): Context4.Context<R> {
    let { context } = this
    const tracer = toTracer4(Context.get(services, Tracer.Tracer))
    this.#isTraced = tracer !== undefined
    if (tracer !== undefined) context = Context4.add(context, Tracer4.Tracer, tracer)
    const clock = Context.get(services, Clock.Clock)
    return clock === liveClock ? context : Context4.add(context, Clock4.Clock, toClock4(clock))
  }
}

/** Without services: for scopes and for building layers. */
export const outside = new Inside(logging)

// --- Effect 4 in Effect 3 ----------------------------------------------------------------------------------------------

/** Interrupts a fiber of Effect 4 and waits for its end. Its defects are those of the effect. */
const interrupt4 = (fiber: Fiber4.Fiber<unknown, unknown>): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    fiber.addObserver((exit) => {
      const defects = exit._tag === "Failure" ? defectsOf(exit.cause) : undefined
      resume(defects === undefined ? Effect.void : Effect.failCause(defects))
    })
    fiber.interruptUnsafe()
  })

const abandon = <E>(fiber: Fiber4.Fiber<unknown, unknown>, cause: Cause.Cause<E>): Effect.Effect<never, E> =>
  Cause.isInterruptedOnly(cause)
    ? Effect.matchCauseEffect(interrupt4(fiber), {
        onFailure: (defects) => Effect.failCause(Cause.sequential(cause, defects)),
        onSuccess: () => Effect.failCause(cause)
      })
    : Effect.failCause(cause)

/**
 * Runs an effect of Effect 4 for the current fiber. `E` is the failure as Effect 3 has it.
 *
 * The fiber of Effect 4 starts where nothing can interrupt, so that it is never left behind: between the start and the
 * wait, Effect 3 may let other fibers run.
 */
export const run4 = <R, A, E, B = A>(
  inside: Inside<R>,
  effect: Effect4.Effect<A, unknown, NoInfer<R>>,
  map?: (value: A) => B
): Effect.Effect<B, E> =>
  Effect.uninterruptibleMask((restore) => {
    const fiber = Effect4.runForkWith(inside.contextOf(currentFiber()))(effect)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return toExit3(exit, map)
    return Effect.catchAllCause(
      restore(Effect.async<B, E>((resume) => void fiber.addObserver((exit) => resume(toExit3(exit, map))))),
      (cause) => abandon(fiber, cause)
    )
  })

/** The fiber that evaluates the effect that calls this. */
const currentFiber = () => Option.getOrThrow(Fiber.getCurrentFiber())

/** Runs an effect that starts what outlives it. That logs with the references that the current fiber has now. */
export const start4 = <R, A, E, B = A>(
  inside: Inside<R>,
  effect: Effect4.Effect<A, unknown, NoInfer<R>>,
  map?: (value: A) => B
): Effect.Effect<B, E> =>
  Effect.withFiberRuntime((fiber) => {
    const id = fiber.id()
    const refs = fiber.getFiberRefs()
    return run4(inside, Effect4.provideService(effect, Caller, { id: () => id, getFiberRefs: () => refs }), map)
  })

/**
 * Runs an effect of Effect 3 with a value that an effect of Effect 4 lends: one fiber of Effect 4 acquires it, waits in
 * `hold` until the effect has ended, and releases it.
 */
export const borrow4 = <R, Lent, A, E, R3>(
  inside: Inside<R>,
  lend: (hold: (value: Lent) => Effect4.Effect<void>) => Effect4.Effect<void, unknown, NoInfer<R>>,
  use: (value: Lent) => Effect.Effect<A, E, R3>
): Effect.Effect<A, E, R3> =>
  Effect.uninterruptibleMask((restore) => {
    let lent: { readonly value: Lent; readonly giveBack: () => void } | undefined
    let onLent: (() => void) | undefined
    const fiber = Effect4.runForkWith(inside.contextOf(currentFiber()))(
      lend((value) =>
        Effect4.callback<void>((resume) => {
          lent = { value, giveBack: () => resume(Effect4.void) }
          onLent?.()
        })
      )
    )
    const using = () => {
      const { giveBack, value } = lent!
      return Effect.matchCauseEffect(restore(Effect.suspend(() => use(value))), {
        onFailure: (cause) => {
          giveBack()
          return ended(fiber, Exit.failCause(cause))
        },
        onSuccess: (result) => {
          giveBack()
          return ended(fiber, Exit.succeed(result))
        }
      })
    }
    if (lent !== undefined) return using()
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return toExit3<void, never>(exit, undefined)
    const waiting = Effect.async<void, E>((resume) => {
      onLent = () => resume(Effect.void)
      fiber.addObserver((exit) => resume(toExit3(exit, undefined)))
    })
    return Effect.flatMap(
      Effect.catchAllCause(restore(waiting), (cause) => abandon(fiber, cause)),
      using
    )
  })

/** The exit of what was done with a loan, when the lender has ended. */
const ended = <A, E>(fiber: Fiber4.Fiber<void, unknown>, exit: Exit.Exit<A, E>): Effect.Effect<A, E> => {
  if (fiber.pollUnsafe()?._tag === "Success") return exit
  return Effect.async<A, E>((resume) => {
    fiber.addObserver((lender) => {
      if (lender._tag === "Success") return resume(exit)
      const cause = toCause3(lender.cause) as Cause.Cause<E>
      resume(Effect.failCause(Exit.isFailure(exit) ? Cause.sequential(exit.cause, cause) : cause))
    })
  })
}

// --- Effect 3 in Effect 4 ----------------------------------------------------------------------------------------------

/**
 * Interrupts a fiber of Effect 3 and waits for its end. Its defects are those of the effect, and logged: the core
 * ignores the exit of what it interrupts.
 */
const interrupt3 = (fiber: Fiber.RuntimeFiber<Exit.Exit<unknown, unknown>>): Effect4.Effect<void> =>
  Effect4.callback<void>((resume) => {
    fiber.addObserver((ended) => {
      const exit = Exit.flatten(ended)
      const defects = Exit.isFailure(exit) ? Cause.keepDefects(exit.cause) : Option.none()
      resume(Option.isNone(defects) ? Effect4.void : died(toCause4(defects.value, toAny4) as Cause4.Cause<never>))
    })
    fiber.unsafeInterruptAsFork(FiberId.none)
  })

const died = (defects: Cause4.Cause<never>): Effect4.Effect<void> =>
  Effect4.andThen(
    Effect4.logError("AMQP handler or other function of the application died while it was interrupted", defects),
    Effect4.failCause(defects)
  )

const scopesPerBatch = 64

const batchOfScopes = Effect.all(Array.from({ length: scopesPerBatch }, () => Scope.make()))

let unused: Array<Scope.CloseableScope> = []

/** A scope. They are made in batches, because the first one needs a fiber to make it. */
const makeScope = (): Scope.CloseableScope => {
  if (unused.length === 0) unused = Effect.runSync(batchOfScopes)
  return unused.pop()!
}

const closed = <A, E>(scope: Scope.CloseableScope, exit: Exit.Exit<A, E>): Effect.Effect<Exit.Exit<A, E>> =>
  Effect.matchCause(Scope.close(scope, exit), {
    onFailure: (cause) => Exit.failCause(Exit.isFailure(exit) ? Cause.sequential(exit.cause, cause) : cause),
    onSuccess: () => exit
  })

const start3 = <A, E, R>(
  { fiberRefs }: Pick<Runtime.Runtime<never>, "fiberRefs">,
  context: Context.Context<R>,
  flags: RuntimeFlags.RuntimeFlags,
  effect: Effect.Effect<Exit.Exit<A, E>, never, R>,
  error: ((error: unknown) => unknown) | undefined,
  resume: (effect: Effect4.Effect<A>) => void
): Effect4.Effect<void> | void => {
  const { span } = Fiber4.getCurrent()!.cache
  const fiber = Runtime.runFork(
    Runtime.make({
      // To provide what an effect needs inside its fiber costs more than all the rest.
      context: span === undefined ? context : Context.add(context, Tracer.ParentSpan, toSpan3(span)),
      fiberRefs,
      runtimeFlags: flags
    })
  )(effect)
  const exit = fiber.unsafePoll()
  if (exit !== null) return resume(toExit4(Exit.flatten(exit), error))
  fiber.addObserver((exit) => resume(toExit4(Exit.flatten(exit), error)))
  return interrupt3(fiber)
}

/**
 * Runs an effect of Effect 3, in a runtime of the application, for the current fiber of Effect 4. The span of that
 * fiber is the parent of its spans. `error` translates failures for code of the core that reads them.
 */
export const run3 = <A, E, R, E4 = E>(
  runtime: Runtime.Runtime<R>,
  effect: Effect.Effect<A, E, R>,
  error?: (error: unknown) => unknown
): Effect4.Effect<A, E4> =>
  Effect4.callback<A>((resume) =>
    // The exit is a value, so that Effect 3 does not log it as an unhandled error: the core handles it.
    start3(runtime, runtime.context, runtime.runtimeFlags, Effect.exit(effect), error, resume)
  ) as Effect4.Effect<A, E4>

/** The same in a scope of its own, which it has closed when it ends. */
export const runScoped3 = <A, E, R, E4 = E>(
  runtime: Runtime.Runtime<R>,
  effect: Effect.Effect<A, E, R | Scope.Scope>,
  error?: (error: unknown) => unknown
): Effect4.Effect<A, E4> => {
  const { runtimeFlags } = runtime
  // The fiber begins where nothing can interrupt it before it has closed the scope.
  const flags = RuntimeFlags.disable(runtimeFlags, RuntimeFlags.Interruption)
  const exit = Effect.exit(RuntimeFlags.interruptible(runtimeFlags) ? Effect.interruptible(effect) : effect)
  return Effect4.callback<A>((resume) => {
    const scope = makeScope()
    const context = Context.add(runtime.context, Scope.Scope, scope)
    const closing = Effect.flatMap(exit, (exit) => closed(scope, exit))
    return start3(runtime, context, flags, closing, error, resume)
  }) as Effect4.Effect<A, E4>
}

// --- Scopes ------------------------------------------------------------------------------------------------------------

const scopes = new WeakMap<Scope.Scope, Scope4.Closeable>()

/** The scope of Effect 4 that ends with a scope of Effect 3. */
export const scopeOf = (scope: Scope.Scope): Effect.Effect<Scope4.Closeable> =>
  // Without an interruption between the entry and its finalizer: nothing would close that scope.
  Effect.uninterruptible(
    Effect.suspend(() => {
      const known = scopes.get(scope)
      if (known !== undefined) return Effect.succeed(known)
      const made = Scope4.makeUnsafe()
      scopes.set(scope, made)
      return Effect.as(
        Scope.addFinalizerExit(scope, (exit) => closeScope(made, exit)),
        made
      )
    })
  )

export const closeScope = (scope: Scope4.Closeable, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  run4(outside, Scope4.close(scope, toExit4(exit)))
