/** Stores of positions in Effect 3, for the core. */
import { AmqpOffsetStore as Core } from "@effect-amqp/core"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Option4 from "@effect-amqp/effect4/Option"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Runtime from "effect/Runtime"
import type { OffsetStore } from "../model/offsetStore.ts"
import { outside, run3, run4 } from "./run.ts"
import { CallerRuntime } from "./schemas.ts"

const toOption4 = <A>(option: Option.Option<A>): Option4.Option<A> =>
  Option.isOption(option) ? (Option.isSome(option) ? Option4.some(option.value) : Option4.none()) : option

/** A store whose operations run in this runtime. What is no store is left to the core, which refuses it. */
export const toStore4 = <R>(runtime: Runtime.Runtime<R>, store: OffsetStore): Core.OffsetStore => {
  const { load, save } = (store ?? {}) as Partial<OffsetStore>
  if (typeof load !== "function" || typeof save !== "function") return store as never
  return {
    load: (name) =>
      run3(
        runtime,
        Effect.map(
          Effect.suspend(() => store.load(name)),
          toOption4
        )
      ),
    save: (name, offset) =>
      run3(
        runtime,
        Effect.suspend(() => store.save(name, offset))
      )
  }
}

/** The part of a store of keys and values that positions need. */
interface KeyValues<out E> {
  readonly get: (key: string) => Effect.Effect<Option.Option<string>, E>
  readonly set: (key: string, value: string) => Effect.Effect<unknown, E>
}

/** The core's way to store positions under keys. Its failures are those of the core. */
export const inKeyValues = <E>(
  store: KeyValues<E>,
  options: { readonly prefix?: string | undefined } | undefined
): OffsetStore<Core.OffsetStoreError> => {
  const inCaller = <A>(effect: Effect.Effect<A, E>): Effect4.Effect<A, E> =>
    Effect4.withFiber((fiber) => run3(fiber.getRef(CallerRuntime), effect))
  const core = Core.fromKeyValueStore(
    {
      get: (key: string) => inCaller(Effect.map(store.get(key), Option.getOrUndefined)),
      set: (key: string, value: string) => inCaller(store.set(key, value))
    } as never,
    options
  )
  const run = <A, B>(effect: Effect4.Effect<A, Core.OffsetStoreError>, map: (value: A) => B) =>
    Effect.flatMap(Effect.runtime<never>(), (runtime) =>
      run4<never, A, Core.OffsetStoreError, B>(
        outside,
        Effect4.provideService(effect, CallerRuntime, runtime as Runtime.Runtime<unknown>),
        map
      )
    )
  return {
    load: (name) =>
      run(core.load(name), (position) =>
        Option4.isSome(position) ? Option.some(position.value) : Option.none<number | bigint>()
      ),
    save: (name, offset) => run(core.save(name, offset), () => undefined)
  }
}
