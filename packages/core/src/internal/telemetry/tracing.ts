/**
 * Spans of publishing, handling and calling, by OpenTelemetry's conventions
 * (https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/).
 * Spans are opened only where a tracer is provided: Effect's default tracer exports nothing. Untraced callers pay one
 * check of the fiber per publish, and untraced consumers not even that.
 * Span names, and `messaging.destination.template`, use the exchange, or the queue where there is no exchange. Routing
 * keys may contain anything, and tools group spans by name. Attributes have the whole destination.
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
import type { Delivery, Message } from "../../model/message.ts"
import * as BaggageHeader from "./baggageHeader.ts"
import { failureOf } from "../message/failure.ts"
import { isReplyAddress } from "../wire/directReply.ts"
import { extractContext, injectContext } from "./tracingContext.ts"

type Attributes = Record<string, unknown>

/** Whether spans of this fiber are exported. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean => {
  const { tracer, tracerEnabled } = fiber.cache
  return (
    tracer !== undefined && tracer !== Tracer.nativeTracer && tracerEnabled && !fiber.getRef(Tracer.DisablePropagation)
  )
}

/** Whether spans of the current fiber are exported. */
export const isTracingEnabled: Effect.Effect<boolean> = Effect.withFiber((fiber) => Effect.succeed(isTraced(fiber)))

// --- Attributes --------------------------------------------------------------------------------------------------------

const operation = (name: string, type: "create" | "send" | "process"): Attributes => ({
  "messaging.system": "rabbitmq",
  "messaging.operation.name": name,
  "messaging.operation.type": type
})

/** The broker's address and the negotiated frame-max. */
interface Peer {
  /** The address, as `host:port`. */
  readonly peer: string
  readonly frameMax: number
}

/** The part of a delivery that spans use. */
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

// Spans open before the message is checked, so the value may be of any type.
const nameOf = (value: unknown): string => (typeof value === "string" ? value : "")

// The broker generates these names, a different one for each client.
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
  // A reply address identifies the channel of one client: it does not belong in the telemetry of another one.
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

/** Returns the `error.type` of a failure: the tag of an error or of its reason, never its message. */
const errorType = (error: unknown): string => failureOf(error).tag || "_OTHER"

/** The `error.type` of a cause; `undefined` if it is an interruption. */
export const errorTypeIn = (cause: Cause.Cause<unknown>): string | undefined => {
  const error = Cause.findError(cause)
  if (Result.isSuccess(error)) return errorType(error.success)
  const defect = Cause.findDefect(cause)
  return Result.isSuccess(defect) ? errorType(defect.success) : undefined
}

const setError = (span: Tracer.Span, cause: Cause.Cause<unknown>): void => {
  const type = errorTypeIn(cause)
  if (type !== undefined) span.attribute("error.type", type)
}

