/** Streams across the border, chunk by chunk: a chunk is pulled when the other side asks for one. */
import * as Cause4 from "@effect-amqp/effect4/Cause"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Exit4 from "@effect-amqp/effect4/Exit"
import * as Fiber4 from "@effect-amqp/effect4/Fiber"
import type * as Pull4 from "@effect-amqp/effect4/Pull"
import * as Queue4 from "@effect-amqp/effect4/Queue"
import * as Scope4 from "@effect-amqp/effect4/Scope"
import * as Stream4 from "@effect-amqp/effect4/Stream"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { closeScope, type Inside, run3, run4, start4 } from "./run.ts"

type Chunk4<A> = readonly [A, ...Array<A>]

/** A stream of Effect 4 as one of Effect 3. Interrupting it, or ending it early, closes the one of Effect 4. */
export const toStream3 = <R, A, E, B>(
  inside: Inside<R>,
  stream: Stream4.Stream<A, unknown, NoInfer<R>>,
  map: (value: A) => B
): Stream.Stream<B, E> =>
  Stream.unwrapScoped(
    Effect.gen(function* () {
      const scope = yield* Effect.acquireRelease(Effect.sync(Scope4.makeUnsafe), closeScope)
      const pull = yield* start4<R, Pull4.Pull<Chunk4<A>, unknown, void, R>, never>(
        inside,
        Effect4.provideService(Stream4.toPull(stream), Scope4.Scope, scope) as Effect4.Effect<
          Pull4.Pull<Chunk4<A>, unknown, void, R>,
          never,
          R
        >
      )
      return Stream.repeatEffectChunkOption(pull3<R, A, E, B>(inside, pull, map))
    })
  )

/**
 * A queue of Effect 4 as a stream. It takes one element per request: a stream that ends early leaves the others to the
 * next one, where a chunk would be lost. Only an element that is still to come needs a fiber of Effect 4.
 */
export const queueToStream3 = <R, A, E, B>(
  inside: Inside<R>,
  queue: Queue4.Dequeue<A, unknown>,
  map: (value: A) => B
): Stream.Stream<B, E> => {
  const one = Effect4.map(Queue4.take(queue), (value): Chunk4<A> => [value])
  const wait = pull3<R, A, E, B>(inside, one as Pull4.Pull<Chunk4<A>, unknown, void, R>, map)
  return Stream.repeatEffectChunkOption(
    Effect.suspend(() => {
      const taken = Queue4.takeUnsafe(queue)
      return taken?._tag === "Success" ? Effect.succeed(Chunk.of(map(taken.value))) : wait
    })
  )
}

/** A pull of Effect 4 as Effect 3 has it. */
const pull3 = <R, A, E, B>(
  inside: Inside<R>,
  pull: Pull4.Pull<Chunk4<A>, unknown, void, R>,
  map: (value: A) => B
): Effect.Effect<Chunk.Chunk<B>, Option.Option<E>> => {
  // The end of a stream is a failure in Effect 4: it crosses as a value.
  const next = Effect4.matchCauseEffect(pull, {
    onSuccess: (chunk) => Effect4.succeed<Chunk4<A> | undefined>(chunk),
    onFailure: (cause) =>
      cause.reasons.some((reason) => reason._tag === "Fail" && Cause4.isDone(reason.error))
        ? Effect4.succeed(undefined)
        : Effect4.failCause(cause)
  })
  return Effect.matchCauseEffect(run4<R, Chunk4<A> | undefined, E>(inside, next), {
    onSuccess: (chunk) =>
      chunk === undefined
        ? Effect.fail(Option.none<E>())
        : Effect.succeed(Chunk.unsafeFromArray(chunk.map((value) => map(value)))),
    onFailure: (cause) => Effect.failCause(mapSome(cause))
  })
}

const mapSome = <E>(cause: Cause.Cause<E>) => Cause.map(cause, (error): Option.Option<E> => Option.some(error))

type Answer4<A, E> = Effect4.Effect<Chunk4<A>, E | Cause4.Done>

/**
 * Runs a stream of Effect 3 in one fiber for its whole life: fibers that the stream forks and references that it sets
 * belong to that fiber. It pulls a chunk for each request of its reader. A request whose reader is interrupted stays
 * pending, so its chunk is the answer to the next one.
 */
