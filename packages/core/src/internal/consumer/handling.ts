/** Consuming by handlers: from the source of deliveries to their settlement, and the shutdown of a consumer. */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { AmqpConsumer, Delivery, InboxHandler } from "../../model/consumer.ts"
import type { AmqpError } from "../../model/error.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import type { Fork } from "../waiting/fork.ts"
import { type AsCaller, withCaller } from "../waiting/onClock.ts"
import type { KnownQueue } from "../connection/knownQueues.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import { Batches } from "./batches.ts"
import { type Consuming, startConsuming, endOf, reportEnd } from "./consuming.ts"
import { consumerTimeoutOf } from "./consumerTimeout.ts"
import { Republisher } from "./republisher.ts"
import type { ConsumerRecord } from "./consumerRecord.ts"
import { DeadLetterPublisher } from "./deadLetterPublisher.ts"
import { DelayQueues } from "./delayQueues.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import { RetainedDeliveries } from "./retainedDeliveries.ts"
import type { BatchSettings, HandlerSettings } from "./options.ts"
import { PausedDeliveries } from "./pausedDeliveries.ts"
import { ForwardingPublisher } from "./forwardingPublisher.ts"
import { LogLimiter } from "../telemetry/logLimiter.ts"
import { RetryPublisher } from "./retryPublisher.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import { type Access, accessOf, attemptsOf, clockOf, publishingAccessOf } from "./runningConsumers.ts"
import { type Restore, Settling } from "./settling.ts"
import { SharedCounts } from "./sharedCounts.ts"
import type { Source } from "./source.ts"
import type { Start } from "./start.ts"
import { StreamSettling } from "./streamSettling.ts"
import { warnOfLongWaits } from "./longWaits.ts"
import * as Tracing from "../telemetry/tracing.ts"
import { Workers } from "./workers.ts"

interface HandlingContext {
  readonly source: Source
  readonly settling: Pick<Settling, keyof Settling>
  /** What handlers run inside of; `undefined`: nothing. */
  readonly inbox: InboxHandler<unknown, unknown> | undefined
  /** `undefined`: attempts are counted in this process only. */
  readonly counts: SharedCounts | undefined
  readonly fork: Fork
  /** Whether handlers get spans. The consuming fiber decides, because all handlers run in its context. */
  readonly traced: boolean
  readonly measures: ConsumerMeasures
  /** `undefined` for a service that was written by hand. */
  readonly record: ConsumerRecord | undefined
  readonly deadlines: Deadlines
  readonly asCaller: AsCaller
}

/** Records a failure in the status of its consumer, unless it is an interruption. */
const recordFailure = (record: ConsumerRecord | undefined, cause: Cause.Cause<unknown>): void => {
  if (record === undefined) return
  const type = Tracing.errorTypeIn(cause)
  if (type !== undefined) record.handlerFailed(type)
}

/** How the deliveries of a source become work, and how the work is done. */
interface WorkSource<Work> {
  readonly isReady: () => boolean
  readonly take: () => Work | undefined
  /** Takes retained deliveries that are due to be handled again. */
  readonly takeRetained: (retained: RetainedDeliveries) => Work | undefined
  readonly handle: (work: Work, restore: Restore) => Effect.Effect<void>
  /** Reacts to a change in the source. Returns whether a worker is needed. */
  readonly changed: () => boolean
  readonly stop: () => void
}

// Half of the prefetch may pause in full, so that other messages get past. With a prefetch of 1, or with a single
// active consumer, returning early is of no use: the delivery would be at the head of the queue again, in no better
// order.
const mostFullPauses = (queue: KnownQueue | undefined, { prefetch }: Start): number =>
  prefetch === 1 || queue?.arguments["x-single-active-consumer"] === true ? Infinity : Math.floor(prefetch / 2)

/** The condition that health checks report while a delivery is retained. */
const pausedCondition = ({ conditions }: ConnectionInternals, { consumerTag, queue }: Start, clock: Clock.Clock) => {
  const key = `consumer paused: ${queue} ${consumerTag}`
  const message = `The consumer of the queue ${JSON.stringify(queue)} is paused: a message has come back so often that the delivery limit of the queue is reached, and the broker would remove it on a further return. It is handled again from memory until its handler succeeds, and nothing else is handled. Correct the handler, choose another policy, give the queue a dead-letter exchange, or raise its limit.`
  return {
    report: () =>
      conditions.report(key, { kind: "ConsumerPaused", message, notReady: false }, clock.currentTimeMillisUnsafe()),
    clear: () => conditions.clear(key)
  }
}

