/** Log annotations that identify a connection, and a channel where there is one. */
import type * as References from "effect/References"
import type * as Tracer from "effect/Tracer"
import type { AmqpConfig, Host } from "../../model/config.ts"

type Annotations = Readonly<Record<string, unknown>>

export const peerOf = ({ host, port }: Host): string => `${host}:${port}`

/** Annotations of a connection, before it is connected to one of its hosts. */
export const connectionAnnotations = ({ connectionName, hosts }: AmqpConfig): Annotations => ({
  "amqp.connection": connectionName ?? peerOf(hosts[0])
})

/** The part of a channel that identifies it. */
interface Located {
  readonly driver: { readonly number: number }
  readonly link: { readonly name: string | undefined; readonly peer: string; readonly generation: number }
}

/**
 * Annotations of a channel. The channel number is unique only on one link, and a connection may have had several: the
 * generation tells them apart.
 */
export const channelAnnotations = ({ driver, link }: Located): Annotations => ({
  "amqp.connection": link.name ?? link.peer,
  "amqp.connection.generation": link.generation,
  "amqp.channel": driver.number
})

// Number of names shown. The innermost ones identify the code.
const mostNames = 5

/**
 * Where code ran, as Effect knows it: the names of the surrounding `Effect.fn` and `Effect.withSpan`, innermost first,
 * and their source location. It is read only when it is logged, and costs nothing before.
 */
export const originAnnotations = (
  frame: References.StackFrame | undefined,
  span: Tracer.AnySpan | undefined
): Annotations => {
  const names: Array<string> = []
  let at: string | undefined
  for (let each = frame; each !== undefined && names.length < mostNames; each = each.parent) {
    // `Effect.fn` adds two frames: the call and the definition.
    if (each.name.endsWith(" (definition)")) continue
    names.push(each.name)
    at ??= each.stack()?.trim()
  }
  return {
    borrowedIn: names.length === 0 ? "no Effect.fn or Effect.withSpan" : names.join(" < "),
    ...(at === undefined ? {} : { at }),
    ...(span === undefined ? {} : { traceId: span.traceId, spanId: span.spanId })
  }
}
