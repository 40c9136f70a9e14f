/** A value of Effect 4 that changes, for reading in Effect 3. */
import * as SubscriptionRef4 from "@effect-amqp/effect4/SubscriptionRef"
import * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import * as Subscribable from "effect/Subscribable"
import type { AmqpInside } from "./channels.ts"
import { toStream3 } from "./streams.ts"

export const toSubscribable = <A, B = A>(
  inside: AmqpInside,
  ref: SubscriptionRef4.SubscriptionRef<A>,
  map: (value: A) => B = (value) => value as never
): Subscribable.Subscribable<B> =>
  Subscribable.make({
    get: Effect.sync(() => map(ref.value)),
    changes: toStream3(inside, SubscriptionRef4.changes(ref), map) as Stream.Stream<B>
  })
