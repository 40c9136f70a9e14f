/** Consuming by handlers: from the source of deliveries to the settled one, and the way back when it ends. */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { AmqpConsumer, Delivery } from "../../model/consumer.ts"
import type { AmqpError } from "../../model/error.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import type { Fork } from "../waiting/fork.ts"
import type { KnownQueue } from "../connection/knownQueues.ts"
import type { Links } from "../connection/links.ts"
import { Batches } from "./batches.ts"
import { consuming, endOf, report } from "./consuming.ts"
import { consumerTimeoutOf } from "./consumerTimeout.ts"
import { Copies } from "./copies.ts"
import { DelayQueues } from "./delayQueues.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import { Kept } from "./kept.ts"
import type { Batching, Handling } from "./options.ts"
import { Pauses } from "./pauses.ts"
import { PublishingAgain } from "./publishingAgain.ts"
import { Repeats } from "./repeats.ts"
import { Retrying } from "./retrying.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import { type Access, accessOf, attemptsOf, publishingAccessOf } from "./running.ts"
import { type Restore, Settling } from "./settling.ts"
import { SharedCounts } from "./sharedCounts.ts"
import type { Source } from "./source.ts"
import type { Start } from "./start.ts"
import { StreamSettling } from "./streamSettling.ts"
import { warnOfWaiting } from "./waiting.ts"
import * as Tracing from "../telemetry/tracing.ts"
import { Workers } from "./workers.ts"

interface Parts {
  readonly source: Source
  readonly settling: Pick<Settling, keyof Settling>
  /** Undefined: attempts are counted in this process only. */
  readonly counts: SharedCounts | undefined
  readonly fork: Fork
  /** Whether handling is to have spans: as whoever consumes has, whose context all handlers run in. */
  readonly traced: boolean
  readonly measures: ConsumerMeasures
  readonly deadlines: Deadlines
}

/** How the deliveries of a source become work, and how that is done. */
interface Labour<Work> {
  readonly isReady: () => boolean
  readonly take: () => Work | undefined
  /** What is to be handled again, from memory. */
  readonly takeAgain: (kept: Kept) => Work | undefined
  readonly handle: (work: Work, restore: Restore) => Effect.Effect<void>
  /** Whether a worker is wanted for what has come. */
  readonly changed: () => boolean
  readonly stop: () => void
}

// Half of the prefetch, so that good messages get by. Where one delivery comes at a time, or one consumer has them all,
// going back early is of no use: it would be first in line again, and in no better order.
const mostFullPauses = (queue: KnownQueue | undefined, { prefetch }: Start): number =>
  prefetch === 1 || queue?.arguments["x-single-active-consumer"] === true ? Infinity : Math.floor(prefetch / 2)

/** What health checks say while a delivery is kept. */
const pausedCondition = ({ conditions }: Links, { consumerTag, queue }: Start, clock: Clock.Clock) => {
  const key = `consumer paused: ${queue} ${consumerTag}`
  const message = `The consumer of the queue ${JSON.stringify(queue)} is paused: a message has come back as often as the delivery limit of the queue allows, and is handled again and again. Let its handler succeed or choose another policy; give the queue a dead-letter exchange, or lift its limit.`
  return {
    report: () =>
      conditions.report(key, { kind: "ConsumerPaused", message, notReady: false }, clock.currentTimeMillisUnsafe()),
    clear: () => conditions.clear(key)
  }
}

