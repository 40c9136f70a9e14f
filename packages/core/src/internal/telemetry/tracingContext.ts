/**
 * Trace context in the headers of messages, as W3C has it for HTTP (https://www.w3.org/TR/trace-context/) and drafts it for
 * AMQP (https://w3c.github.io/trace-context-amqp/): `traceparent`, and `tracestate` if there is one. Beside them `baggage`.
 */
import * as Context from "effect/Context"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import type { Baggage } from "../../model/baggage.ts"
import type { FieldTable, Headers, Message } from "../../model/message.ts"
import * as BaggageHeader from "./baggageHeader.ts"
import { fitsHeaders } from "../wire/properties.ts"
import { isRecord } from "../wire/fieldTable.ts"
import { deriveReceived } from "../wire/received.ts"

const parent = "traceparent"
const state = "tracestate"

// W3C: a later version may have more fields, and begins with these; version ff is none. Ids of nothing but zeros are none.
const format = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/

// What has to be passed on, at least: longer ones may be dropped.
const longestState = 512

/** What vendors have added to a trace's context, kept beside the context that came with a message. */
const TraceState = Context.Reference<string | undefined>("@effect-amqp/core/internal/TraceState", {
  defaultValue: () => undefined
})

// Some clients send texts as byte arrays.
const textOf = (value: unknown): string | undefined =>
  typeof value === "string" ? value : value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : undefined

/** The context that a message was published in; undefined if it does not say, or not in W3C's words. */
export const contextOf = (headers: Headers): Tracer.ExternalSpan | undefined => {
  const text = textOf(headers[parent])
  const found = text === undefined ? null : format.exec(text)
  if (found === null) return undefined
  const [, version, traceId, spanId, flags, more] = found
  if (version === "00" && more !== undefined) return undefined
  const vendors = textOf(headers[state])
  return Tracer.externalSpan({
    traceId: traceId!,
    spanId: spanId!,
    sampled: (Number.parseInt(flags!, 16) & 1) === 1,
    annotations:
      vendors === undefined || vendors === "" || vendors.length > longestState
        ? Context.empty()
        : Context.add(Context.empty(), TraceState, vendors)
  })
}

/** The state that came with the context that a span descends from. */
const stateOf = (span: Tracer.AnySpan): string | undefined => {
  let each: Tracer.AnySpan | undefined = span
  while (each !== undefined && each._tag === "Span") each = Option.getOrUndefined(each.parent)
  return each === undefined ? undefined : Context.get(each.annotations, TraceState)
}

/**
 * Headers with the context of a span; undefined if they are to stay as they are: they have a context already, the
 * application's or the first publish's, or they are no headers, of which the message's check will tell.
 */
export const headersWith = (headers: unknown, span: Tracer.AnySpan, baggage: Baggage): FieldTable | undefined => {
  if (headers !== undefined) {
    if (typeof headers !== "object" || headers === null || !isRecord(headers)) return undefined
    if ((headers as FieldTable)[parent] !== undefined) return undefined
  }
  const context = `00-${span.traceId.padStart(32, "0")}-${span.spanId}-${span.sampled ? "01" : "00"}`
  // A tracer of somebody's own may have other ids.
  if (!format.test(context)) return undefined
  const added: Record<string, string> = { [parent]: context }
  const vendors = stateOf(span)
  if (vendors !== undefined) added[state] = vendors
  const members = BaggageHeader.format(baggage)
  if (members !== undefined && (headers as FieldTable | undefined)?.[BaggageHeader.name] === undefined) {
    added[BaggageHeader.name] = members
  }
  const all = { ...(headers as FieldTable | undefined), ...added }
  deriveReceived(all, headers as FieldTable | undefined)
  return all
}

/** The message with the context of a span in its headers, and with the baggage, where they have room for it. */
export const messageWith = (
  message: Message,
  span: Tracer.AnySpan,
  baggage: Baggage,
  frameMax: number | undefined
): Message => {
  if (typeof message !== "object" || message === null) return message
  const headers = headersWith(message.headers, span, baggage)
  if (headers === undefined) return message
  // Without others and without baggage there is always room: a frame has at least 4096 bytes.
  if ((message.headers !== undefined || baggage.size > 0) && !fitsHeaders(message, headers, frameMax)) {
    return baggage.size > 0 ? messageWith(message, span, BaggageHeader.none, frameMax) : message
  }
  const copy = { ...message, headers }
  // What a message inherits is not checked as what it has: its prototype stays.
  const prototype = Object.getPrototypeOf(message) as object | null
  return prototype === Object.prototype
    ? copy
    : (Object.create(prototype, Object.getOwnPropertyDescriptors(copy)) as Message)
}