/** Makes the inbox, in the scope of the consumer. Its failure is the end of the consumer, which has not subscribed yet. */
const makeInbox = (
  consumer: AmqpConsumer["Service"],
  settings: HandlerSettings,
  { access, internals }: Consuming,
  asCaller: AsCaller
): Effect.Effect<InboxHandler<unknown, unknown> | undefined, AmqpError, Scope.Scope> => {
  const { concurrency, inbox, inboxName, shutdownTimeout, start } = settings
  if (inbox === undefined) return Effect.succeed(undefined)
  const { queue } = start
  const make = asCaller(Effect.suspend(() => inbox.make({ queue, name: inboxName, concurrency })))
  // Its requirements are in the context of the consuming fiber.
  const made = make as Effect.Effect<InboxHandler<unknown, unknown>, AmqpError, Scope.Scope>
  return Effect.tapCause(Effect.raceFirst(made, endOf(consumer)), (cause) =>
    reportEnd(
      access,
      settings,
      { requeued: 0, unsettled: 0 },
      cause,
      internals.shutdown.answerTimeLeft(shutdownTimeout),
      asCaller
    )
  )
}

const run = <Work, R>(
  consumer: AmqpConsumer["Service"],
  given: Access,
  settings: HandlerSettings,
  makeWorkSource: (parts: HandlingContext, wake: () => void) => WorkSource<Work>
): Effect.Effect<never, AmqpError, R> =>
  withCaller(clockOf(consumer), (asCaller) => runWith(asCaller, consumer, given, settings, makeWorkSource))

const runWith = <Work, R>(
  asCaller: AsCaller,
  consumer: AmqpConsumer["Service"],
  given: Access,
  settings: HandlerSettings,
  makeWorkSource: (parts: HandlingContext, wake: () => void) => WorkSource<Work>
): Effect.Effect<never, AmqpError, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const fork = Effect.runForkWith(context as Context.Context<never>)
        // An `undefined` timeout stands for what is left of the shared shutdown budget.
        const { maxDeliveries, shutdownTimeout: timeout } = settings
        const started = yield* startConsuming(consumer, given, settings, {
          fork,
          maxDeliveries,
          timeout: timeout ?? 10_000,
          asCaller
        })
        const { access, clock, internals, measures, position, reader, source, timeouts } = started
        const { config } = started.connection
        const { shutdown } = internals
        const inbox = yield* makeInbox(consumer, settings, started, asCaller)
        const scope = yield* Effect.scope
        const delayQueues = new DelayQueues({
          queue: settings.start.queue,
          internals,
          timeouts,
          config,
          scope
        })
        const publisher = new ForwardingPublisher(consumer.publisher, internals, timeouts, config).service
        const retrying = new RetryPublisher({ delayQueues, config, publisher })
        const { queue } = settings.start
        const memory = attemptsOf(consumer)
        const counts =
          maxDeliveries === Infinity || !settings.sharedCount
            ? undefined
            : new SharedCounts({ internals, timeouts, publisher, queue, memory, maxDeliveries, config, fork })
        const { deadlines } = timeouts
        const { consumerTag } = settings.start
        const annotations = { queue, consumerTag, ...access.annotations }
        const pauses = new PausedDeliveries(deadlines, () =>
          mostFullPauses(internals.queues.get(settings.start.queue), settings.start)
        )
        const repeats = new LogLimiter(deadlines, fork, annotations)
        const paused = pausedCondition(internals, settings.start, clock)
        const retained = new RetainedDeliveries(deadlines, () => {
          if (retained.isEmpty) {
            paused.clear()
            fork(
              Effect.annotateLogs(
                Effect.logInfo("AMQP consumer continues: no delivery is retained any more"),
                annotations
              )
            )
          }
          for (let i = 0; i < settings.concurrency && isReady(); i++) workers.wake()
        })
        const settling =
          position === undefined || settings.ofStream === undefined
            ? new Settling({
                settings,
                retryPublisher: retrying,
                pauses,
                retained,
                republisher: new Republisher(publisher, config),
                deadLetters: new DeadLetterPublisher({
                  queue,
                  consumer: settings.name,
                  mode: settings.deadLettering,
                  secrets: settings.retrySecret,
                  publisher,
                  config,
                  internals,
                  deadlines,
                  clock
                }),
                deadlines,
                internals,
                logLimiter: repeats,
                oldestPrefetchedAt: () => (source.size > 0 ? deadlines.now - source.waited : Infinity),
                onRetained: paused.report,
                onDeadLetter: (tag) => access.health?.record.deadLettered(tag)
              })
            : new StreamSettling({
                position,
                handling: settings.ofStream,
                publisher,
                config,
                logLimiter: repeats,
                consumer: settings.name,
                secrets: settings.retrySecret,
                clock
              })
        const traced = yield* Tracing.isTracingEnabled
        const workSource = makeWorkSource(
          {
            source,
            settling,
            inbox,
            counts,
            fork,
            traced,
            measures,
            record: access.health?.record,
            deadlines,
            asCaller
          },
          () => workers.wake()
        )
        const isReady = () => (retained.isEmpty ? workSource.isReady() : retained.isDue)
        const workers = new Workers<Work>({
          concurrency: settings.concurrency,
          fork,
          annotations,
          isReady,
          take: () => (retained.isEmpty ? workSource.take() : workSource.takeRetained(retained)),
          handle: (work, restore) =>
            retained.isEmpty
              ? workSource.handle(work, restore)
              : Effect.ensuring(
                  workSource.handle(work, restore),
                  Effect.sync(() => retained.sweep())
                )
        })
        source.onChange = () => {
          if (workSource.changed()) workers.wake()
        }
        // The prefetched deliveries of a channel go back when no other delivery of it is unsettled, so its paused
        // deliveries are released now.
        source.onChannelEnd = (channel) => pauses.releaseChannel(channel)
        yield* Effect.forkScoped(
          warnOfLongWaits(source, deadlines, {
            consumerTimeout: () => consumerTimeoutOf(internals.queues, settings.start),
            prefetch: settings.start.prefetch,
            concurrency: settings.concurrency,
            leastPrefetch: settings.leastPrefetch,
            annotations: access.annotations
          })
        )
        const stop = Effect.gen(function* () {
          // The broker delivers nothing more to this consumer, so what goes back now reaches other consumers.
          pauses.end()
          retained.end()
          yield* workers.stop(shutdown, timeout, () => {
            settling.stopping = true
          })
          yield* settling.giveBackRetained(shutdown.closeTimeLeft)
          paused.clear()
        })
        const prepare = Effect.andThen(settling.prepare, reader.prepare)
        const ended = Effect.raceFirst(endOf(consumer), reader.ended)
        return yield* Effect.onExit(source.run(prepare, ended), (exit) =>
          shutdown.during(
            Effect.gen(function* () {
              workSource.stop()
              const closing = () => shutdown.closeTimeLeftOf(internals.currentLink())
              const end = yield* source.stop(Effect.andThen(stop, counts?.close(closing) ?? Effect.void))
              yield* reader.finish(shutdown.answerTimeLeft(timeout))
              yield* repeats.end
              deadlines.stop()
              const cause = Exit.isFailure(exit) ? exit.cause : undefined
              yield* reportEnd(access, settings, end, cause, shutdown.answerTimeLeft(timeout), asCaller)
            })
          )
        )
      })
    )
  )

