/**
 * Spans of publishing, handling and calling, by OpenTelemetry's conventions
 * (https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/).
 *
 * They are opened only where somebody has provided a tracer: Effect's own, which is there by default, tells nobody. So who
 * does not trace pays a look at the fiber for each publish, and consumers not even that.
 *
 * Names of spans, and `messaging.destination.template`, are the exchange's, or the queue's where there is none: routing keys
 * may hold anything, and tools group spans by their names. Attributes have the whole destination.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { type Baggage, Current } from "../../model/baggage.ts"
import { AmqpError } from "../../model/error.ts"
import type { Delivery, Message } from "../../model/message.ts"
import * as BaggageHeader from "./baggageHeader.ts"
import { failureOf } from "../message/failure.ts"
import { isReplyAddress } from "../wire/directReply.ts"
import { contextOf, messageWith } from "./tracingContext.ts"

type Attributes = Record<string, unknown>

/** Whether spans of this fiber go anywhere. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean => {
  const { tracer, tracerEnabled } = fiber.cache
  return (
    tracer !== undefined && tracer !== Tracer.nativeTracer && tracerEnabled && !fiber.getRef(Tracer.DisablePropagation)
  )
}

/** The same of the fiber that runs this. */
export const isOn: Effect.Effect<boolean> = Effect.withFiber((fiber) => Effect.succeed(isTraced(fiber)))

// --- What they say -----------------------------------------------------------------------------------------------------

const operation = (name: string, type: "send" | "process"): Attributes => ({
  "messaging.system": "rabbitmq",
  "messaging.operation.name": name,
  "messaging.operation.type": type
})

/** A broker's address. */
interface Peer {
  /** `host:port` */
  readonly peer: string
  readonly frameMax: number
}

/** A delivery, as far as spans tell it. */
interface TracedDelivery extends Pick<Delivery, "content" | "properties" | "exchange" | "routingKey"> {
  readonly queue: string
  readonly tag: number
  readonly channel: { readonly link: Peer }
}

const setServer = (attributes: Attributes, link: Peer | undefined): void => {
  if (link === undefined) return
  const colon = link.peer.lastIndexOf(":")
  attributes["server.address"] = link.peer.slice(0, colon)
  attributes["server.port"] = Number(link.peer.slice(colon + 1))
}

// It has not been checked yet.
const nameOf = (value: unknown): string => (typeof value === "string" ? value : "")

// Made for one client, by the broker, and different each time.
const replies = "amq.rabbitmq.reply-to"
const serverNamed = "amq.gen-"

const templateOf = (exchange: string, queue: string): string => {
  if (exchange !== "") return exchange
  if (queue.startsWith(replies) || isReplyAddress(queue)) return replies
  return queue.startsWith(serverNamed) ? "amq.gen" : queue === "" ? "amq.default" : queue
}

const joined = (parts: ReadonlyArray<string>): string => parts.filter((part) => part !== "").join(":") || "amq.default"

const setDestination = (attributes: Attributes, exchange: string, routingKey: string, queue?: string): string => {
  const template = templateOf(queue === undefined ? exchange : "", queue ?? routingKey)
  attributes["messaging.destination.template"] = template
  // The address of somebody's channel: nobody else needs to know it.
  const key = exchange === "" && template === replies ? "" : routingKey
  attributes["messaging.destination.name"] =
    template === replies
      ? replies
      : joined(queue === undefined || queue === key ? [exchange, key] : [exchange, key, queue])
  if (key !== "") attributes["messaging.rabbitmq.destination.routing_key"] = key
  if (template === replies) attributes["messaging.destination.temporary"] = true
  if (template === "amq.gen") attributes["messaging.destination.anonymous"] = true
  return template
}

const setMessage = (
  attributes: Attributes,
  { correlationId, messageId }: { readonly correlationId?: unknown; readonly messageId?: unknown },
  content: unknown
): Attributes => {
  if (typeof messageId === "string") attributes["messaging.message.id"] = messageId
  if (typeof correlationId === "string") attributes["messaging.message.conversation_id"] = correlationId
  if (typeof content === "string") attributes["messaging.message.body.size"] = Buffer.byteLength(content)
  if (content instanceof Uint8Array) attributes["messaging.message.body.size"] = content.byteLength
  return attributes
}