const withErrorType = <A, E, R>(span: Tracer.Span, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.onError(effect, (cause) => Effect.sync(() => setError(span, cause)))

// --- Publishing --------------------------------------------------------------------------------------------------------

/** Opens a span of one publish, and adds its context to the message unless the message has one. */
export const withPublishSpan = <A, E, R>(
  message: Message,
  link: Peer | undefined,
  publish: (message: Message) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => withMessageSpan(operation("publish", "send"), message, link, publish)

/**
 * Opens a span of a message that is created now and published later, and adds its context to the message unless the
 * message has one. Untraced callers get the message as it is.
 */
export const withCreateSpan = <A, E, R>(
  message: Message,
  create: (message: Message) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) =>
    isTraced(fiber) ? withMessageSpan(operation("create", "create"), message, undefined, create) : create(message)
  )

const withMessageSpan = <A, E, R>(
  attributes: Attributes,
  message: Message,
  link: Peer | undefined,
  use: (message: Message) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const given = Object(message) as Partial<Message>
  const { headers } = given
  const template = setDestination(attributes, nameOf(given.exchange), nameOf(given.routingKey))
  setMessage(attributes, given, given.content)
  setServer(attributes, link)
  const own = typeof headers === "object" && headers !== null ? extractContext(headers) : undefined
  return Effect.useSpan(
    `${attributes["messaging.operation.name"] as string} ${template}`,
    { kind: "producer", attributes, links: own === undefined ? [] : [linkTo(own)] },
    (span) =>
      Effect.flatMap(Current, (baggage) =>
        withErrorType(span, use(injectContext(message, span, baggage, link?.frameMax)))
      )
  )
}

/** One span for a sequence of messages. It adds the span's context to each of them. */
export class SequenceSpan {
  readonly #span: Tracer.Span
  readonly #baggage: Baggage
  #messages = 0

  constructor(span: Tracer.Span, baggage: Baggage) {
    this.#span = span
    this.#baggage = baggage
  }

  /** Counts a message, and adds the context unless the message has one. */
  take(message: Message, link: Peer | undefined): Message {
    this.#messages++
    return injectContext(message, this.#span, this.#baggage, link?.frameMax)
  }

  failed(reason: string): void {
    this.#span.attribute("error.type", reason)
  }

  /** Records the number of messages. Must be called before the scope closes. */
  ended(): void {
    this.#span.attribute("messaging.batch.message_count", this.#messages)
  }
}

/**
 * Opens one span for all messages of a sequence, until the scope closes: with one span per message, a trace would show
 * nothing else. Returns `undefined` when there is no parent span, because a sequence may run as long as the
 * application, and its messages are then not one trace.
 */
export const makeSequenceSpan = (
  scope: Scope.Scope,
  link: () => Peer | undefined
): Effect.Effect<SequenceSpan | undefined> =>
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

/** Called with the cause when a handler has failed. */
export type OnFailure = (cause: Cause.Cause<unknown>) => void

// Handling continues after a handler's failure, and succeeds. The failure is kept here until the span ends.
const failures = new WeakMap<Tracer.Span, Cause.Cause<unknown>>()

const setFailure = (span: Tracer.Span, cause: Cause.Cause<unknown>): void => {
  failures.set(span, cause)
  setError(span, cause)
}

const deliveryAttributes = (delivery: TracedDelivery, attributes: Attributes): Attributes => {
  attributes["messaging.rabbitmq.message.delivery_tag"] = delivery.tag
  return setMessage(attributes, delivery.properties, delivery.content)
}

const withHandlerSpan = (
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
    // The handler gets the baggage of the delivery, not that of the fiber that started the consumer.
    const handling = Effect.provideService(handle(onFailure), Current, baggage)
    return Effect.andThen(Effect.withParentSpan(handling, span, { captureStackTrace: false }), ended)
  })

/**
 * Opens a span of one delivery's handling, from decoding to settlement. Its parent is the context that the message was
 * published in. Without one it starts a new trace, because a consumer may run as long as the application, inside an
 * unrelated span.
 */
export const withProcessSpan = (
  delivery: TracedDelivery,
  procedure: string | undefined,
  handle: (onFailure: OnFailure) => Effect.Effect<void>
): Effect.Effect<void> => {
  const attributes = operation("process", "process")
  const template = setDestination(attributes, delivery.exchange, delivery.routingKey, delivery.queue)
  if (procedure !== undefined) attributes["rpc.method"] = procedure
  setServer(attributes, delivery.channel.link)
  const { headers } = delivery.properties
  const parent = extractContext(headers)
  return withHandlerSpan(
    `process ${procedure ?? template}`,
    {
      kind: procedure === undefined ? "consumer" : "server",
      attributes: deliveryAttributes(delivery, attributes),
      parent,
      root: parent === undefined
    },
    BaggageHeader.extract(headers),
    handle
  )
}

/**
 * Opens a span of a batch's handling. A span has only one parent, so this one is linked to the contexts of all its
 * messages.
 */
export const withBatchProcessSpan = (
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
    const context = extractContext(delivery.properties.headers)
    if (context === undefined) continue
    const of: Attributes = {}
    if (delivery.routingKey !== "") of["messaging.rabbitmq.destination.routing_key"] = delivery.routingKey
    links.push(linkTo(context, deliveryAttributes(delivery, of)))
  }
  const options = { kind: "consumer", attributes, links, root: true } as const
  return withHandlerSpan(`process ${template}`, options, BaggageHeader.emptyBaggage, handle)
}

// --- Request and reply -------------------------------------------------------------------------------------------------

/** Opens a span of a request, until its reply has been read. The call runs inside it. */
export const withCallSpan = <A, E, R>(
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

/** Records a server's reply on its span. A failure that the procedure declares is a reply like any other. */
export const recordReply = (fiber: Fiber.Fiber<unknown, unknown> | undefined, type: string | undefined): void =>
  spanOf(fiber)?.attribute("amqp.rpc.reply", type)

/** Records that a server's handler died. The client gets a reply in that case too. */
export const recordDefect = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const span = spanOf(fiber)
    if (span !== undefined) setFailure(span, cause)
    return Effect.void
  })