class Source<A, E, R, B> {
  /** Decides how the scope of an interrupted stream closes. */
  ending: Exit.Exit<void> | undefined
  readonly run: Effect.Effect<void, E, R>
  #isAsked = false
  #onAsked: (() => void) | undefined
  #answer: Answer4<B, E> | undefined
  #onAnswer: ((answer: Answer4<B, E>) => void) | undefined
  #hasEnded = false

  constructor(stream: Stream.Stream<A, E, R>, map: (value: A) => B) {
    const asked = Effect.suspend(() =>
      this.#isAsked ? Effect.void : Effect.async<void>((resume) => void (this.#onAsked = () => resume(Effect.void)))
    )
    this.run = Effect.acquireUseRelease(
      Scope.make(),
      (scope) =>
        Effect.flatMap(Scope.extend(Stream.toPull(stream), scope), (pull) => {
          const next = Effect.map(Effect.zipRight(asked, pull), (chunk) => {
            if (Chunk.isEmpty(chunk)) return
            this.#isAsked = false
            this.#give(Effect4.succeed(Chunk.toReadonlyArray(chunk).map(map) as never as Chunk4<B>))
          })
          return Effect.catchAll(
            Effect.whileLoop({ while: () => true, body: () => next, step: () => {} }),
            // The end of a stream is a failure of its pull.
            (end) => (Option.isNone(end) ? Effect.void : Effect.fail(end.value))
          )
        }),
      (scope, exit) => Scope.close(scope, (Exit.isInterrupted(exit) ? this.ending : undefined) ?? exit)
    )
  }

  readonly pull: Answer4<B, E> = Effect4.callback((resume) => {
    const answer = this.#answer
    if (answer !== undefined) {
      if (!this.#hasEnded) this.#answer = undefined
      return resume(answer)
    }
    this.#onAnswer = resume
    if (!this.#isAsked) {
      this.#isAsked = true
      const onAsked = this.#onAsked
      this.#onAsked = undefined
      onAsked?.()
    }
    return Effect4.sync(() => void (this.#onAnswer = undefined))
  })

  /** All later pulls have this answer. */
  end(exit: Exit4.Exit<void, E>): void {
    this.#hasEnded = true
    this.#give(Exit4.isSuccess(exit) ? Cause4.done() : Effect4.failCause(exit.cause))
  }

  #give(answer: Answer4<B, E>): void {
    const onAnswer = this.#onAnswer
    this.#onAnswer = undefined
    if (onAnswer === undefined || this.#hasEnded) this.#answer = answer
    onAnswer?.(answer)
  }
}

/** Fails with what finalizers have died of. */
const defectsIn = (fiber: Fiber4.Fiber<unknown, unknown>): Effect4.Effect<void> =>
  Effect4.flatMap(Fiber4.await(fiber), (exit) => {
    const defects = Exit4.isFailure(exit) ? exit.cause.reasons.filter(Cause4.isDieReason) : []
    return defects.length === 0 ? Effect4.void : Effect4.failCause(Cause4.fromReasons(defects))
  })

/** A stream of Effect 3 as one of Effect 4. Its failures stay as they are. */
export const toStream4 = <A, E, R, B>(
  runtime: Runtime.Runtime<R>,
  stream: Stream.Stream<A, E, R>,
  map: (value: A) => B
): Stream4.Stream<B, E> =>
  Stream4.fromPull(
    Effect4.uninterruptible(
      Effect4.gen(function* () {
        const scope = yield* Effect4.scope
        const source = new Source(stream, map)
        const fiber = yield* Effect4.forkDetach(run3<void, E, R>(runtime, source.run), { startImmediately: true })
        fiber.addObserver((exit) => source.end(exit))
        yield* Scope4.addFinalizerExit(scope, (exit) => {
          if (Exit4.isSuccess(exit)) source.ending = Exit.void
          // The reader has the exit of a stream that has ended.
          return fiber.pollUnsafe() === undefined
            ? Effect4.andThen(Fiber4.interrupt(fiber), defectsIn(fiber))
            : Effect4.void
        })
        return source.pull
      })
    )
  ) as Stream4.Stream<B, E>
