/**
 * Trace context in message headers, in W3C's format for HTTP (https://www.w3.org/TR/trace-context/), which W3C also
 * drafts for AMQP (https://w3c.github.io/trace-context-amqp/): `traceparent`, `tracestate` if there is one, and
 * `baggage`.
 */
import * as Context from "effect/Context"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import type { Baggage } from "../../model/baggage.ts"
import type { FieldTable, Headers, Message } from "../../model/message.ts"
import * as BaggageHeader from "./baggageHeader.ts"
import { fitsHeaders } from "../wire/properties.ts"
import { isPlainObject } from "../wire/fieldTable.ts"
import { copyReceivedBytes } from "../wire/receivedBytes.ts"

const traceparentHeader = "traceparent"
const tracestateHeader = "tracestate"

// W3C: a later version may have more fields, but starts with these. Version ff is invalid, and so are ids that consist
// of zeros.
const format = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/

// W3C: the least length that must be propagated. Longer values may be dropped.
const maxTraceStateLength = 512

/** The vendors' part of a trace context (`tracestate`), stored with the context of a received message. */
const TraceState = Context.Reference<string | undefined>("@effect-amqp/core/internal/TraceState", {
  defaultValue: () => undefined
})

// Some clients send strings as byte arrays.
const textOf = (value: unknown): string | undefined =>
  typeof value === "string" ? value : value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : undefined

/** Returns the context that a message was published in; `undefined` if it has none, or an invalid one. */
export const extractContext = (headers: Headers): Tracer.ExternalSpan | undefined => {
  const text = textOf(headers[traceparentHeader])
  const found = text === undefined ? null : format.exec(text)
  if (found === null) return undefined
  const [, version, traceId, spanId, flags, more] = found
  if (version === "00" && more !== undefined) return undefined
  const vendors = textOf(headers[tracestateHeader])
  return Tracer.externalSpan({
    traceId: traceId!,
    spanId: spanId!,
    sampled: (Number.parseInt(flags!, 16) & 1) === 1,
    annotations:
      vendors === undefined || vendors === "" || vendors.length > maxTraceStateLength
        ? Context.empty()
        : Context.add(Context.empty(), TraceState, vendors)
  })
}

/** Returns the `tracestate` of the received context that a span descends from. */
const stateOf = (span: Tracer.AnySpan): string | undefined => {
  let each: Tracer.AnySpan | undefined = span
  while (each !== undefined && each._tag === "Span") each = Option.getOrUndefined(each.parent)
  return each === undefined ? undefined : Context.get(each.annotations, TraceState)
}

/**
 * Returns the headers with a span's context added; `undefined` if they must not change. That is the case when they
 * already have a context, set by the application or by the first publish, and when they are not a header table, which
 * the check of the message reports.
 */
export const injectHeaders = (headers: unknown, span: Tracer.AnySpan, baggage: Baggage): FieldTable | undefined => {
  if (headers !== undefined) {
    if (typeof headers !== "object" || headers === null || !isPlainObject(headers)) return undefined
    if ((headers as FieldTable)[traceparentHeader] !== undefined) return undefined
  }
  const context = `00-${span.traceId.padStart(32, "0")}-${span.spanId}-${span.sampled ? "01" : "00"}`
  // A custom tracer may use ids of another format.
  if (!format.test(context)) return undefined
  const added: Record<string, string> = { [traceparentHeader]: context }
  const vendors = stateOf(span)
  if (vendors !== undefined) added[tracestateHeader] = vendors
  const members = BaggageHeader.format(baggage)
  if (members !== undefined && (headers as FieldTable | undefined)?.[BaggageHeader.headerName] === undefined) {
    added[BaggageHeader.headerName] = members
  }
  const all = { ...(headers as FieldTable | undefined), ...added }
  copyReceivedBytes(all, headers as FieldTable | undefined)
  return all
}

/**
 * Adds a span's context and the baggage to a message's headers. Leaves out the baggage, or both, if they do not fit.
 */
export const injectContext = (
  message: Message,
  span: Tracer.AnySpan,
  baggage: Baggage,
  frameMax: number | undefined
): Message => {
  if (typeof message !== "object" || message === null) return message
  const headers = injectHeaders(message.headers, span, baggage)
  if (headers === undefined) return message
  // The context alone always fits: a frame has at least 4096 bytes.
  if ((message.headers !== undefined || baggage.size > 0) && !fitsHeaders(message, headers, frameMax)) {
    return baggage.size > 0 ? injectContext(message, span, BaggageHeader.emptyBaggage, frameMax) : message
  }
  const copy = { ...message, headers }
  // The copy keeps the prototype, so that inherited values stay inherited: they are checked differently from own ones.
  const prototype = Object.getPrototypeOf(message) as object | null
  return prototype === Object.prototype
    ? copy
    : (Object.create(prototype, Object.getOwnPropertyDescriptors(copy)) as Message)
}