const run = <Work, R>(
  consumer: AmqpConsumer["Service"],
  given: Access,
  settings: Handling,
  labourOf: (parts: Parts, wake: () => void) => Labour<Work>
): Effect.Effect<never, AmqpError, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const fork = Effect.runForkWith(context as Context.Context<never>)
        // Of the timeout undefined: what is left of the one that all share.
        const { maxDeliveries, shutdownTimeout: timeout } = settings
        const begun = yield* consuming(consumer, given, settings, { fork, maxDeliveries, timeout: timeout ?? 10_000 })
        const { access, clock, links, measures, position, reader, source, terms } = begun
        const { config } = begun.connection
        const { shutdown } = links
        const scope = yield* Effect.scope
        const delayQueues = new DelayQueues({
          queue: settings.start.queue,
          links,
          terms,
          config,
          scope
        })
        const publisher = new PublishingAgain(consumer.publisher, links, terms, config).service
        const retrying = new Retrying({ delayQueues, config, publisher })
        const { queue } = settings.start
        const memory = attemptsOf(consumer)
        const counts =
          maxDeliveries === Infinity || !settings.sharedCount
            ? undefined
            : new SharedCounts({ links, terms, publisher, queue, memory, maxDeliveries, config, fork })
        const { deadlines } = terms
        const annotations = { queue: settings.start.queue, ...access.annotations }
        const pauses = new Pauses(deadlines, () =>
          mostFullPauses(links.queues.get(settings.start.queue), settings.start)
        )
        const repeats = new Repeats(deadlines, fork, annotations)
        const paused = pausedCondition(links, settings.start, clock)
        const kept = new Kept(deadlines, () => {
          if (kept.isEmpty) {
            paused.clear()
            fork(Effect.annotateLogs(Effect.logInfo("AMQP consumer goes on"), annotations))
          }
          for (let i = 0; i < settings.concurrency && isReady(); i++) workers.wake()
        })
        const settling =
          position === undefined || settings.ofStream === undefined
            ? new Settling({
                settings,
                retrying,
                pauses,
                kept,
                copies: new Copies(publisher, config),
                deadlines,
                links,
                repeats,
                oldestAhead: () => (source.size > 0 ? deadlines.now - source.waited : Infinity),
                onKept: paused.report
              })
            : new StreamSettling(position, settings.ofStream, publisher, config, repeats)
        const traced = yield* Tracing.isOn
        const labour = labourOf({ source, settling, counts, fork, traced, measures, deadlines }, () => workers.wake())
        const isReady = () => (kept.isEmpty ? labour.isReady() : kept.isDue)
        const workers = new Workers<Work>({
          concurrency: settings.concurrency,
          fork,
          annotations,
          isReady,
          take: () => (kept.isEmpty ? labour.take() : labour.takeAgain(kept)),
          handle: (work, restore) =>
            kept.isEmpty
              ? labour.handle(work, restore)
              : Effect.ensuring(
                  labour.handle(work, restore),
                  Effect.sync(() => kept.sweep())
                )
        })
        source.onChange = () => {
          if (labour.changed()) workers.wake()
        }
        // What it has delivered ahead goes back when nothing else of it is left.
        source.onLeave = (channel) => pauses.endOf(channel)
        yield* Effect.forkScoped(
          warnOfWaiting(source, deadlines, {
            consumerTimeout: () => consumerTimeoutOf(links.queues, settings.start),
            prefetch: settings.start.prefetch,
            concurrency: settings.concurrency,
            leastPrefetch: settings.leastPrefetch,
            annotations: access.annotations
          })
        )
        const stop = Effect.gen(function* () {
          // The broker delivers nothing any more: what goes back now goes to others.
          pauses.end()
          kept.end()
          yield* workers.stop(shutdown, timeout, () => {
            settling.stopping = true
          })
          yield* settling.leave(shutdown.closing)
          paused.clear()
        })
        const prepare = Effect.andThen(settling.prepare, reader.prepare)
        const ended = Effect.raceFirst(endOf(consumer), reader.ended)
        return yield* Effect.onExit(source.run(prepare, ended), (exit) =>
          shutdown.during(
            Effect.gen(function* () {
              labour.stop()
              const closing = () => shutdown.closingOf(links.current())
              const end = yield* source.stop(Effect.andThen(stop, counts?.close(closing) ?? Effect.void))
              yield* reader.finish(shutdown.answering(timeout))
              yield* repeats.end
              deadlines.stop()
              const cause = Exit.isFailure(exit) ? exit.cause : undefined
              yield* report(access, settings, end, cause, shutdown.answering(timeout))
            })
          )
        )
      })
    )
  )

