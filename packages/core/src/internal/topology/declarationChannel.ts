/** A channel for declarations only, replaced when the broker has closed it. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AmqpChannel } from "../../model/channel.ts"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpError } from "../../model/error.ts"
import type { Attribution } from "../connection/attribution.ts"
import { openChannel } from "../channel/openChannel.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import { Lease } from "../channel/lease.ts"
import type { Link } from "../connection/link.ts"
import { connectionInternals } from "../connection/connectionInternals.ts"

/**
 * The channel that a series of declarations uses.
 *
 * It is not a channel of the pool: borrowers that publish may hold all of these, and publishers wait for the
 * declarations.
 */
export interface DeclarationChannel {
  /** Opens a channel, unless the last one is still usable. */
  readonly open: Effect.Effect<AmqpChannel, AmqpError>
  /** Whether this channel caused the end of the connection. */
  readonly attribution: Attribution
}

/** Runs `body` with a session on this link, and closes the session's channel at the end. */
export const withDeclarationChannel = <A, E>(
  connection: AmqpConnection["Service"],
  link: Link,
  body: (session: DeclarationChannel) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.gen(function* () {
    const { closeTimeout, continuationTimeout, publishTimeout } = connection.config
    const fork = Effect.runForkWith(yield* Effect.context())
    const deadlines = new Deadlines(yield* Clock.Clock, fork)
    const lease = new Lease({
      continuationTimeout,
      publishTimeout: Duration.toMillis(publishTimeout),
      deadlines,
      queues: connectionInternals(connection).queues
    })
    const close = Effect.suspend(() => lease.end()?.close(closeTimeout) ?? Effect.void)
    const open = Effect.suspend(() =>
      // A channel whose reply is outstanding would take that reply for the reply to the next request.
      lease.channel?.isReusable === true
        ? Effect.succeed(lease as unknown as AmqpChannel)
        : close.pipe(
            Effect.andThen(
              openChannel(link, "regular", continuationTimeout, (opened) => {
                // If this is interrupted in the same turn, the channel is closed with the session.
                lease.begin(opened)
              })
            ),
            Effect.as(lease as unknown as AmqpChannel)
          )
    )
    const session: DeclarationChannel = {
      open,
      get attribution() {
        return lease.channel?.attribution ?? "none"
      }
    }
    return yield* Effect.ensuring(body(session), close)
  })
