/** The core's programs that must not compile, each next to one that does, in Effect 3's types. */
import { HttpRouter, HttpServer, type HttpServerError, HttpServerResponse } from "@effect/platform"
import { AmqpChannel, type AmqpError, AmqpLive, type AmqpMessage, AmqpPool, AmqpPublisher } from "@effect-amqp/platform"
import { AmqpHttp } from "@effect-amqp/platform/http"
import { Effect, type Scope, Stream } from "effect"

declare const message: AmqpMessage.Message
declare const delivery: AmqpMessage.Delivery

type Requirements<T> = T extends Effect.Effect<infer _A, infer _E, infer R> ? R : never
type Failures<T> = T extends Effect.Effect<infer _A, infer E, infer _R> ? E : never
type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const is = <_T extends true>() => {}

// --- A channel needs a scope -----------------------------------------------------------------------------------------

const publish = AmqpChannel.use((channel) => channel.publish(message))
is<Equals<Requirements<typeof publish>, Scope.Scope | AmqpPool.AmqpPool>>()

void Effect.runPromise(Effect.scoped(publish).pipe(Effect.provide(AmqpLive)))
// @ts-expect-error no scope ends, so the channel would never be returned
void Effect.runPromise(publish.pipe(Effect.provide(AmqpLive)))
// @ts-expect-error the same holds for a confirm channel
void Effect.runPromise(AmqpChannel.useConfirm((channel) => channel.publish(message)).pipe(Effect.provide(AmqpLive)))
// @ts-expect-error and for a channel that is borrowed with `get`
void Effect.runPromise(AmqpPool.get.pipe(Effect.provide(AmqpLive)))
// A transaction ends with its effect.
void Effect.runPromise(AmqpChannel.useTransaction((channel) => channel.publish(message)).pipe(Effect.provide(AmqpLive)))
// @ts-expect-error and nothing runs without a pool
void Effect.runPromise(Effect.scoped(publish))

// --- The outcome of a confirm is not ignored --------------------------------------------------------------------------

const confirming = AmqpChannel.useConfirm((channel) => channel.publish(message))
is<Equals<Failures<typeof confirming>, AmqpError.AmqpError>>()
const confirmed: Effect.Effect<AmqpChannel.Confirmed, AmqpError.AmqpError, Scope.Scope | AmqpPool.AmqpPool> = confirming
// @ts-expect-error its failure is part of its type
const unfailing: Effect.Effect<AmqpChannel.Confirmed, never, Scope.Scope | AmqpPool.AmqpPool> = confirming
// @ts-expect-error a publish without a confirm does not prove a confirm
const unconfirmed: Effect.Effect<AmqpChannel.Confirmed, AmqpError.AmqpError, Scope.Scope | AmqpPool.AmqpPool> = publish

// This continues only with a message that the broker has confirmed.
declare const tellCustomer: (proof: AmqpChannel.Confirmed) => Effect.Effect<void>
Effect.flatMap(confirming, tellCustomer)
// @ts-expect-error the outcome of this message is unknown
Effect.flatMap(publish, tellCustomer)
// @ts-expect-error an outcome is the value of an effect, which has to be run first
tellCustomer(confirming)

// --- Kinds of channels are not interchangeable ------------------------------------------------------------------------

declare const regular: AmqpChannel.AmqpChannel
declare const confirm: AmqpChannel.ConfirmChannel
declare const transaction: AmqpChannel.TransactionChannel
declare const needsConfirm: (channel: AmqpChannel.ConfirmChannel) => Effect.Effect<void>
declare const needsTransaction: (channel: AmqpChannel.TransactionChannel) => Effect.Effect<void>
declare const needsRegular: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<void>
declare const needsAny: (channel: AmqpChannel.Operations) => Effect.Effect<void>

AmqpChannel.useConfirm(needsConfirm)
AmqpChannel.useTransaction(needsTransaction)
// @ts-expect-error this is a regular channel, where a confirm channel is needed
AmqpChannel.use(needsConfirm)
// @ts-expect-error this is a regular channel, where a transaction is needed
AmqpChannel.use(needsTransaction)
// @ts-expect-error this is a confirm channel, where a transaction is needed
needsTransaction(confirm)
// @ts-expect-error this is a transaction, where a confirm channel is needed
needsConfirm(transaction)
// @ts-expect-error a publish in a transaction is not confirmed before the commit
needsRegular(transaction)
// @ts-expect-error returned messages of a confirm channel are failures of its publishes
needsRegular(confirm)
// @ts-expect-error there is nothing to commit
void regular.commit
for (const channel of [regular, confirm, transaction]) needsAny(channel)

// --- Names, options, values -------------------------------------------------------------------------------------------

// @ts-expect-error a misspelled option
regular.queueDeclare("q", { maxLenght: 1 })
// @ts-expect-error a misspelled queue type
regular.queueDeclare("q", { queueType: "quorom" })
// @ts-expect-error a misspelled property of a message
regular.publish({ routingKey: "q", content: "", contenttype: "text/plain" })
// @ts-expect-error a function is not a header value
regular.publish({ routingKey: "q", content: "", headers: { f: () => 1 } })
// @ts-expect-error a message needs a destination
regular.publish({ content: "" })
// @ts-expect-error only a delivery can be settled
regular.ack(message)
regular.ack(delivery)

// --- The publisher ----------------------------------------------------------------------------------------------------

AmqpPublisher.publishAll([message], { failures: "values" }).pipe(
  // @ts-expect-error with failures as values, each element may be a failure
  Stream.mapEffect(tellCustomer)
)
AmqpPublisher.publishAll([message]).pipe(Stream.mapEffect(tellCustomer))

// --- HTTP -------------------------------------------------------------------------------------------------------------

const routed = HttpRouter.empty.pipe(
  HttpRouter.get("/", Effect.as(publish, HttpServerResponse.empty())),
  HttpRouter.get("/fails", Effect.fail("mine" as const))
)
const answered = routed.pipe(HttpRouter.use(AmqpHttp.middleware))
is<Equals<Failures<typeof routed>, AmqpError.AmqpError | HttpServerError.RouteNotFound | "mine">>()
// The middleware answers AMQP errors and no others.
is<Equals<Failures<typeof answered>, HttpServerError.RouteNotFound | "mine">>()
// The request has the scope; the pool is still required.
const served = HttpServer.serve(answered)
// @ts-expect-error nothing provides the pool
HttpServer.serveEffect(answered) satisfies Effect.Effect<void, never, HttpServer.HttpServer | Scope.Scope>
// @ts-expect-error an option that does not exist
AmqpHttp.middlewareWith({ toRespons: AmqpHttp.toResponse })
// @ts-expect-error a response is not an effect
AmqpHttp.middlewareWith({ toResponse: (error) => Effect.succeed(AmqpHttp.toResponse(error)) })

export { confirmed, served, unconfirmed, unfailing }