/** Runs a handler in a scope of its own, keeps its time, and settles its work by how it ends. */
const handling =
  <Work, A, E, R>(
    { deadlines, measures }: Parts,
    succeeded: (work: Work) => Effect.Effect<void>,
    failed: (work: Work, cause: Cause.Cause<E>, restore: Restore) => Effect.Effect<void>
  ) =>
  (work: Work, restore: Restore, onFailure: Tracing.OnFailure | undefined, handler: Effect.Effect<A, E, R>) => {
    const startedAt = deadlines.exact
    return Effect.matchCauseEffect(restore(Effect.scoped(handler)), {
      onSuccess: () => {
        measures.succeeded.record(deadlines.exact - startedAt)
        return succeeded(work)
      },
      onFailure: (cause) => {
        measures.failed.record(deadlines.exact - startedAt)
        onFailure?.(cause)
        return failed(work, cause, restore)
      }
    })
  }

/**
 * Each delivery by itself. `procedure`: that the handler serves, if it is a server; such a one takes requests by the
 * publishers' connection, so that it can reply on the channel that they come by.
 */
export const handleEach = <A, E, R, V, RD>(
  consumer: AmqpConsumer["Service"],
  settings: Handling,
  decode: ((delivery: Delivery) => Effect.Effect<V, AmqpError, RD>) | undefined,
  handler: (...args: ReadonlyArray<never>) => Effect.Effect<A, E, R>,
  procedure?: string
): Effect.Effect<never, AmqpError, Exclude<R, Scope.Scope> | RD> => {
  const access = procedure === undefined ? accessOf(consumer) : publishingAccessOf(consumer)
  return run<ConsumerDelivery, Exclude<R, Scope.Scope> | RD>(consumer, access, settings, (parts) => {
    const { counts, settling, source, traced } = parts
    const handled = handling<ConsumerDelivery, A, E, R>(
      parts,
      (delivery) => settling.succeeded(delivery),
      (delivery, cause, restore) => settling.failed(delivery, cause, restore)
    )
    const handle =
      decode === undefined
        ? (delivery: ConsumerDelivery, restore: Restore, onFailure?: Tracing.OnFailure) =>
            handled(
              delivery,
              restore,
              onFailure,
              Effect.suspend(() => handler(delivery as never))
            )
        : (delivery: ConsumerDelivery, restore: Restore, onFailure?: Tracing.OnFailure) =>
            Effect.matchCauseEffect(restore(decode(delivery)), {
              onSuccess: (value) =>
                handled(
                  delivery,
                  restore,
                  onFailure,
                  Effect.suspend(() => handler(value as never, delivery as never))
                ),
              onFailure: (cause) => {
                onFailure?.(cause)
                return settling.undecodable(delivery, cause, restore)
              }
            })
    // What it needs is in the context of the fibers that run it.
    const run = handle as (...args: Parameters<typeof handle>) => Effect.Effect<void>
    const runTraced = (delivery: ConsumerDelivery, restore: Restore) =>
      Tracing.handling(delivery, procedure, (onFailure) => run(delivery, restore, onFailure))
    const attempt = (delivery: ConsumerDelivery, restore: Restore) =>
      settling.isPoison(delivery)
        ? settling.poison(delivery)
        : traced
          ? runTraced(delivery, restore)
          : run(delivery, restore)
    return {
      isReady: () => source.size > 0,
      take: () => source.take(),
      takeAgain: (kept) => kept.takeDue(1)[0],
      changed: () => source.size > 0,
      stop: () => {},
      handle:
        counts === undefined
          ? attempt
          : (delivery, restore) =>
              counts.counts(delivery)
                ? Effect.flatMap(counts.begin(delivery, restore), (isHere) =>
                    isHere ? attempt(delivery, restore) : Effect.void
                  )
                : attempt(delivery, restore)
    }
  })
}

