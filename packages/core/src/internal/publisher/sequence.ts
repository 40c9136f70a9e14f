/**
 * Publishing a sequence of messages, one after the other on the same channel, and telling the outcomes in the same order.
 *
 * A message is taken from its source only when the one before it has been sent, and only while fewer than `most` have an
 * outcome that nobody has taken: so the memory is bounded, whichever of source, broker and reader is the slow one.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Confirmed } from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { Outcome } from "../../model/publisher.ts"
import type { PublishSettings } from "../wire/declarations.ts"
import type { Publisher } from "./publisher.ts"
import type { Attempt } from "./attempt.ts"
import type { Lane } from "./lane.ts"
import * as Tracing from "../telemetry/tracing.ts"
import type { SequenceSpan } from "../telemetry/tracing.ts"

const confirmed = Result.succeed<Confirmed>({ _tag: "Confirmed" })

/** A message of the sequence that was taken from its source, and whose outcome nobody has taken yet. */
class Entry {
  readonly message: Message
  /** Undefined while it is not known. */
  result: Outcome["result"] | undefined = undefined
  attempt: Attempt | undefined = undefined

  constructor(message: Message) {
    this.message = message
  }
}

const noMessages: Iterator<Message> = { next: () => ({ done: true, value: undefined }) }

class Sequence<E> {
  readonly #publisher: Publisher
  readonly #settings: PublishSettings
  readonly #stopAtFailure: boolean
  readonly #lane: Lane<Attempt>
  /** Taken from the source, in order; those before `#head` have been handed out. */
  #entries: Array<Entry> = []
  #head = 0
  #source: Iterator<Message> = noMessages
  /** Set when the source is at its end, or nothing more is to be taken from it. */
  #ended: Exit.Exit<void, E> | undefined = undefined
  #onExhausted: (() => void) | undefined = undefined
  #onKnown: (() => void) | undefined = undefined
  #filling = false
  readonly #span: SequenceSpan | undefined

  constructor(publisher: Publisher, settings: PublishSettings, stopAtFailure: boolean, span: SequenceSpan | undefined) {
    this.#publisher = publisher
    this.#settings = settings
    this.#stopAtFailure = stopAtFailure
    this.#span = span
    this.#lane = publisher.lanes.choose()
  }

  // --- Its source ----------------------------------------------------------------------------------------------------

  /** Publishes these; `exhausted` is called when all of them have been taken. */
  offer(messages: Iterable<Message>, exhausted: () => void): void {
    this.#onExhausted = exhausted
    try {
      this.#source = messages[Symbol.iterator]()
    } catch (defect) {
      return this.end(Exit.die(defect))
    }
    return this.#fill()
  }

  end(exit: Exit.Exit<void, E>): void {
    this.#ended ??= exit
    this.#onExhausted = undefined
    this.#wake()
  }

  #fill(): void {
    if (this.#filling) return
    this.#filling = true
    while (this.#hasRoom && this.#takeNext());
    this.#filling = false
  }

  get #hasRoom(): boolean {
    if (this.#ended !== undefined || this.#entries.length - this.#head >= this.#publisher.settings.maxInFlight)
      return false
    return this.#entries.at(-1)?.attempt?.state !== "waiting"
  }

  #takeNext(): boolean {
    let next: IteratorResult<Message>
    let isDone: boolean
    try {
      next = this.#source.next()
      isDone = next.done === true
    } catch (defect) {
      this.#source = noMessages
      this.end(Exit.die(defect))
      return false
    }
    if (isDone) {
      const exhausted = this.#onExhausted
      this.#source = noMessages
      this.#onExhausted = undefined
      // It may bring more at once.
      exhausted?.()
      return this.#source !== noMessages
    }
    const entry = new Entry(next.value)
    this.#entries.push(entry)
    try {
      this.#publish(entry)
    } catch (defect) {
      // A message that throws when it is read. This may run in the driver's own handlers, which it would take down.
      this.#entries.pop()
      this.end(Exit.die(defect))
      return false
    }
    return true
  }

