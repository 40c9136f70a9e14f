/** Keeps a connection: makes it, and makes it again when it is lost. */
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
import { Keepers } from "./keepers.ts"
import { KnownQueues } from "./knownQueues.ts"
import type { Link } from "./link.ts"
import { ConnectionInside, type Links } from "./links.ts"
import { elapsed } from "../waiting/elapsed.ts"
import * as Logging from "../telemetry/logging.ts"
import { Login, SharedLogin } from "./login.ts"
import { Preparations } from "./preparations.ts"
import { isOfLogin, isRefusal, Pauses } from "./refusals.ts"
import { roundsOver } from "./rounds.ts"
import { Shutdown } from "./shutdown.ts"
import { type State, type Flow, AmqpConnection } from "../../model/connection.ts"

/**
 * Connects, and keeps connected until the scope closes.
 *
 * The first connect (without `lazyConnect`) tries every host, `connectionAttempts` times with `retryDelay` between the
 * rounds, and fails with the last reason; a refusal (login, virtual host, certificate, a peer that does not speak AMQP) fails
 * after the first round. A connection that is lost later is made again after waits by `reconnect`, without an end. A refusal is
 * then taken for one that passes, and tried again after longer waits, unless `reconnect.onRefused` is `"close"`.
 *
 * Of several hosts one that refuses is passed over while another takes the connection, and logged at Warning. If none does,
 * a refused login or virtual host counts, since the nodes of a cluster share both; a certificate does if no host failed by
 * what may pass. Of several addresses of one host the next is tried when one refuses, or accepts and stays silent.
 *
 * Each change of state is logged once: at Debug while connecting, at Info when open, unblocked or closed by its scope, at
 * Warning when lost or blocked, at Error when refused or closed for good. Further attempts that fail are logged at Debug.
 */