// Each by itself and all together, so that one that waits for its retry holds up no other. Interruptible, so that an
// interruption reaches the fiber of each, where it makes an end to waiting alone; what has no fiber yet goes back here.
const allFailed = (
  settling: Parts["settling"],
  batch: ReadonlyArray<ConsumerDelivery>,
  cause: Cause.Cause<unknown>,
  restore: Restore
): Effect.Effect<void> =>
  restore(
    Effect.forEach(
      batch,
      (delivery) => Effect.uninterruptible(settling.failed(delivery, cause, Effect.interruptible)),
      { concurrency: "unbounded", discard: true }
    )
  ).pipe(
    Effect.catchCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.failCause(cause))),
    Effect.ensuring(
      Effect.sync(() => {
        for (const delivery of batch) {
          if (!settling.isHeld(delivery)) settling.giveBack(delivery)
        }
      })
    )
  )

/** As many as there are, up to a number or a time. */
export const handleBatches = <A, E, R, V, RD>(
  consumer: AmqpConsumer["Service"],
  settings: Batching,
  decode: ((delivery: Delivery) => Effect.Effect<V, AmqpError, RD>) | undefined,
  handler: (...args: ReadonlyArray<never>) => Effect.Effect<A, E, R>
): Effect.Effect<never, AmqpError, Exclude<R, Scope.Scope> | RD> =>
  run<ReadonlyArray<ConsumerDelivery>, Exclude<R, Scope.Scope> | RD>(
    consumer,
    accessOf(consumer),
    settings,
    (parts, wake) => {
      const { counts, fork, settling, source, traced } = parts
      const batches = new Batches(source, settings.size, settings.within, fork, wake)
      const handled = handling<ReadonlyArray<ConsumerDelivery>, A, E, R>(
        parts,
        (batch) => settling.allSucceeded(batch),
        (batch, cause, restore) => allFailed(settling, batch, cause, restore)
      )
      const decodeAll = (
        batch: ReadonlyArray<ConsumerDelivery>,
        restore: Restore,
        onFailure: Tracing.OnFailure | undefined,
        decode: (delivery: Delivery) => Effect.Effect<V, AmqpError, RD>
      ) =>
        Effect.gen(function* () {
          const values: Array<V> = []
          const decoded: Array<ConsumerDelivery> = []
          for (const delivery of batch) {
            yield* Effect.matchCauseEffect(restore(decode(delivery)), {
              onSuccess: (value) => {
                values.push(value)
                decoded.push(delivery)
                return Effect.void
              },
              onFailure: (cause) => settling.undecodable(delivery, cause, restore)
            })
          }
          if (decoded.length > 0) {
            yield* handled(
              decoded,
              restore,
              onFailure,
              Effect.suspend(() => handler(values as never, decoded as never))
            )
          }
        })
      const handleSound = (
        sound: ReadonlyArray<ConsumerDelivery>,
        restore: Restore,
        onFailure: Tracing.OnFailure | undefined
      ) =>
        // What it needs is in the context of the fibers that run it.
        (decode === undefined
          ? handled(
              sound,
              restore,
              onFailure,
              Effect.suspend(() => handler(sound as never))
            )
          : decodeAll(sound, restore, onFailure, decode)) as Effect.Effect<void>
      const handle = Effect.fnUntraced(function* (batch: ReadonlyArray<ConsumerDelivery>, restore: Restore) {
        const sound: Array<ConsumerDelivery> = []
        const here = counts === undefined ? batch : yield* counts.beginAll(batch, restore)
        for (const delivery of here) {
          if (settling.isPoison(delivery)) yield* settling.poison(delivery)
          else sound.push(delivery)
        }
        if (sound.length === 0) return
        yield* traced
          ? Tracing.handlingBatch(sound, (onFailure) => handleSound(sound, restore, onFailure))
          : handleSound(sound, restore, undefined)
      })
      return {
        isReady: () => batches.isReady,
        take: () => batches.take(),
        takeAgain: (kept) => {
          const due = kept.takeDue(settings.size)
          return due.length > 0 ? due : undefined
        },
        changed: () => batches.changed(),
        stop: () => batches.stop(),
        handle
      }
    }
  )