  #publish(entry: Entry): void {
    const message = this.#span === undefined ? entry.message : this.#span.take(entry.message, this.#publisher.link)
    entry.attempt = this.#publisher.submit(message, this.#settings, this.#lane, (failure) => {
      entry.result = failure === undefined ? confirmed : Result.fail(AmqpError.fromReason(failure))
      if (failure !== undefined && this.#stopAtFailure) this.#sendNoMore()
      if (entry === this.#entries[this.#head]) this.#wake()
      // The next had to wait for this one.
      if (entry.attempt?.onSent !== undefined) this.#fill()
    })
    if (entry.attempt?.state === "waiting") entry.attempt.onSent = () => this.#fill()
  }

  /** The reader will stop at a failure: what comes after it need not be sent. Only the last may wait for that. */
  #sendNoMore(): void {
    this.end(Exit.void)
    const last = this.#entries.at(-1)?.attempt
    if (last?.state === "waiting") this.#publisher.giveUp(last)
  }

  // --- Its outcomes --------------------------------------------------------------------------------------------------

  #wake(): void {
    const wake = this.#onKnown
    this.#onKnown = undefined
    wake?.()
  }

  /** All outcomes that are known from the first on; waits for the first. */
  readonly pull: Effect.Effect<Arr.NonEmptyReadonlyArray<Outcome | Confirmed>, E | AmqpError.AmqpError | Cause.Done> =
    Effect.suspend(() => {
      const known = this.#take()
      if (Arr.isArrayNonEmpty(known)) return Effect.succeed(known)
      const first = this.#entries[this.#head]?.result
      if (first !== undefined && Result.isFailure(first)) {
        this.#span?.failed(first.failure.reason._tag)
        return Effect.fail(first.failure)
      }
      if (this.#ended !== undefined && this.#head === this.#entries.length) {
        return Exit.isSuccess(this.#ended) ? Cause.done() : Effect.failCause(this.#ended.cause)
      }
      return Effect.andThen(this.#known, this.pull)
    })

  readonly #known = Effect.callback<void>((resume) => {
    // A fiber may be suspended between any two steps: what came since it looked must not be waited for.
    if (this.#entries[this.#head]?.result !== undefined) return resume(Effect.void)
    if (this.#ended !== undefined && this.#head === this.#entries.length) return resume(Effect.void)
    this.#onKnown = () => resume(Effect.void)
    return Effect.sync(() => {
      this.#onKnown = undefined
    })
  })

  #take(): Array<Outcome | Confirmed> {
    const known: Array<Outcome | Confirmed> = []
    while (this.#head < this.#entries.length) {
      const { message, result } = this.#entries[this.#head]!
      if (result === undefined) break
      if (!this.#stopAtFailure) known.push({ message, result })
      else if (Result.isSuccess(result)) known.push(result.success)
      else break
      this.#head++
    }
    if (known.length === 0) return known
    // Not with every one: what was handed out is as long as what was not, at most.
    if (this.#head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head)
      this.#head = 0
    }
    this.#fill()
    return known
  }

  /** Nobody wants the outcomes any more. */
  stop(): void {
    this.end(Exit.void)
    this.#span?.ended()
    for (const { attempt } of this.#entries.slice(this.#head))
      if (attempt !== undefined) this.#publisher.giveUp(attempt)
    try {
      this.#source.return?.()
    } catch {
      // It has nobody left to complain to.
    }
    this.#source = noMessages
  }
}

/** Pulls the source's chunks one by one, each when the last has been taken whole. */
const feed = <E, R>(
  sequence: Sequence<E>,
  pull: Pull.Pull<Arr.NonEmptyReadonlyArray<Message>, E, void, R>
): Effect.Effect<void, never, R> => {
  const offered = (chunk: Arr.NonEmptyReadonlyArray<Message>) =>
    Effect.callback<void>((resume) => sequence.offer(chunk, () => resume(Effect.void)))
  return Effect.matchCause(Effect.forever(Effect.flatMap(pull, offered), { disableYield: true }), {
    onSuccess: () => {},
    onFailure: (cause) => sequence.end(Exit.asVoid(Pull.doneExitFromCause(cause)))
  })
}

/**
 * What becomes of each message, in order: `Outcome`s or, if a failure ends it, what a success is. Nothing is sent after
 * such a failure is known.
 */
export const inSequence = <E, R>(
  publisher: Publisher,
  messages: Iterable<Message> | Stream.Stream<Message, E, R>,
  settings: PublishSettings,
  failures: "end" | "values"
): Stream.Stream<Outcome | Confirmed, E | AmqpError.AmqpError, R> =>
  Stream.fromChannel(
    Channel.fromTransformBracket((_upstream, _scope, scope) =>
      Effect.gen(function* () {
        const span = yield* Tracing.sequence(scope, () => publisher.link)
        const sequence = new Sequence<E>(publisher, settings, failures === "end", span)
        const stop = Scope.addFinalizer(
          scope,
          Effect.sync(() => sequence.stop())
        )
        if (Stream.isStream(messages)) {
          // Finalizers run in reverse: nothing is sent any more before what pulls ends, and that before what it pulls from.
          const source = yield* Scope.fork(scope)
          const pull = yield* Channel.toPullScoped(Stream.toChannel(messages), source)
          const feeding = yield* Scope.fork(scope)
          yield* stop
          yield* Effect.forkIn(feed(sequence, pull), feeding)
        } else {
          yield* stop
          sequence.offer(messages, () => sequence.end(Exit.void))
        }
        return sequence.pull
      })
    )
  )
