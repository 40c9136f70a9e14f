/** A channel to declare on, that is nobody else's, and another one when the broker has closed it. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { AmqpChannel } from "../../model/channel.ts"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpError } from "../../model/error.ts"
import type { Blame } from "../connection/blame.ts"
import { openChannel } from "../channel/opening.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import { Lease } from "../channel/lease.ts"
import type { Link } from "../connection/link.ts"
import { linksOf } from "../connection/links.ts"

/**
 * Not on one of the pool's: they may all be lent to borrowers who publish meanwhile, and publishers wait for the
 * declarations.
 */
export interface Session {
  /** Opens a channel, unless the last one can still be used. */
  readonly open: Effect.Effect<AmqpChannel, AmqpError>
  /** Whether its channel is to blame for the end of the connection. */
  readonly blame: Blame
}

/** A session on this link, which ends with `body`. */
export const during = <A, E>(
  connection: AmqpConnection["Service"],
  link: Link,
  body: (session: Session) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.gen(function* () {
    const { closeTimeout, continuationTimeout, publishTimeout } = connection.config
    const fork = Effect.runForkWith(yield* Effect.context())
    const deadlines = new Deadlines(yield* Clock.Clock, fork)
    const lease = new Lease({
      continuationTimeout,
      publishTimeout: Duration.toMillis(publishTimeout),
      deadlines,
      queues: linksOf(connection).queues
    })
    const close = Effect.suspend(() => lease.end()?.close(closeTimeout) ?? Effect.void)
    const open = Effect.suspend(() =>
      // One whose answer has not come would take it for the next one.
      lease.channel?.isFit === true
        ? Effect.succeed(lease as unknown as AmqpChannel)
        : close.pipe(
            Effect.andThen(
              openChannel(link, "regular", continuationTimeout, (opened) => {
                // Given up in the same turn, it is closed with the session.
                lease.begin(opened)
              })
            ),
            Effect.as(lease as unknown as AmqpChannel)
          )
    )
    const session: Session = {
      open,
      get blame() {
        return lease.channel?.blame ?? "none"
      }
    }
    return yield* Effect.ensuring(body(session), close)
  })