/** Runs a handler in a scope of its own, measures its duration, and settles its work according to the exit. */
const runHandler =
  <Work, A, E, R>(
    { asCaller, deadlines, measures, record }: HandlingContext,
    succeeded: (work: Work) => Effect.Effect<void>,
    failed: (work: Work, cause: Cause.Cause<E>, restore: Restore) => Effect.Effect<void>
  ) =>
  (work: Work, restore: Restore, onFailure: Tracing.OnFailure | undefined, handler: Effect.Effect<A, E, R>) => {
    const startedAt = deadlines.nowExact
    return Effect.matchCauseEffect(restore(asCaller(Effect.scoped(handler))), {
      onSuccess: () => {
        measures.succeeded.record(deadlines.nowExact - startedAt)
        return succeeded(work)
      },
      onFailure: (cause) => {
        measures.failed.record(deadlines.nowExact - startedAt)
        recordFailure(record, cause)
        onFailure?.(cause)
        return failed(work, cause, restore)
      }
    })
  }

/**
 * Handles each delivery individually.
 *
 * @param procedure the procedure that the handler serves, if it is a server. A server consumes on the publishers'
 * connection, so that it can reply on the channel of the request
 */
export const handleEach = <A, E, R, V, RD>(
  consumer: AmqpConsumer["Service"],
  settings: HandlerSettings,
  decode: ((delivery: Delivery) => Effect.Effect<V, AmqpError, RD>) | undefined,
  handler: (...args: ReadonlyArray<never>) => Effect.Effect<A, E, R>,
  procedure?: string
): Effect.Effect<never, AmqpError, Exclude<R, Scope.Scope> | RD> => {
  const access = procedure === undefined ? accessOf(consumer) : publishingAccessOf(consumer)
  return run<ConsumerDelivery, Exclude<R, Scope.Scope> | RD>(consumer, access, settings, (parts) => {
    const { asCaller, counts, inbox, settling, source, traced } = parts
    const handledAlone = runHandler<ConsumerDelivery, unknown, unknown, unknown>(
      parts,
      (delivery) => settling.succeeded(delivery),
      (delivery, cause, restore) => settling.failed(delivery, cause, restore)
    )
    const handled: typeof handledAlone =
      inbox === undefined
        ? handledAlone
        : (delivery, restore, onFailure, handler) =>
            handledAlone(
              delivery,
              restore,
              onFailure,
              Effect.suspend(() => inbox(delivery, Effect.scoped(handler)))
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
            Effect.matchCauseEffect(restore(asCaller(decode(delivery))), {
              onSuccess: (value) =>
                handled(
                  delivery,
                  restore,
                  onFailure,
                  Effect.suspend(() => handler(value as never, delivery as never))
                ),
              onFailure: (cause) => {
                onFailure?.(cause)
                recordFailure(parts.record, cause)
                return settling.undecodable(delivery, cause, restore)
              }
            })
    // The handler's requirements are in the context of the fibers that run it.
    const run = handle as (...args: Parameters<typeof handle>) => Effect.Effect<void>
    const runTraced = (delivery: ConsumerDelivery, restore: Restore) =>
      Tracing.withProcessSpan(delivery, procedure, (onFailure) => run(delivery, restore, onFailure))
    const attempt = (delivery: ConsumerDelivery, restore: Restore) =>
      settling.isPoison(delivery)
        ? settling.giveUpPoison(delivery, restore)
        : traced
          ? runTraced(delivery, restore)
          : run(delivery, restore)
    return {
      isReady: () => source.size > 0,
      take: () => source.take(),
      takeRetained: (retained) => retained.takeDue(1)[0],
      changed: () => source.size > 0,
      stop: () => {},
      handle:
        counts === undefined
          ? attempt
          : (delivery, restore) =>
              counts.shouldCount(delivery)
                ? Effect.flatMap(counts.begin(delivery, restore), (isHere) =>
                    isHere ? attempt(delivery, restore) : Effect.void
                  )
                : attempt(delivery, restore)
    }
  })
}

// All deliveries of the batch are settled concurrently, so one that waits for its retry does not hold up the others.
// The whole is interruptible, so that an interruption reaches the fiber of each delivery, where it ends only the
// waiting. A delivery that has no fiber yet goes back here.
const settleFailedBatch = (
  settling: HandlingContext["settling"],
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

/** Handles batches of up to `size` deliveries, collected for at most `within` milliseconds. */
export const handleBatches = <A, E, R, V, RD>(
  consumer: AmqpConsumer["Service"],
  settings: BatchSettings,
  decode: ((delivery: Delivery) => Effect.Effect<V, AmqpError, RD>) | undefined,
  handler: (...args: ReadonlyArray<never>) => Effect.Effect<A, E, R>
): Effect.Effect<never, AmqpError, Exclude<R, Scope.Scope> | RD> =>
  run<ReadonlyArray<ConsumerDelivery>, Exclude<R, Scope.Scope> | RD>(
    consumer,
    accessOf(consumer),
    settings,
    (parts, wake) => {
      const { asCaller, counts, fork, record, settling, source, traced } = parts
      const batches = new Batches(source, settings.size, settings.within, fork, wake)
      const handled = runHandler<ReadonlyArray<ConsumerDelivery>, A, E, R>(
        parts,
        (batch) => settling.allSucceeded(batch),
        (batch, cause, restore) => settleFailedBatch(settling, batch, cause, restore)
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
            yield* Effect.matchCauseEffect(restore(asCaller(decode(delivery))), {
              onSuccess: (value) => {
                values.push(value)
                decoded.push(delivery)
                return Effect.void
              },
              onFailure: (cause) => {
                recordFailure(record, cause)
                return settling.undecodable(delivery, cause, restore)
              }
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
        // The handler's requirements are in the context of the fibers that run it.
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
          if (settling.isPoison(delivery)) yield* settling.giveUpPoison(delivery, restore)
          else sound.push(delivery)
        }
        if (sound.length === 0) return
        yield* traced
          ? Tracing.withBatchProcessSpan(sound, (onFailure) => handleSound(sound, restore, onFailure))
          : handleSound(sound, restore, undefined)
      })
      return {
        isReady: () => batches.isReady,
        take: () => batches.take(),
        takeRetained: (retained) => {
          const due = retained.takeDue(settings.size)
          return due.length > 0 ? due : undefined
        },
        changed: () => batches.changed(),
        stop: () => batches.stop(),
        handle
      }
    }
  )