export const make = (config: AmqpConfig): Effect.Effect<AmqpConnection["Service"], AmqpError.AmqpError, Scope.Scope> =>
  Effect.annotateLogs(start(config), Logging.ofConnection(config))

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
  let arrival = Deferred.makeUnsafe<Link, AmqpError.AmqpError>()
  let loss = Deferred.makeUnsafe<AmqpError.AmqpErrorReason>()
  /** Done when the secret of the last attempt is replaced. */
  let { replaced } = login
  /** Done when a connection that is closed for a refused login gets another secret: with that refusal. */
  let revived = Deferred.makeUnsafe<AmqpError.AmqpErrorReason>()
  let hasEnded = false

  /** Which of its links a line of the log is about. */
  const which = () => ({ "amqp.connection.generation": generation })

  const blocking = new Blocking(flow, config.blockedConnectionTimeout, runFork, which)
  const pauses = new Pauses(clock, config.reconnect)

  const onUndecodable = (reason: AmqpError.DecodeFailed, about: Readonly<Record<string, unknown>>) => {
    links.unread.undecodable++
    runFork(
      Effect.annotateLogs(Effect.logError("AMQP message could not be read"), { ...about, reason: reason.message })
    )
  }

  // Nothing that an application cannot reach at first is asked for again; what it has reached may be away for a while.
  const isFinal = (reason: AmqpError.AmqpErrorReason) =>
    isRefusal(reason) && (!login.wasAccepted || config.reconnect.onRefused === "close")

  const onLimited = (allowed: number | undefined, because: string) => {
    const { conditions } = links
    if (allowed === undefined) return conditions.clear("channels")
    const message = `the broker allows this application ${allowed} channels now: ${because}`
    conditions.report("channels", { kind: "ChannelLimit", message, notReady: false }, clock.currentTimeMillisUnsafe())
    runFork(
      Effect.annotateLogs(
        Effect.logWarning(
          "AMQP channel limit reached: openings wait until a channel is free. Raise the user's max-channels, or lower the pool's max."
        ),
        { allowed, reason: because, ...which() }
      )
    )
  }

  const connectTo = (host: Host): Effect.Effect<void, AmqpError.AmqpError> => {
    let mine: Link | undefined
    const ended = Deferred.makeUnsafe<AmqpError.AmqpErrorReason>()
    const { credentials } = login
    replaced = login.replaced
    const connected = connect(
      { ...config, credentials },
      host,
      {
        budget: () => links.budget,
        onBlocked: (reason) => blocking.blocked(reason, current),
        onUnblocked: () => blocking.unblocked(),
        onChannelClosed: (reason) => links.keepers.closedBy(reason),
        onReturned: (exchange, routingKey) => links.keepers.returned(exchange, routingKey),
        onUndecodable,
        onClosed: (reason) => {
          if (mine !== undefined) links.budget.linkEnded(mine, reason.message)
          // At once, not when the supervisor runs: nobody may be handed a dead link in between.
          if (mine !== undefined && mine === current) {
            current = undefined
            // One that died before it was announced leaves those waiting who waited for it.
            if (Deferred.isDoneUnsafe(arrival)) arrival = Deferred.makeUnsafe()
          }
          Deferred.doneUnsafe(ended, Effect.succeed(reason))
        }
      },
      (link) => {
        mine = link
        current = link
        loss = ended
        if (credentials !== login.credentials) login.catchUp(link)
      }
    )
    // It may have been blocked before it ended.
    const attempted = Effect.tapError(connected, () => Effect.sync(() => blocking.lost()))
    // A secret that was replaced while it was being refused is no reason to give up.
    return Effect.catchIf(
      attempted,
      ({ reason }) => reason._tag === "AuthenticationFailed" && credentials !== login.credentials,
      () => connectTo(host)
    )
  }

  const tryEveryHost = roundsOver(config.hosts, connectTo)

  const opened = Effect.suspend(() => {
    generation++
    pauses.forgetRefusals()
    login.wasAccepted = true
    // It may have died already: then `loss` is done, and the supervisor goes on from there.
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
        Effect.annotateLogs({ peer: link.peer, product: link.product, ...which() })
      )
    )
  })

  const closedFor = (reason: AmqpError.AmqpErrorReason) =>
    Effect.suspend(() => {
      closedBy = reason
      revived = Deferred.makeUnsafe()
      Deferred.doneUnsafe(arrival, Effect.fail(AmqpError.fromReason(reason)))
      return SubscriptionRef.set(state, { _tag: "Closed", reason })
    })

  const givenUp = (reason: AmqpError.AmqpErrorReason) =>
    Effect.as(
      Effect.andThen(
        closedFor(reason),
        Effect.annotateLogs(Effect.logError("AMQP connection closed for good"), { reason: reason.message })
      ),
      false
    )

  const lost = (reason: AmqpError.AmqpErrorReason) =>
    Effect.suspend(() => {
      blocking.lost()
      return Effect.andThen(
        SubscriptionRef.set(state, { _tag: "Reconnecting", attempt: 0, reason }),
        Effect.logWarning("AMQP connection lost, reconnecting").pipe(
          Effect.annotateLogs({ reason: reason.message, ...which() })
        )
      )
    })

  /** Tries until there is a link; false: it was given up for good. Waits first if one was lost. */
  const establish = Effect.fnUntraced(function* (lostFor: AmqpError.AmqpErrorReason | undefined) {
    let reason = lostFor
    let logged: string | undefined
    for (let attempt = 1; ; attempt++) {
      if (reason !== undefined && !(yield* pauses.wait(reason, replaced))) return yield* givenUp(reason)
      const attempted = tryEveryHost(attempt > 1)
      const error = yield* Effect.match(attempted, { onFailure: (error) => error, onSuccess: () => undefined })
      if (error === undefined) return yield* Effect.as(opened, true)
      reason = error.reason
      if (isFinal(reason)) return yield* givenUp(reason)
      const isFirst = attempt === 1 && generation === 0
      // Each refusal once: it may last for hours, and needs somebody.
      const isNews = isRefusal(reason) && reason._tag !== logged
      logged = reason._tag
      yield* SubscriptionRef.set(state, { _tag: generation === 0 ? "Connecting" : "Reconnecting", attempt, reason })
      yield* Effect.annotateLogs(
        isNews
          ? Effect.logError("AMQP connection refused, trying again")
          : isFirst
            ? Effect.logWarning("AMQP connection not made, trying again")
            : Effect.logDebug("AMQP connection not made"),
        { attempt, reason: reason.message }
      )
    }
  })

  const supervise = Effect.gen(function* () {
    let isOpen = !config.lazyConnect || (yield* establish(undefined))
    while (true) {
      if (isOpen) {
        const openedAt = pauses.now
        const reason = yield* Deferred.await(loss)
        yield* lost(reason)
        pauses.lost(openedAt)
        isOpen = yield* establish(reason)
      } else {
        const reason = yield* Deferred.await(revived)
        yield* SubscriptionRef.set(
          state,
          generation === 0 ? { _tag: "Connecting", attempt: 0, reason } : { _tag: "Reconnecting", attempt: 0, reason }
        )
        yield* Effect.logInfo("AMQP connection closed for a refused login: trying the new secret")
        isOpen = yield* establish(undefined)
      }
    }
  }).pipe(
    // A schedule that dies must not leave those who wait for the next connection waiting for ever.
    Effect.catchDefect((defect) =>
      givenUp(new AmqpError.UnknownError({ message: `reconnecting failed: ${String(defect)}`, cause: defect }))
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
  const links: Links = {
    current: () => current,
    next,
    login,
    preparations: new Preparations(() => current),
    shutdown: new Shutdown(config, clock),
    queues: new KnownQueues(),
    keepers: new Keepers(),
    conditions: new Conditions(),
    unread: { undecodable: 0 },
    budget: new ChannelBudget({ now: () => elapsed(clock), fork: runFork, limited: onLimited })
  }

  const member = {
    current: () => current,
    continuationTimeout: config.continuationTimeout,
    onReplaced: () => {
      pauses.forgetRefusals()
      if (closedBy === undefined || hasEnded || !isOfLogin(closedBy)) return
      const reason = closedBy
      // Now, not when the supervisor runs: the caller of `updateSecret` may publish next.
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
    links.budget.close()
    if (current !== undefined) yield* current.close(Duration.millis(links.shutdown.closingOf(current)))
    current = undefined
    if (closedBy === undefined) {
      yield* closedFor(
        new AmqpError.ConnectionClosed({
          message: "the connection was closed by this application: its scope has ended"
        })
      )
      yield* Effect.logInfo("AMQP connection closed")
    }
  })

  // In this order: the finalizer must exist before the first socket does.
  yield* Effect.addFinalizer(() => links.shutdown.during(close))
  yield* Effect.annotateLogs(Effect.logDebug("AMQP connection connecting"), { hosts: config.hosts.map(Logging.peerOf) })
  if (!config.lazyConnect) yield* Effect.andThen(first, opened)
  yield* Effect.forkScoped(supervise)

  const updateSecret = (secret: Redacted.Redacted<string>, reason = "refreshed") =>
    Effect.suspend(() =>
      closedBy === undefined || (!hasEnded && isOfLogin(closedBy))
        ? Effect.annotateLogs(login.update(secret, reason), Logging.ofConnection(config))
        : Effect.fail(AmqpError.fromReason(closedBy))
    )
  return AmqpConnection.of({ config, state, flow, updateSecret, [InsideId]: new ConnectionInside(links) })
})
