/** The publisher in Effect 3, and its sequences of messages. */
import type { Amqp as CoreAmqp, AmqpPublisher as Core } from "@effect-amqp/core"
import * as Result4 from "@effect-amqp/effect4/Result"
import type * as Stream4 from "@effect-amqp/effect4/Stream"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import type { Confirmed, PublishOptions } from "../model/channel.ts"
import type { AmqpError } from "../model/error.ts"
import type { Message } from "../model/message.ts"
import type { PublishAllOptions } from "../model/publisher.ts"
import type { AmqpInside } from "./channels.ts"
import { toError3 } from "./errors.ts"
import { run4 } from "./run.ts"
import { toStream3, toStream4 } from "./streams.ts"
import { toSubscribable } from "./subscribable.ts"
import { toMessage4, toOptions4 } from "./values.ts"

export const makePublisher = (inside: AmqpInside, publisher: Core.AmqpPublisher["Service"]) => ({
  publish: (message: Message, options?: PublishOptions): Effect.Effect<Confirmed, AmqpError> =>
    run4(inside, publisher.publish(toMessage4(message), options === undefined ? undefined : toOptions4(options))),
  flow: toSubscribable(inside, publisher.flow),
  stats: run4<CoreAmqp.Amqp, Core.Stats, never>(inside, publisher.stats)
})

type PublishAll = (
  messages: Iterable<Core.Outcome["message"]> | Stream4.Stream<Core.Outcome["message"], unknown>,
  options: never
) => Stream4.Stream<Core.Outcome | { readonly _tag: "Confirmed" }, unknown, Core.AmqpPublisher>

export const publishAllOn = <E, R>(
  inside: AmqpInside,
  publishAll: PublishAll,
  messages: Iterable<Message> | Stream.Stream<Message, E, R>,
  options: PublishAllOptions | undefined
): Stream.Stream<never, E | AmqpError, R> => {
  // What an outcome names is the application's own message.
  const originals = new WeakMap<object, Message>()
  const toOwn = (message: Message) => {
    const own = toMessage4(message)
    if (own !== message) originals.set(own, message)
    return own
  }
  const toElement = (element: Core.Outcome | { readonly _tag: "Confirmed" }) =>
    "result" in element
      ? {
          message: originals.get(element.message) ?? element.message,
          result: Result4.isSuccess(element.result)
            ? Either.right(element.result.success)
            : Either.left(toError3(element.result.failure))
        }
      : element
  const run = (source: Iterable<Message> | Stream4.Stream<Message, unknown>) =>
    toStream3(inside, publishAll(source as never, toOptions4(options)), toElement) as Stream.Stream<
      never,
      E | AmqpError
    >
  if (!isStream<E, R>(messages)) return run(mapped(messages, toOwn) as Iterable<Message>)
  return Stream.unwrap(
    Effect.map(Effect.runtime<R>(), (runtime: Runtime.Runtime<R>) =>
      run(toStream4(runtime, messages, toOwn) as unknown as Stream4.Stream<Message, unknown>)
    )
  )
}

const isStream = <E, R>(
  messages: Iterable<Message> | Stream.Stream<Message, E, R>
): messages is Stream.Stream<Message, E, R> =>
  typeof messages === "object" && messages !== null && Stream.StreamTypeId in messages

/** Lazily, because an iterable may be endless. Anything else is left to the core, which refuses it. */
const mapped = <A, B>(source: Iterable<A>, map: (value: A) => B): Iterable<B> =>
  typeof source === "object" && source !== null && Symbol.iterator in source
    ? {
        *[Symbol.iterator]() {
          for (const value of source) yield map(value)
        }
      }
    : (source as never)
