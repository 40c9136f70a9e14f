/** What a consumer of a stream has beside that of another queue: a position, a store for it, and an end of its own. */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpError } from "../../model/error.ts"
import type { Terms } from "../channel/handle.ts"
import { linksOf } from "../connection/links.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import type { Subscribing } from "./options.ts"
import type { Source } from "./source.ts"
import { StreamPosition } from "./streamPosition.ts"
import { StreamSaving } from "./streamSaving.ts"

/** The position of a consumer; `undefined` if what it consumes is no stream. */
export const positionOf = (
  { reading, start }: Subscribing,
  clock: Clock.Clock,
  terms: Terms,
  measures: ConsumerMeasures
): StreamPosition | undefined =>
  reading === undefined
    ? undefined
    : new StreamPosition(start.queue, reading.offset, measures, {
        passing: () => terms.deadlines.now,
        ofDay: () => clock.currentTimeMillisUnsafe()
      })

/** How a consumer runs, as far as the position of a stream decides it. */
export interface Reader {
  /** Before the first subscription. */
  readonly prepare: Effect.Effect<void>
  /** Fails when the position ends the consumer. */
  readonly ended: Effect.Effect<never, AmqpError>
  /** When nothing is handled any more: takes at most so many milliseconds. */
  readonly finish: (timeout: number) => Effect.Effect<void>
}

const noReader: Reader = { prepare: Effect.void, ended: Effect.never, finish: () => Effect.void }

/** Saves its position until the scope closes. */
export const readerOf = (
  position: StreamPosition | undefined,
  settings: Subscribing,
  connection: AmqpConnection["Service"],
  source: Source
): Effect.Effect<Reader, never, Scope.Scope> => {
  if (position === undefined) return Effect.succeed(noReader)
  const { ended } = position
  const saving = settings.reading?.saving
  if (saving === undefined) return Effect.succeed({ ...noReader, ended })
  const { continuationTimeout } = connection.config
  const saved = new StreamSaving(position, saving, continuationTimeout, linksOf(connection).conditions, () =>
    source.resume()
  )
  return Effect.as(Effect.forkScoped(saved.run, { startImmediately: true }), {
    prepare: saved.load,
    ended,
    finish: (timeout) => saved.finish(timeout)
  })
}
