/** Consumers of the core with handlers of Effect 3. */
import { AmqpConsumer as Core, type AmqpError as CoreError, type AmqpChannel as CoreChannel } from "@effect-amqp/core"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Effect from "effect/Effect"
import type * as Runtime from "effect/Runtime"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AmqpChannel } from "../model/channel.ts"
import type { BatchOptions, ConsumeOptions, Delivery, End, StreamOptions } from "../model/consumer.ts"
import type * as AmqpError from "../model/error.ts"
import type { DeliveredProperties } from "../model/message.ts"
import { type AmqpInside, makeChannel3 } from "./channels.ts"
import { toAny3, toAny4, toError3 } from "./errors.ts"
import { toStore4 } from "./offsets.ts"
import { refuse } from "./refusals.ts"
import { run3, run4, runScoped3 } from "./run.ts"
import { CallerRuntime, toSchema4 } from "./schemas.ts"
import { toStream3 } from "./streams.ts"
import { adoptTable, toOptions4 } from "./values.ts"

/** A delivery of the core, which is settled by effects of Effect 3. */
class DeliveryOf implements Delivery {
  readonly #inside: AmqpInside
  readonly #delivery: Core.Delivery

  constructor(inside: AmqpInside, delivery: Core.Delivery) {
    this.#inside = inside
    this.#delivery = delivery
    adoptTable(delivery.properties.headers)
  }

  get content(): Uint8Array {
    return this.#delivery.content
  }

  get properties(): DeliveredProperties {
    return this.#delivery.properties as never
  }

  get exchange(): string {
    return this.#delivery.exchange
  }

  get routingKey(): string {
    return this.#delivery.routingKey
  }

  get origin(): Delivery["origin"] {
    return this.#delivery.origin
  }

  get redelivered(): boolean {
    return this.#delivery.redelivered
  }

  get attempt(): number {
    return this.#delivery.attempt
  }

  get offset(): number | undefined {
    return this.#delivery.offset
  }

  get isSettled(): boolean {
    return this.#delivery.isSettled
  }

