/** What lines of the log say about where they belong: by connection, and by channel where there is one. */
import type * as References from "effect/References"
import type * as Tracer from "effect/Tracer"
import type { AmqpConfig, Host } from "../../model/config.ts"

type Annotations = Readonly<Record<string, unknown>>

export const peerOf = ({ host, port }: Host): string => `${host}:${port}`

/** A connection, before it is known to which of its hosts. */
export const ofConnection = ({ connectionName, hosts }: AmqpConfig): Annotations => ({
  "amqp.connection": connectionName ?? peerOf(hosts[0])
})

/** A channel, as far as it says where it is. */
interface Located {
  readonly driver: { readonly number: number }
  readonly link: { readonly name: string | undefined; readonly peer: string; readonly generation: number }
}

/** A channel: its number means something on that connection only, of which there may have been several. */
export const ofChannel = ({ driver, link }: Located): Annotations => ({
  "amqp.connection": link.name ?? link.peer,
  "amqp.connection.generation": link.generation,
  "amqp.channel": driver.number
})

// A chain of names is read from its near end.
const mostNames = 5

/**
 * Where something was done, as Effect knows it: the names of `Effect.fn` and `Effect.withSpan` around it, the innermost
 * first, and where in the sources that was. Read when it is told: until then it costs nothing.
 */
export const ofOrigin = (frame: References.StackFrame | undefined, span: Tracer.AnySpan | undefined): Annotations => {
  const names: Array<string> = []
  let at: string | undefined
  for (let each = frame; each !== undefined && names.length < mostNames; each = each.parent) {
    // Effect.fn has two: where it was called, and where it was written.
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
