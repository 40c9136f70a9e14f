/** Supervises a connection: opens it, and re-establishes it after a loss. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConfig, Host } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import { InsideId } from "../../model/inside.ts"
import { Blocking } from "./blocking.ts"
import { ChannelBudget } from "./channelBudget.ts"
import { Conditions } from "./conditions.ts"
import { connect } from "./connect.ts"
import { TopologyRecovery } from "./topologyRecovery.ts"
import { KnownQueues } from "./knownQueues.ts"
import type { Link } from "./link.ts"
import { OutageLog } from "./outageLog.ts"
import { ConnectionInside, type ConnectionInternals } from "./connectionInternals.ts"
import { monotonicMillis } from "../waiting/monotonicMillis.ts"
import * as Logging from "../telemetry/logging.ts"
import { LogLimiter } from "../telemetry/logLimiter.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import { onClock } from "../waiting/onClock.ts"
import { Login, SharedLogin } from "./login.ts"
import { Preparations } from "./preparations.ts"
import { isLoginRefusal, isRefusal, ReconnectBackoff } from "./refusals.ts"
import { makeHostRotation } from "./hostRotation.ts"
import { Shutdown } from "./shutdown.ts"
import { type State, type Flow, AmqpConnection } from "../../model/connection.ts"
import { counted } from "../waiting/phrases.ts"

/**
 * Connects to the broker, and reconnects after a loss until the scope closes.
 *
 * **When to use**
 *
 * Use when the lifetime of a connection differs from that of a layer. Otherwise use `layer`.
 *
 * **Details**
 *
 * - The first connect (without `lazyConnect`) tries every host, `connectionAttempts` times with `retryDelay` between
 *   the rounds, and fails with the last reason. A refusal (login, virtual host, certificate, a peer that does not speak
 *   AMQP) fails after the first round.
 * - A connection that is lost later is re-established with the `reconnect` delays, indefinitely. A refusal is then
 *   treated as temporary and retried after longer delays, unless `reconnect.onRefused` is `"close"`.
 * - If one of several hosts refuses and another accepts the connection, the refusal is logged at Warning. If no host
 *   accepts, the result is a refused login or virtual host if there is one, because the nodes of a cluster share both;
 *   it is a refused certificate only if no host failed for a temporary reason.
 * - If a host has several addresses, the next one is tried when one refuses, or accepts and does not respond.
 * - Each change of state is logged once: at Debug while connecting; at Info when the connection is open, unblocked or
 *   closed by its scope after that; at Warning when it is lost or blocked; at Error when it is refused or closed for
 *   good. Further failed attempts are logged at Debug. While the connection stays lost, one of them is logged at Warning
 *   after 30 seconds, and then after intervals that double up to 10 minutes, with the start of the outage, its duration
 *   and the number of attempts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (config: AmqpConfig): Effect.Effect<AmqpConnection["Service"], AmqpError.AmqpError, Scope.Scope> =>
  Effect.annotateLogs(start(config), Logging.connectionAnnotations(config))

export const start = Effect.fnUntraced(function* (
  config: AmqpConfig
): Effect.fn.Return<AmqpConnection["Service"], AmqpError.AmqpError, Scope.Scope> {
  const state = yield* SubscriptionRef.make<State>({ _tag: "Connecting", attempt: 0, reason: undefined })
  const flow = yield* SubscriptionRef.make<Flow>({ _tag: "Flowing" })
  const runFork = Effect.runForkWith(yield* Effect.context())
  const clock = yield* Effect.clockWith(Effect.succeed)
  const login = (yield* SharedLogin) ?? new Login(config.credentials)

  let current: Link | undefined
  let closedBy: AmqpError.AmqpErrorReason | undefined
  let generation = 0
  /** Completed with the next link, or with the reason why there will be none. */
  let arrival = Deferred.makeUnsafe<Link, AmqpError.AmqpError>()
  /** Completed with the reason when the current link ends. */
  let loss = Deferred.makeUnsafe<AmqpError.AmqpErrorReason>()
  /** Completed when the secret that the last attempt used is replaced. */
  let { replaced } = login
  /**
   * Completed when a connection that was closed because of a refused login gets another secret. The value is the
   * refusal.
   */
  let revived = Deferred.makeUnsafe<AmqpError.AmqpErrorReason>()
  let hasEnded = false

  /** The log annotation that identifies the current link. */
  const generationAnnotation = () => ({ "amqp.connection.generation": generation })

  const blocking = new Blocking(flow, config.blockedConnectionTimeout, runFork, generationAnnotation)
  const backoff = new ReconnectBackoff(clock, config.reconnect)
  const deadlines = new Deadlines(clock, runFork)
  const logLimiter = new LogLimiter(deadlines, runFork, {})

  const onUndecodable = (reason: AmqpError.DecodeFailed, about: Readonly<Record<string, unknown>>) => {
    internals.unread.undecodable++
    const title = "AMQP message could not be read"
    const { queue } = about
    runFork(
      logLimiter.write(
        { title, isError: true, error: reason._tag, queue: typeof queue === "string" ? queue : undefined },
        Effect.annotateLogs(Effect.logError(title), { ...about, reason: reason.message })
      )
    )
  }

  // A refusal is final before the first connection. Once the application has been connected, a refusal may be
  // transient.
  const isFinal = (reason: AmqpError.AmqpErrorReason) =>
    isRefusal(reason) && (!login.wasAccepted || config.reconnect.onRefused === "close")

  const onLimited = (allowed: number | undefined, because: string) => {
    const { conditions } = internals
    if (allowed === undefined) return conditions.clear("channels")
    const message = `the broker allows this application ${counted(allowed, "channel")}: ${because}`
    conditions.report("channels", { kind: "ChannelLimit", message, notReady: false }, clock.currentTimeMillisUnsafe())
    runFork(
      Effect.annotateLogs(
        Effect.logWarning(
          "AMQP channel limit reached: the broker refused another channel and closed the connection. New channels wait until one closes. Raise the user's max-channels, or lower the pool's max."
        ),
        { allowed, reason: because, ...generationAnnotation() }
      )
    )
  }

  const connectTo = (host: Host): Effect.Effect<void, AmqpError.AmqpError> => {
    let attemptLink: Link | undefined
    const ended = Deferred.makeUnsafe<AmqpError.AmqpErrorReason>()
    const { credentials } = login
    replaced = login.replaced
    const connected = connect(
      { ...config, credentials },
      host,
      {
        budget: () => internals.budget,
        onBlocked: (reason) => blocking.blocked(reason, current),
        onUnblocked: () => blocking.unblocked(),
        onChannelClosed: (reason) => internals.topologyRecovery.closedBy(reason),
        onReturned: (exchange, routingKey) => internals.topologyRecovery.returned(exchange, routingKey),
        onUndecodable,
        onClosed: (reason) => {
          if (attemptLink !== undefined) internals.budget.linkEnded(attemptLink, reason.message)
          // The link is cleared here and not in the supervisor's fiber, which runs later: no caller may get a closed
          // link in between.
          if (attemptLink !== undefined && attemptLink === current) {
            current = undefined
            // If the link ended before `markOpen` announced it, `arrival` is still pending, and the next link completes
            // it.
            if (Deferred.isDoneUnsafe(arrival)) arrival = Deferred.makeUnsafe()
          }
          Deferred.doneUnsafe(ended, Effect.succeed(reason))
        }
      },
      (link) => {
        attemptLink = link
        current = link
        loss = ended
        if (credentials !== login.credentials) login.catchUp(link)
      }
    )
    // The link may have been blocked before the attempt failed, and the next link is not blocked.
    const attempted = Effect.tapError(connected, () => Effect.sync(() => blocking.lost()))
    // A refusal of a secret that was replaced during the attempt is retried with the new one.
    return Effect.catchIf(
      attempted,
      ({ reason }) => reason._tag === "AuthenticationFailed" && credentials !== login.credentials,
      () => connectTo(host)
    )
  }

  const tryEveryHost = makeHostRotation(config.hosts, connectTo)

  const markOpen = Effect.suspend(() => {
    generation++
    backoff.forgetRefusals()
    login.wasAccepted = true
    // If the link has already ended, `loss` is completed, and the supervisor continues with the loss.
    if (current === undefined) return Effect.void
    const link = current
    link.generation = generation
    Deferred.doneUnsafe(arrival, Effect.succeed(link))
    return Effect.andThen(
      SubscriptionRef.set(state, {
        _tag: "Open",
        peer: link.peer,
        product: link.product,
        generation,
        channelMax: link.channelMax,
        frameMax: link.frameMax,
        heartbeat: Duration.seconds(link.heartbeat)
      }),
      Effect.logInfo("AMQP connection open").pipe(
        Effect.annotateLogs({ peer: link.peer, product: link.product, ...generationAnnotation() })
      )
    )
  })

  const markClosed = (reason: AmqpError.AmqpErrorReason) =>
    Effect.suspend(() => {
      closedBy = reason
      revived = Deferred.makeUnsafe()
      Deferred.doneUnsafe(arrival, Effect.fail(AmqpError.fromReason(reason)))
      return SubscriptionRef.set(state, { _tag: "Closed", reason })
    })

  const giveUp = (reason: AmqpError.AmqpErrorReason) =>
    Effect.as(
      Effect.andThen(
        markClosed(reason),
        Effect.annotateLogs(Effect.logError("AMQP connection closed for good: no further attempts to connect"), {
          reason: reason.message
        })
      ),
      false
    )

  const markLost = (reason: AmqpError.AmqpErrorReason) =>
    Effect.suspend(() => {
      blocking.lost()
      return Effect.andThen(
        SubscriptionRef.set(state, { _tag: "Reconnecting", attempt: 0, reason }),
        Effect.logWarning("AMQP connection lost, reconnecting").pipe(
          Effect.annotateLogs({ reason: reason.message, ...generationAnnotation() })
        )
      )
    })

  /**
   * Attempts to connect until a link is open. Returns `false` if the connection is closed for good. After a loss it
   * waits before the first attempt.
   */
  const establish = Effect.fnUntraced(function* (lostFor: AmqpError.AmqpErrorReason | undefined) {
    let reason = lostFor
    let lastTag: string | undefined
    const outage = new OutageLog(clock)
    for (let attempt = 1; ; attempt++) {
      if (reason !== undefined && !(yield* backoff.wait(reason, replaced))) return yield* giveUp(reason)
      const attempted = tryEveryHost(attempt > 1)
      const error = yield* Effect.match(attempted, { onFailure: (error) => error, onSuccess: () => undefined })
      if (error === undefined) return yield* Effect.as(markOpen, true)
      reason = error.reason
      if (isFinal(reason)) return yield* giveUp(reason)
      const isFirst = attempt === 1 && generation === 0
      // A refusal is logged at Error, because an operator must act, and not again while the next attempts fail for the
      // same reason: that may last for hours.
      const isNewRefusal = isRefusal(reason) && reason._tag !== lastTag
      lastTag = reason._tag
      yield* SubscriptionRef.set(state, { _tag: generation === 0 ? "Connecting" : "Reconnecting", attempt, reason })
      yield* Effect.annotateLogs(
        isNewRefusal
          ? Effect.logError("AMQP connection refused, trying again")
          : isFirst
            ? Effect.logWarning("AMQP connection attempt failed, trying again")
            : outage.isDue
              ? outage.warn
              : Effect.logDebug("AMQP connection attempt failed, trying again"),
        { attempt, reason: reason.message }
      )
    }
  })

  const supervise = Effect.gen(function* () {
    let isOpen = !config.lazyConnect || (yield* establish(undefined))
    while (true) {
      if (isOpen) {
        const openedAt = backoff.now
        const reason = yield* Deferred.await(loss)
        yield* markLost(reason)
        backoff.lost(openedAt)
        isOpen = yield* establish(reason)
      } else {
        const reason = yield* Deferred.await(revived)
        yield* SubscriptionRef.set(
          state,
          generation === 0 ? { _tag: "Connecting", attempt: 0, reason } : { _tag: "Reconnecting", attempt: 0, reason }
        )
        yield* Effect.logInfo("AMQP connection reopening with the new secret, after a refused login")
        isOpen = yield* establish(undefined)
      }
    }
  }).pipe(
    // If a schedule has a defect, callers must not wait forever for the next connection.
    Effect.catchDefect((defect) =>
      giveUp(new AmqpError.UnknownError({ message: `reconnecting failed: ${String(defect)}`, cause: defect }))
    )
  )

  const first = tryEveryHost(false).pipe(
    Effect.retry({
      times: config.connectionAttempts - 1,
      schedule: Schedule.spaced(config.retryDelay),
      while: (error) => !isRefusal(error.reason)
    })
  )

  const next: Effect.Effect<Link, AmqpError.AmqpError> = Effect.suspend(() => {
    if (closedBy !== undefined) return Effect.fail(AmqpError.fromReason(closedBy))
    return current === undefined ? Deferred.await(arrival) : Effect.succeed(current)
  })
  const internals: ConnectionInternals = {
    clock,
    currentLink: () => current,
    nextLink: next,
    login,
    preparations: new Preparations(() => current),
    shutdown: new Shutdown(config, clock),
    queues: new KnownQueues(),
    topologyRecovery: new TopologyRecovery(),
    conditions: new Conditions(),
    unread: { undecodable: 0 },
    budget: new ChannelBudget({ now: () => monotonicMillis(clock), fork: runFork, limited: onLimited })
  }

  const member = {
    current: () => current,
    continuationTimeout: config.continuationTimeout,
    onReplaced: () => {
      backoff.forgetRefusals()
      if (closedBy === undefined || hasEnded || !isLoginRefusal(closedBy)) return
      const reason = closedBy
      // The state is changed here and not in the supervisor's fiber, which runs later: the caller of `updateSecret` may
      // publish next.
      closedBy = undefined
      arrival = Deferred.makeUnsafe()
      Deferred.doneUnsafe(revived, Effect.succeed(reason))
    }
  }
  login.join(member)
  const close = Effect.gen(function* () {
    hasEnded = true
    login.leave(member)
    blocking.stop()
    internals.budget.close()
    if (current !== undefined) yield* current.close(Duration.millis(internals.shutdown.closeTimeLeftOf(current)))
    current = undefined
    yield* logLimiter.end
    deadlines.stop()
    if (closedBy === undefined) {
      yield* markClosed(
        new AmqpError.ConnectionClosed({
          message: "the connection was closed by this application: its scope has ended"
        })
      )
      yield* generation === 0
        ? Effect.logDebug("AMQP connecting ended: the connection was never open")
        : Effect.logInfo("AMQP connection closed")
    }
  })

  // The finalizer is added first, so that it exists before the first socket is opened.
  yield* Effect.addFinalizer(() => internals.shutdown.during(close))
  yield* Effect.annotateLogs(Effect.logDebug("AMQP connecting to the broker"), {
    hosts: config.hosts.map(Logging.peerOf)
  })
  if (!config.lazyConnect) yield* Effect.andThen(first, markOpen)
  yield* Effect.forkScoped(supervise)

  const updateSecret = (secret: Redacted.Redacted<string>, reason = "refreshed") =>
    Effect.suspend(() =>
      closedBy === undefined || (!hasEnded && isLoginRefusal(closedBy))
        ? Effect.annotateLogs(onClock(clock, login.update(secret, reason)), Logging.connectionAnnotations(config))
        : Effect.fail(AmqpError.fromReason(closedBy))
    )
  return AmqpConnection.of({ config, state, flow, updateSecret, [InsideId]: new ConnectionInside(internals) })
})