  get ack(): Effect.Effect<void, AmqpError.AmqpError> {
    return run4(this.#inside, this.#delivery.ack)
  }

  nack(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError.AmqpError> {
    return run4(this.#inside, this.#delivery.nack(options))
  }

  reject(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError.AmqpError> {
    return run4(this.#inside, this.#delivery.reject(options))
  }
}

const deliveries = new WeakMap<object, Delivery>()

export const toDelivery3 = (inside: AmqpInside, delivery: Core.Delivery): Delivery => {
  let known = deliveries.get(delivery)
  if (known === undefined) deliveries.set(delivery, (known = new DeliveryOf(inside, delivery)))
  return known
}

type AnyOptions = Partial<BatchOptions> &
  ConsumeOptions & {
    readonly schema?: Schema.Schema.All | undefined
    readonly onDecodeFailure?: unknown
    readonly inactivityTimeout?: unknown
  }

/** Options with their functions in Effect 4. What is no function or schema is translated like other options. */
export const optionsOf = <R>(
  inside: AmqpInside,
  runtime: Runtime.Runtime<R>,
  options: AnyOptions | undefined
): never => {
  if (typeof options !== "object" || options === null) return options as never
  const translated: Record<string, unknown> = { ...toOptions4<AnyOptions>(options) }
  const wrap = (name: keyof AnyOptions, error: (error: unknown) => unknown) => {
    const choose: unknown = options[name]
    if (typeof choose !== "function") return
    const f = choose as (error: unknown, delivery: Delivery) => unknown
    translated[name] = (failure: unknown, delivery: Core.Delivery) =>
      toOptions4(f(error(failure), toDelivery3(inside, delivery)))
  }
  wrap("onFailure", toAny3)
  wrap("onDefect", toAny3)
  wrap("onDecodeFailure", (error) => toError3(error as CoreError.AmqpError))
  const { declare, onEnd, schema } = options
  if (typeof declare === "function") {
    translated["declare"] = (channel: CoreChannel.AmqpChannel) =>
      run3(
        runtime,
        Effect.suspend(() =>
          (declare as (channel: AmqpChannel) => Effect.Effect<void, AmqpError.AmqpError>)(makeChannel3(inside, channel))
        ),
        toAny4
      )
  }
  if (typeof onEnd === "function") {
    translated["onEnd"] = ({ reason, ...end }: Core.End) =>
      run3(
        runtime,
        Effect.suspend(() =>
          (onEnd as (end: End) => Effect.Effect<void>)({
            ...end,
            reason: reason === undefined ? undefined : toError3(reason)
          })
        )
      )
  }
  if (schema !== undefined) translated["schema"] = toSchema4(schema)
  const { offsets } = translated as { readonly offsets?: unknown }
  if (typeof offsets === "object" && offsets !== null) {
    translated["offsets"] = { ...offsets, store: toStore4(runtime, options.offsets!.store) }
  }
  return translated as never
}

export type Handler<R> = (value: unknown, delivery: unknown) => Effect.Effect<unknown, unknown, R | Scope.Scope>

/**
 * Calls a handler within its own scope. The core's scope around it is empty. `error` translates failures for code of
 * the core that reads them.
 */
export const handlerOf =
  <R>(runtime: Runtime.Runtime<R>, handler: Handler<R>, error?: (error: unknown) => unknown) =>
  (value: unknown, delivery: unknown): Effect4.Effect<unknown, unknown> =>
    runScoped3(
      runtime,
      Effect.suspend(() => handler(value, delivery)),
      error
    )

// The core refuses what is no function, and names it.
export const handlerOr = <F>(handler: unknown, wrapped: F): F =>
  typeof handler === "function" ? wrapped : (handler as F)

/** The core knows this option, and would run it as an effect of its own. */
const refuseInbox = refuse(
  "AmqpConsumer.consume",
  "inbox",
  "no such option on Effect 3 (remove it)",
  "an unknown option"
)

export const consumeOn = <R>(
  inside: AmqpInside,
  queue: string,
  handler: Handler<R>,
  options: AnyOptions | undefined
): Effect.Effect<never, AmqpError.AmqpError, never> =>
  Effect.flatMap(Effect.runtime<R>(), (runtime) => {
    if (typeof options === "object" && options !== null && "inbox" in options) return refuseInbox
    // The core writes the reason of its own error into dead letters.
    const handle = handlerOf(runtime, handler, toAny4)
    const decoded = options?.schema !== undefined
    return run4(
      inside,
      Effect4.provideService(
        Core.consume(
          queue,
          // Without a schema the core passes the delivery alone.
          handlerOr(handler, (value: unknown, delivery: Core.Delivery) => {
            const own = toDelivery3(inside, decoded ? delivery : (value as Core.Delivery))
            return handle(decoded ? value : own, own)
          }),
          optionsOf(inside, runtime, options)
        ) as Effect4.Effect<never, unknown, Core.AmqpConsumer>,
        CallerRuntime,
        runtime as Runtime.Runtime<unknown>
      )
    )
  }) as never

export const consumeBatchOn = <R>(
  inside: AmqpInside,
  queue: string,
  handler: Handler<R>,
  options: AnyOptions
): Effect.Effect<never, AmqpError.AmqpError, never> =>
  Effect.flatMap(Effect.runtime<R>(), (runtime) => {
    const handle = handlerOf(runtime, handler, toAny4)
    const decoded = (options as AnyOptions | undefined)?.schema !== undefined
    return run4(
      inside,
      Effect4.provideService(
        Core.consumeBatch(
          queue,
          handlerOr(handler, (values: ReadonlyArray<unknown>, batch: ReadonlyArray<Core.Delivery>) => {
            const own = (decoded ? batch : (values as typeof batch)).map((delivery) => toDelivery3(inside, delivery))
            return handle(decoded ? values : own, own)
          }),
          optionsOf(inside, runtime, options)
        ) as Effect4.Effect<never, unknown, Core.AmqpConsumer>,
        CallerRuntime,
        runtime as Runtime.Runtime<unknown>
      )
    )
  }) as never

export const streamOn = (
  inside: AmqpInside,
  queue: string,
  options: StreamOptions | undefined
): Stream.Stream<Delivery, AmqpError.AmqpError> =>
  Stream.unwrap(
    Effect.map(Effect.runtime<never>(), (runtime) =>
      toStream3(inside, Core.stream(queue, optionsOf(inside, runtime, options)), (delivery) =>
        toDelivery3(inside, delivery)
      )
    )
  )
