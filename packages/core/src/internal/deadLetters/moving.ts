/**
 * Redrives or discards dead letters.
 *
 * A dead letter is acknowledged after its copy is confirmed, so whatever ends in between leaves it in its queue. What
 * was confirmed and not acknowledged comes back, and is published again: whether an equal message is the same one
 * cannot be known for certain, and a duplicate is better than a loss.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import type { PublishOptions } from "../../model/channel.ts"
import type { Report } from "../../model/deadLetters.ts"
import type * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { Outcome } from "../../model/publisher.ts"
import { ownPublisherOf } from "../publisher/publisher.ts"
import { readPublishAll } from "../publisher/options.ts"
import { publishSequence } from "../publisher/sequence.ts"
import { isInvalidArgument } from "../wire/optionTable.ts"
import { redriveOf, type Target } from "./copies.ts"
import { Letter } from "./letter.ts"
import type { InspectedQueue, Workbench } from "./operations.ts"
import type { ChoiceSettings } from "./options.ts"
import type { QueueReader } from "./queueReader.ts"
import { type QueueTally, Tally } from "./tally.ts"

/** How often progress is reported, in milliseconds. */
const progressInterval = 100

/** Maximum number of messages that are given to the publisher at once. */
const maxChunk = 64

/** How many more messages than were counted a pass after a loss may look at: those whose acknowledgement was lost. */
const maxUncertain = 4000

/** How long a pass after a loss waits for messages to return, and the pause between two looks, in milliseconds. */
const maxReturn = 3000
const returnPause = 50

/** What is done with chosen dead letters. */
export type Move =
  | { readonly _tag: "Discard" }
  | {
      readonly _tag: "Redrive"
      /** `undefined`: the queue in which each of them failed. */
      readonly to: Target | undefined
    }

/** A failure that concerns all further messages, too. */
const endsRun = ({ _tag }: AmqpError.AmqpErrorReason): boolean => {
  switch (_tag) {
    case "PublishReturned":
    case "PublishNacked":
    case "InvalidArgument":
    case "PreconditionFailed":
    case "MessageTooLarge":
      return false
    default:
      return true
  }
}

/** Whether the message may have arrived. */
const isUnknown = (reason: AmqpError.AmqpErrorReason): boolean =>
  reason._tag === "PublishUnknown" || (reason._tag === "PublishTimeout" && reason.sent)

class Pass {
  readonly #bench: Workbench
  readonly #reader: QueueReader
  readonly #queue: string
  readonly #tally: QueueTally
  readonly #mover: Mover
  /** The letters whose outcomes are not known yet, in the order of their messages. */
  #sent: Array<Letter> = []
  #head = 0
  /** A failure that ends the run. What is in flight then is still settled by its outcome. */
  #failure: AmqpError.AmqpError | undefined = undefined
  readonly #ending = Deferred.makeUnsafe<void>()

  constructor(mover: Mover, bench: Workbench, queue: string, reader: QueueReader, tally: QueueTally) {
    this.#mover = mover
    this.#bench = bench
    this.#queue = queue
    this.#reader = reader
    this.#tally = tally
  }

  /** Waits for the next chosen letters. Empty: there are no more. */
  get chosen(): Effect.Effect<ReadonlyArray<Letter>, AmqpError.AmqpError> {
    return Effect.gen({ self: this }, function* () {
      const mover = this.#mover
      const letters: Array<Letter> = []
      while (letters.length === 0) {
        if (mover.isStopping || this.#failure !== undefined || !this.#wantsMore) return letters
        const next = Effect.raceFirst(
          this.#reader.next(this.#bench.settings.timeout),
          Effect.as(Deferred.await(this.#ending), false)
        )
        const more = yield* mover.unlessStopped(next, false)
        if (!more) return letters
        const most = Math.min(maxChunk, mover.burst)
        for (;;) {
          if (letters.length >= most || !this.#wantsMore) break
          const message = this.#reader.takeNow()
          if (message === undefined) break
          this.#bench.moved()
          const letter = new Letter(this.#queue, message, this.#bench.settings.secret)
          if (letter.run !== mover.run && mover.isChosen(letter) && this.#isWithinLimit(letter)) {
            letters.push(letter)
            continue
          }
          this.#tally.left++
          const leaving = this.#bench.leave(this.#queue, this.#reader, message)
          if (leaving !== undefined) yield* leaving
        }
      }
      yield* mover.pace(letters.length)
      return letters
    })
  }

  /** Beyond the limit are those that it includes already, and whose acknowledgements were lost. */
  get #wantsMore(): boolean {
    return this.#mover.left > 0 || this.#tally.expectsReturns
  }

  #isWithinLimit(letter: Letter): boolean {
    letter.isReturned = this.#tally.takeReturned(letter)
    if (letter.isReturned) return true
    if (this.#mover.left <= 0) return false
    this.#mover.left--
    return true
  }

  get dryRun(): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#each((letter) => {
      if (this.#mover.move._tag === "Discard") this.#tally.discarded++
      else {
        const target = this.#targetOf(letter)
        if (typeof target === "string") return this.#refuse(letter, target)
        this.#tally.redriven++
      }
      this.#reader.keep(letter.deliveryTag)
    })
  }

  get discard(): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.andThen(
      this.#each((letter) => {
        if (this.#reader.acknowledge(letter.deliveryTag)) this.#tally.removed(letter)
      }),
      this.#reader.settled
    )
  }

