/** Declaring on a channel that is nobody else's. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AmqpChannel } from "../../AmqpChannel.ts"
import type { AmqpConnection } from "../../AmqpConnection.ts"
import type { AmqpError } from "../../AmqpError.ts"
import * as Channels from "../channel.ts"
import { Deadlines } from "../deadlines.ts"
import { Lease } from "../lease.ts"
import { linksOf } from "../links.ts"

/**
 * Not on one of the pool's: they may all be lent to borrowers who publish meanwhile, and publishers wait for this
 * declaration.
 */
export const onOwnChannel = Effect.fnUntraced(function* (
  connection: AmqpConnection["Service"],
  declare: (channel: AmqpChannel) => Effect.Effect<void, AmqpError>
) {
  const { closeTimeout, continuationTimeout, publishTimeout } = connection.config
  const fork = Effect.runForkWith(yield* Effect.context())
  const lease = new Lease({
    continuationTimeout,
    publishTimeout: Duration.toMillis(publishTimeout),
    deadlines: new Deadlines(yield* Clock.Clock, fork),
    queues: linksOf(connection).queues
  })
  yield* Effect.flatMap(linksOf(connection).next, (link) =>
    Channels.open(link, "regular", continuationTimeout, (channel) => lease.begin(channel))
  ).pipe(
    Effect.andThen(Effect.suspend(() => declare(lease as unknown as AmqpChannel))),
    Effect.ensuring(Effect.suspend(() => lease.end()?.close(closeTimeout) ?? Effect.void))
  )
})
