/**
 * Publishes a sequence of messages in order on the same publisher channel, and reports the outcomes in the same order.
 *
 * A message is taken from the source only when the one before it has been sent, and only while the reader has yet to
 * take the outcomes of fewer than `maxInFlight` messages. So the memory is bounded, whether the source, the broker or
 * the reader is slow.
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
import type { PendingPublish } from "./pendingPublish.ts"
import type { PublisherChannel } from "./publisherChannel.ts"
import * as Tracing from "../telemetry/tracing.ts"
import type { SequenceSpan } from "../telemetry/tracing.ts"

const confirmed = Result.succeed<Confirmed>({ _tag: "Confirmed" })

/** A message that was taken from the source and whose outcome the reader has not taken yet. */
class Entry {
  readonly message: Message
  /** The outcome; undefined while it is not known. */
  result: Outcome["result"] | undefined = undefined
  /** The pending publish; undefined if the message was refused. */
  pending: PendingPublish | undefined = undefined

  constructor(message: Message) {
    this.message = message
  }
}

const noMessages: Iterator<Message> = { next: () => ({ done: true, value: undefined }) }

class Sequence<E> {
  readonly #publisher: Publisher
  readonly #settings: PublishSettings
  readonly #stopAtFailure: boolean
  readonly #publisherChannel: PublisherChannel<PendingPublish>
  /** Entries in the order of the source. The outcomes before `#head` have been taken by the reader. */
  #entries: Array<Entry> = []
  #head = 0
  #source: Iterator<Message> = noMessages
  /** Set when the source has ended, or when nothing more is taken from it. */
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
    this.#publisherChannel = publisher.channels.choose()
  }

  // --- Source --------------------------------------------------------------------------------------------------------

  /** Publishes `messages`. `exhausted` is called when all of them have been taken. */
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
    return this.#entries.at(-1)?.pending?.state !== "waiting"
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
      // The callback may offer more messages at once.
      exhausted?.()
      return this.#source !== noMessages
    }
    const entry = new Entry(next.value)
    this.#entries.push(entry)
    try {
      this.#publish(entry)
    } catch (defect) {
      // Reading the message has thrown. This may run in the driver's event handlers, where an exception would end the
      // connection.
      this.#entries.pop()
      this.end(Exit.die(defect))
      return false
    }
    return true
  }

  #publish(entry: Entry): void {
    const message = this.#span === undefined ? entry.message : this.#span.take(entry.message, this.#publisher.link)
    entry.pending = this.#publisher.submit(message, this.#settings, this.#publisherChannel, (failure) => {
      entry.result = failure === undefined ? confirmed : Result.fail(AmqpError.fromReason(failure))
      if (failure !== undefined && this.#stopAtFailure) this.#sendNoMore()
      if (entry === this.#entries[this.#head]) this.#wake()
      // This message had to wait to be sent, and the next one waited for it.
      if (entry.pending?.onSent !== undefined) this.#fill()
    })
    if (entry.pending?.state === "waiting") entry.pending.onSent = () => this.#fill()
  }

  /** Stops sending after a failure at which the reader will stop. Only the last message can still wait to be sent. */
  #sendNoMore(): void {
    this.end(Exit.void)
    const last = this.#entries.at(-1)?.pending
    if (last?.state === "waiting") this.#publisher.giveUp(last)
  }

  // --- Outcomes ------------------------------------------------------------------------------------------------------

  #wake(): void {
    const wake = this.#onKnown
    this.#onKnown = undefined
    wake?.()
  }

  /** Takes all known outcomes from the first one on. Waits for the first one. */
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
    // The fiber may have been suspended since `pull` checked these conditions, so they are checked again.
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
    // Taken entries are dropped in batches: at most as many are kept as there are others.
    if (this.#head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head)
      this.#head = 0
    }
    this.#fill()
    return known
  }

  /** Ends the sequence: the reader takes no further outcomes. */
  stop(): void {
    this.end(Exit.void)
    this.#span?.ended()
    for (const { pending } of this.#entries.slice(this.#head))
      if (pending !== undefined) this.#publisher.giveUp(pending)
    try {
      this.#source.return?.()
    } catch {
      // The reader has stopped, so there is no receiver for this error.
    }
    this.#source = noMessages
  }
}

/** Pulls the chunks of the source one by one, each after all messages of the last one have been taken. */
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
 * Publishes the messages and returns the results in their order.
 *
 * With `failures: "values"` the stream has an `Outcome` per message. With `"end"` it has the successes and ends with
 * the first failure; nothing is sent after such a failure is known.
 */
export const publishSequence = <E, R>(
  publisher: Publisher,
  messages: Iterable<Message> | Stream.Stream<Message, E, R>,
  settings: PublishSettings,
  failures: "end" | "values"
): Stream.Stream<Outcome | Confirmed, E | AmqpError.AmqpError, R> =>
  Stream.fromChannel(
    Channel.fromTransformBracket((_upstream, _scope, scope) =>
      Effect.gen(function* () {
        const span = yield* Tracing.makeSequenceSpan(scope, () => publisher.link)
        const sequence = new Sequence<E>(publisher, settings, failures === "end", span)
        const stop = Scope.addFinalizer(
          scope,
          Effect.sync(() => sequence.stop())
        )
        if (Stream.isStream(messages)) {
          // Finalizers run in reverse order: first sending stops, then the fiber that pulls ends, then the source.
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