  #each(f: (letter: Letter) => void): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.gen({ self: this }, function* () {
      for (;;) {
        const letters = yield* this.chosen
        if (letters.length === 0) return
        for (const letter of letters) f(letter)
      }
    })
  }

  // --- Redrive -------------------------------------------------------------------------------------------------------

  /** Where a letter goes, or why it cannot go anywhere. */
  #targetOf(letter: Letter): Target | string {
    const { move } = this.#mover
    const to = move._tag === "Redrive" ? move.to : undefined
    if (to !== undefined) return to
    const { origin } = letter
    if (origin === undefined) {
      return "its headers do not say in which queue it failed, or are not signed although a secret is set: choose a target with the option to"
    }
    if (origin.offset !== undefined) {
      return `it failed in the stream ${JSON.stringify(origin.queue)} at offset ${origin.offset}, which still has it, and all consumers of a stream would get a copy: choose a target with the option to`
    }
    if (origin.queue === this.#queue) {
      return "its headers say that it failed in this dead-letter queue itself: choose a target with the option to"
    }
    return { exchange: "", routingKey: origin.queue }
  }

  #refuse(letter: Letter, message: string): void {
    this.#tally.fail(letter, message)
    this.#reader.keep(letter.deliveryTag)
  }

  get redrive(): Effect.Effect<void, AmqpError.AmqpError> {
    const messages = Stream.fromPull(Effect.succeed(Effect.suspend(() => this.#pull())))
    return Effect.andThen(
      Stream.runForEachArray(this.#publishAll(messages), (outcomes) => this.#settleAll(outcomes)),
      Effect.suspend(() => (this.#failure === undefined ? this.#reader.settled : Effect.fail(this.#failure)))
    )
  }

  /** The messages of the next chosen letters. */
  #pull(): Effect.Effect<[Message, ...Array<Message>], AmqpError.AmqpError | Cause.Done> {
    return Effect.flatMap(this.chosen, (letters) => {
      if (letters.length === 0) return Cause.done()
      const messages: Array<Message> = []
      for (const letter of letters) {
        const target = this.#targetOf(letter)
        if (typeof target === "string") {
          this.#refuse(letter, target)
          continue
        }
        messages.push(redriveOf(letter, target, this.#mover.run, this.#bench.config))
        this.#sent.push(letter)
      }
      return messages.length > 0 ? Effect.succeed(messages as [Message, ...Array<Message>]) : this.#pull()
    })
  }

  get #options(): PublishOptions {
    return { mandatory: true, timeout: this.#bench.settings.timeout }
  }

  #publishAll(messages: Stream.Stream<Message, AmqpError.AmqpError>): Stream.Stream<Outcome, AmqpError.AmqpError> {
    const { publisher } = this.#bench
    const own = ownPublisherOf(publisher)
    const settings = readPublishAll({ ...this.#options, failures: "values" })
    // A service that was made by hand, or whose `publish` was replaced, can only publish messages one by one.
    return own === undefined || isInvalidArgument(settings)
      ? Stream.mapEffect(messages, (message) =>
          Effect.map(Effect.result(publisher.publish(message, this.#options)), (result) => ({ message, result }))
        )
      : (publishSequence(own, messages, settings, "values") as Stream.Stream<Outcome, AmqpError.AmqpError>)
  }

  #nextSent(): Letter {
    const letter = this.#sent[this.#head]!
    this.#head++
    if (this.#head * 2 > this.#sent.length) {
      this.#sent = this.#sent.slice(this.#head)
      this.#head = 0
    }
    return letter
  }

  #settleAll(outcomes: ReadonlyArray<Outcome>): Effect.Effect<void, AmqpError.AmqpError> {
    let failed: Array<Effect.Effect<void, AmqpError.AmqpError>> | undefined
    for (const { message, result } of outcomes) {
      const letter = this.#nextSent()
      if (Result.isSuccess(result)) this.#confirmed(letter)
      else (failed ??= []).push(this.#notConfirmed(letter, message, result.failure))
    }
    this.#bench.moved()
    return failed === undefined ? Effect.void : Effect.forEach(failed, (each) => each, { discard: true })
  }

  #confirmed(letter: Letter): void {
    this.#tally.confirmed(letter)
    // If the channel has ended, the broker delivers the letter again.
    this.#reader.acknowledge(letter.deliveryTag)
  }

  #notConfirmed(
    letter: Letter,
    message: Message,
    error: AmqpError.AmqpError
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const { reason } = error
    const isUncertain = isUnknown(reason)
    const isTooLargeHere = reason._tag === "MessageTooLarge" && reason.replyCode === undefined
    if (!isUncertain && !isTooLargeHere) return Effect.sync(() => this.#failed(letter, message, error))
    if (isUncertain) this.#tally.duplicates++
    return Effect.suspend(() => {
      // The broker delivers this letter again anyway.
      if (!this.#reader.isOpen || this.#failure !== undefined) return Effect.void
      return Effect.match(this.#bench.forwarding.publish(message, this.#options), {
        onFailure: (error) => {
          if (isUnknown(error.reason)) this.#tally.duplicates++
          this.#failed(letter, message, error)
        },
        onSuccess: () => this.#confirmed(letter)
      })
    })
  }

  #failed(letter: Letter, message: Message, error: AmqpError.AmqpError): void {
    const { reason } = error
    if (endsRun(reason)) {
      this.#failure ??= error
      Deferred.doneUnsafe(this.#ending, Effect.void)
      return
    }
    // Such a queue dead-letters what it refuses, although the publisher keeps it.
    if (reason._tag === "PublishNacked" && this.#bench.deadLettersRefused(message)) this.#tally.duplicates++
    this.#refuse(letter, reason.message)
  }
}

/** What a pass after a loss begins with. */
interface Looked {
  readonly now: InspectedQueue
  readonly ready: number
}

class Mover {
  readonly run = randomUUID()
  readonly move: Move
  /** How many more letters may be chosen. */
  left = 0
  isStopping = false
  readonly #settings: ChoiceSettings
  readonly #bench: Workbench
  readonly #stopped = Deferred.makeUnsafe<void>()
  #paceFrom: number | undefined = undefined
  #paced = 0

  constructor(bench: Workbench, move: Move, settings: ChoiceSettings) {
    this.#bench = bench
    this.move = move
    this.#settings = settings
  }

  isChosen(letter: Letter): boolean {
    const { ids, where } = this.#settings
    return (ids === undefined || ids.has(letter.id)) && (where === undefined || where(letter))
  }

  /** How many letters may be chosen at once, so that the rate is even. */
  get burst(): number {
    const { rate } = this.#settings
    return rate === undefined ? maxChunk : Math.max(1, Math.floor(rate / 20))
  }

  /** Waits until this many letters more are within the rate. */
  pace(letters: number): Effect.Effect<void> {
    const { rate } = this.#settings
    if (rate === undefined) return Effect.void
    return Effect.suspend(() => {
      const { now } = this.#bench.timeouts.deadlines
      this.#paceFrom ??= now
      const dueAt = this.#paceFrom + (this.#paced * 1000) / rate
      this.#paced += letters
      return dueAt <= now
        ? Effect.void
        : Effect.andThen(
            this.unlessStopped(Effect.sleep(dueAt - now), undefined),
            Effect.sync(() => this.#bench.moved())
          )
    })
  }

  stop(): void {
    this.isStopping = true
    Deferred.doneUnsafe(this.#stopped, Effect.void)
  }

  /** Ends a wait when the operation stops. */
  unlessStopped<A, E>(wait: Effect.Effect<A, E>, otherwise: A): Effect.Effect<A, E> {
    return Effect.raceFirst(wait, Effect.as(Deferred.await(this.#stopped), otherwise))
  }

  readonly visit = (inspected: InspectedQueue, tally: Tally): Effect.Effect<void, AmqpError.AmqpError> => {
    const bench = this.#bench
    const { queue, total } = inspected
    const counts = tally.begin(queue)
    const { dryRun, limit } = this.#settings
    let isFirst = true
    /** Whether acknowledgements may have been lost, so that messages return that were counted. */
    let isUncertain = false
    const use = (reader: QueueReader) =>
      Effect.suspend(() => {
        counts.beginPass(isUncertain)
        this.left = limit - tally.chosen
        const pass = new Pass(this, this.#bench, queue, reader, counts)
        const work = dryRun ? pass.dryRun : this.move._tag === "Discard" ? pass.discard : pass.redrive
        return Effect.ensuring(
          work,
          Effect.sync(() => {
            isUncertain ||= !reader.isOverflown || !reader.isOpen
            counts.unreadable = reader.unreadable
            counts.left += reader.unreadable
          })
        )
      })
    const look = (inspected: InspectedQueue) => this.#bench.reading(inspected, 0, (reader) => reader.ready)
    // The broker notices the end of a connection later than its client, and then returns what was unsettled.
    const again = (inspected: InspectedQueue) => {
      const dueAt = this.#bench.timeouts.deadlines.now + maxReturn
      const check: Effect.Effect<number, AmqpError.AmqpError> = Effect.flatMap(look(inspected), (ready) =>
        ready >= total - counts.settled || this.#bench.timeouts.deadlines.now >= dueAt
          ? Effect.succeed(ready)
          : Effect.andThen(Effect.sleep(returnPause), check)
      )
      return check
    }
    return bench.repeat(
      Effect.suspend(() => {
        if (isFirst) {
          isFirst = false
          return total === 0 ? Effect.void : bench.reading(inspected, total, use)
        }
        if (this.isStopping) return Effect.void
        // A dry run has counted what is still there.
        if (dryRun) counts.redriven = counts.discarded = 0
        // Nothing is in flight between two passes, so a stop needs no broker here.
        const looked = Effect.gen(function* () {
          // The queue may have been deleted and declared again, with another type.
          const now = yield* bench.inspect(queue)
          return { now, ready: yield* again(now) }
        })
        return Effect.flatMap(
          this.unlessStopped<Looked | undefined, AmqpError.AmqpError>(looked, undefined),
          (found) => {
            if (found === undefined) return Effect.void
            const { now, ready } = found
            const budget = Math.min(ready, Math.max(0, total - counts.settled) + (isUncertain ? maxUncertain : 0))
            return budget > 0 ? bench.reading(now, budget, use) : Effect.void
          }
        )
      })
    )
  }
}

const reportingOf = (bench: Workbench, tally: Tally, { onProgress }: ChoiceSettings) => {
  if (onProgress === undefined) return { repeated: Effect.void, last: Effect.void }
  const report = Effect.suspend(() => bench.asCaller(onProgress(tally.progress)))
  let reported = ""
  const ifChanged = Effect.suspend(() => {
    const now = JSON.stringify(tally.progress)
    if (now === reported) return Effect.void
    reported = now
    return report
  })
  return {
    repeated: Effect.forever(Effect.andThen(Effect.sleep(progressInterval), ifChanged)),
    last: report
  }
}

export const moveAll = Effect.fnUntraced(function* (
  bench: Workbench,
  queues: ReadonlyArray<string>,
  move: Move,
  settings: ChoiceSettings
): Effect.fn.Return<Report, AmqpError.AmqpError> {
  const inspected: Array<InspectedQueue> = []
  for (const queue of queues) inspected.push(yield* bench.inspect(queue))
  const tally = new Tally(inspected.reduce((sum, { total }) => sum + total, 0))
  const mover = new Mover(bench, move, settings)
  const { last, repeated } = reportingOf(bench, tally, settings)
  const work = Effect.gen(function* () {
    const reporting = yield* Effect.forkChild(repeated)
    for (const each of inspected) {
      if (settings.limit - tally.chosen <= 0) break
      yield* mover.visit(each, tally)
    }
    yield* Fiber.interrupt(reporting)
    return tally.report(settings.dryRun)
  })
  // An interruption takes no further letters, and waits for the confirms of those that are in flight, so that no more
  // than necessary are published twice.
  const graceful = Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(Effect.interruptible(work))
      return yield* Effect.onInterrupt(restore(Fiber.join(fiber)), () =>
        Effect.suspend(() => {
          mover.stop()
          return Effect.andThen(
            Effect.timeoutOption(Effect.exit(Fiber.join(fiber)), bench.config.closeTimeout),
            Fiber.interrupt(fiber)
          )
        })
      )
    })
  )
  return yield* Effect.ensuring(graceful, last)
})
