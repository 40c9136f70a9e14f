/** What only the consumer of a stream has: a position, a store for it, and a way to end the consumer. */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpError } from "../../model/error.ts"
import type { ChannelTimeouts } from "../channel/channelHandle.ts"
import { connectionInternals } from "../connection/connectionInternals.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import type { SubscriptionSettings } from "./options.ts"
import type { Source } from "./source.ts"
import { StreamPosition } from "./streamPosition.ts"
import { OffsetSaver } from "./offsetSaver.ts"

/** The position of a consumer; `undefined` if its queue is not a stream. */
export const positionOf = (
  { reading, start }: SubscriptionSettings,
  clock: Clock.Clock,
  timeouts: ChannelTimeouts,
  measures: ConsumerMeasures
): StreamPosition | undefined =>
  reading === undefined
    ? undefined
    : new StreamPosition(start.queue, reading.offset, measures, {
        passing: () => timeouts.deadlines.now,
        ofDay: () => clock.currentTimeMillisUnsafe()
      })

/** The parts of a consumer's run that depend on the position in a stream. */
export interface StreamReader {
  /** Runs before the first subscription. */
  readonly prepare: Effect.Effect<void>
  /** Fails when the position ends the consumer. */
  readonly ended: Effect.Effect<never, AmqpError>
  /** Runs when nothing is handled any more, within `timeout` milliseconds. */
  readonly finish: (timeout: number) => Effect.Effect<void>
}

const noReader: StreamReader = { prepare: Effect.void, ended: Effect.never, finish: () => Effect.void }

/** Makes the reader of a consumer, which saves the position until the scope closes. */
export const makeStreamReader = (
  position: StreamPosition | undefined,
  settings: SubscriptionSettings,
  connection: AmqpConnection["Service"],
  source: Source
): Effect.Effect<StreamReader, never, Scope.Scope> => {
  if (position === undefined) return Effect.succeed(noReader)
  const { ended } = position
  const saving = settings.reading?.saving
  if (saving === undefined) return Effect.succeed({ ...noReader, ended })
  const { continuationTimeout } = connection.config
  const saved = new OffsetSaver(position, saving, continuationTimeout, connectionInternals(connection).conditions, () =>
    source.resume()
  )
  return Effect.as(Effect.forkScoped(saved.run, { startImmediately: true }), {
    prepare: saved.load,
    ended,
    finish: (timeout) => saved.finish(timeout)
  })
}