const linkTo = (span: Tracer.AnySpan, attributes: Attributes = {}): Tracer.SpanLink => ({ span, attributes })

/** What a span calls a failure: the tag of an error or of its reason. Never its message. */
const errorType = (error: unknown): string =>
  error instanceof AmqpError ? error.reason._tag : failureOf(error).tag || "_OTHER"

const setError = (span: Tracer.Span, cause: Cause.Cause<unknown>): void => {
  const error = Cause.findError(cause)
  const defect = Cause.findDefect(cause)
  if (Result.isSuccess(error)) span.attribute("error.type", errorType(error.success))
  else if (Result.isSuccess(defect)) span.attribute("error.type", errorType(defect.success))
}

const withErrorType = <A, E, R>(span: Tracer.Span, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.onError(effect, (cause) => Effect.sync(() => setError(span, cause)))

// --- Publishing --------------------------------------------------------------------------------------------------------

/** A span of one publish, whose context goes along with the message unless that has one. */
export const publishing = <A, E, R>(
  message: Message,
  link: Peer | undefined,
  publish: (message: Message) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const given = Object(message) as Partial<Message>
  const { headers } = given
  const attributes = operation("publish", "send")
  const template = setDestination(attributes, nameOf(given.exchange), nameOf(given.routingKey))
  setMessage(attributes, given, given.content)
  setServer(attributes, link)
  const own = typeof headers === "object" && headers !== null ? contextOf(headers) : undefined
  return Effect.useSpan(
    `publish ${template}`,
    { kind: "producer", attributes, links: own === undefined ? [] : [linkTo(own)] },
    (span) =>
      Effect.flatMap(Current, (baggage) =>
        withErrorType(span, publish(messageWith(message, span, baggage, link?.frameMax)))
      )
  )
}

/** One span for a sequence of messages, and the context that goes along with each of them. */
export class SequenceSpan {
  readonly #span: Tracer.Span
  readonly #baggage: Baggage
  #messages = 0

  constructor(span: Tracer.Span, baggage: Baggage) {
    this.#span = span
    this.#baggage = baggage
  }

  /** Counts a message, and gives it the context, unless it has one. */
  take(message: Message, link: Peer | undefined): Message {
    this.#messages++
    return messageWith(message, this.#span, this.#baggage, link?.frameMax)
  }

  failed(reason: string): void {
    this.#span.attribute("error.type", reason)
  }

  /** To be called before the scope has closed. */
  ended(): void {
    this.#span.attribute("messaging.batch.message_count", this.#messages)
  }
}

/**
 * A span for as long as the scope is open, for all messages of a sequence: one for each would be all that a trace shows.
 * Undefined outside of any span: a sequence may go on for as long as the application, and its messages are not one trace
 * then.
 */
export const sequence = (scope: Scope.Scope, link: () => Peer | undefined): Effect.Effect<SequenceSpan | undefined> =>
  Effect.withFiber((fiber) => {
    if (!isTraced(fiber) || fiber.cache.span === undefined) return Effect.undefined
    const attributes = operation("publish", "send")
    setServer(attributes, link())
    return Effect.map(
      Effect.provideService(Effect.makeSpanScoped("publish", { kind: "producer", attributes }), Scope.Scope, scope),
      (span) => new SequenceSpan(span, fiber.getRef(Current))
    )
  })

// --- Handling ----------------------------------------------------------------------------------------------------------

/** Told why a handler has failed, if it has. */
export type OnFailure = (cause: Cause.Cause<unknown>) => void

// Handling goes on after a failure, and succeeds: what failed is to be told when the span ends.
const failures = new WeakMap<Tracer.Span, Cause.Cause<unknown>>()

const setFailure = (span: Tracer.Span, cause: Cause.Cause<unknown>): void => {
  failures.set(span, cause)
  setError(span, cause)
}

const deliveryAttributes = (delivery: TracedDelivery, attributes: Attributes): Attributes => {
  attributes["messaging.rabbitmq.message.delivery_tag"] = delivery.tag
  return setMessage(attributes, delivery.properties, delivery.content)
}

const handled = (
  name: string,
  options: Tracer.SpanOptionsNoTrace,
  baggage: Baggage,
  handle: (onFailure: OnFailure) => Effect.Effect<void>
): Effect.Effect<void> =>
  Effect.useSpan(name, options, (span) => {
    const onFailure: OnFailure = (cause) => setFailure(span, cause)
    const ended = Effect.withFiber((fiber) => {
      const failure = failures.get(span)
      if (failure === undefined) return Effect.void
      const now = fiber.getRef(References.TracerTimingEnabled) ? fiber.getRef(Clock.Clock).currentTimeNanosUnsafe() : 0n
      span.end(now, Exit.failCause(failure))
      return Effect.void
    })
    // Not that of whoever has started the consumer.
    const handling = Effect.provideService(handle(onFailure), Current, baggage)
    return Effect.andThen(Effect.withParentSpan(handling, span, { captureStackTrace: false }), ended)
  })

/**
 * A span of one delivery's handling, from its decoding until it is settled, below the context that it was published in.
 * Without one it begins a trace: a consumer may run for as long as the application, in whatever span it was started in.
 */
export const handling = (
  delivery: TracedDelivery,
  procedure: string | undefined,
  handle: (onFailure: OnFailure) => Effect.Effect<void>
): Effect.Effect<void> => {
  const attributes = operation("process", "process")
  const template = setDestination(attributes, delivery.exchange, delivery.routingKey, delivery.queue)
  if (procedure !== undefined) attributes["rpc.method"] = procedure
  setServer(attributes, delivery.channel.link)
  const { headers } = delivery.properties
  const parent = contextOf(headers)
  return handled(
    `process ${procedure ?? template}`,
    {
      kind: procedure === undefined ? "consumer" : "server",
      attributes: deliveryAttributes(delivery, attributes),
      parent,
      root: parent === undefined
    },
    BaggageHeader.ofHeaders(headers),
    handle
  )
}

/** The same of a batch. A span has one parent: this one is linked to the contexts of all its messages. */
export const handlingBatch = (
  batch: ReadonlyArray<TracedDelivery>,
  handle: (onFailure: OnFailure) => Effect.Effect<void>
): Effect.Effect<void> => {
  const { channel, queue } = batch[0]!
  const attributes = operation("process", "process")
  const template = templateOf("", queue)
  attributes["messaging.destination.template"] = template
  attributes["messaging.destination.name"] = queue
  attributes["messaging.batch.message_count"] = batch.length
  setServer(attributes, channel.link)
  const links: Array<Tracer.SpanLink> = []
  for (const delivery of batch) {
    const context = contextOf(delivery.properties.headers)
    if (context === undefined) continue
    const of: Attributes = {}
    if (delivery.routingKey !== "") of["messaging.rabbitmq.destination.routing_key"] = delivery.routingKey
    links.push(linkTo(context, deliveryAttributes(delivery, of)))
  }
  const options = { kind: "consumer", attributes, links, root: true } as const
  return handled(`process ${template}`, options, BaggageHeader.none, handle)
}

// --- Request and reply -------------------------------------------------------------------------------------------------

/** A span of a request, until its reply has been read. What runs inside is below it. */
export const calling = <A, E, R>(
  procedure: { readonly name: string; readonly exchange: string; readonly routingKey: string },
  correlationId: string,
  link: Peer | undefined,
  call: (span: Tracer.Span, baggage: Baggage) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const attributes = operation("call", "send")
  setDestination(attributes, procedure.exchange, procedure.routingKey)
  attributes["rpc.method"] = procedure.name
  attributes["messaging.message.conversation_id"] = correlationId
  setServer(attributes, link)
  return Effect.useSpan(`call ${procedure.name}`, { kind: "client", attributes }, (span) =>
    Effect.flatMap(Current, (baggage) =>
      withErrorType(
        span,
        Effect.withParentSpan(call(span, baggage), span, { captureStackTrace: false }) as Effect.Effect<A, E, R>
      )
    )
  )
}

const spanOf = (fiber: Fiber.Fiber<unknown, unknown> | undefined): Tracer.Span | undefined => {
  const span = fiber?.cache.span
  return span?._tag === "Span" && isTraced(fiber!) ? span : undefined
}

/** What a server answers, on its span. A failure that the procedure declares is an answer like any other. */
export const answers = (fiber: Fiber.Fiber<unknown, unknown> | undefined, type: string | undefined): void =>
  spanOf(fiber)?.attribute("amqp.rpc.reply", type)

/** A server's handler has died, which is answered, too. */
export const died = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const span = spanOf(fiber)
    if (span !== undefined) setFailure(span, cause)
    return Effect.void
  })
