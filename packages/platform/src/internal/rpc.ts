/** Calls and servers of the core for Effect 3. */
import { AmqpConnection as CoreConnection, type AmqpConsumer as CoreConsumer, AmqpRpc as Core } from "@effect-amqp/core"
import * as Context4 from "@effect-amqp/effect4/Context"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Scope4 from "@effect-amqp/effect4/Scope"
import * as Effect from "effect/Effect"
import type * as Runtime from "effect/Runtime"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { AmqpError } from "../model/error.ts"
import type { CallOptions, Options, Procedure, ServeOptions, Stats } from "../model/rpc.ts"
import type { AmqpInside } from "./channels.ts"
import { type Handler, handlerOf, handlerOr, optionsOf, toDelivery3 } from "./consuming.ts"
import { toProcedure4 } from "./procedures.ts"
import { closeScope, run4, start4 } from "./run.ts"
import { CallerRuntime } from "./schemas.ts"
import { toOptions4 } from "./values.ts"

type Any = Schema.Schema.All

const withSchemas = <A, R, R3>(
  effect: Effect4.Effect<A, unknown, R>,
  runtime: Runtime.Runtime<R3>
): Effect4.Effect<A, unknown, R> =>
  Effect4.provideService(effect, CallerRuntime, runtime as Runtime.Runtime<unknown>) as never

export const makeRpc = (inside: AmqpInside, rpc: Core.AmqpRpc["Service"]) => ({
  call: <P extends Any, S extends Any, E extends Any>(
    procedure: Procedure<P, S, E>,
    payload: Schema.Schema.Type<P>,
    options?: CallOptions
  ): Effect.Effect<
    Schema.Schema.Type<S>,
    Schema.Schema.Type<E> | AmqpError,
    Schema.Schema.Context<P> | Schema.Schema.Context<S> | Schema.Schema.Context<E>
  > =>
    Effect.flatMap(
      Effect.runtime<Schema.Schema.Context<P> | Schema.Schema.Context<S> | Schema.Schema.Context<E>>(),
      (runtime) =>
        run4(
          inside,
          withSchemas(
            rpc.call(toProcedure4(procedure), payload as never, toOptions4(options)) as Effect4.Effect<
              Schema.Schema.Type<S>,
              unknown
            >,
            runtime
          )
        )
    ),
  stats: run4<never, Stats, never>(inside as never, rpc.stats)
})

/** A client of its own, until the scope closes. */
export const makeClientOn = (inside: AmqpInside, options: Options | undefined) =>
  Effect.gen(function* () {
    const scope = yield* Effect.acquireRelease(Effect.sync(Scope4.makeUnsafe), closeScope)
    const connection = Context4.get(inside.context, CoreConnection.AmqpConnection)
    const rpc = yield* start4<never, Core.AmqpRpc["Service"], AmqpError>(
      inside as never,
      Core.makeClient(toOptions4(options)).pipe(
        Effect4.provideService(Scope4.Scope, scope),
        Effect4.provideService(CoreConnection.AmqpConnection, connection)
      )
    )
    return makeRpc(inside, rpc)
  })

export const serveOn = <R>(
  inside: AmqpInside,
  procedure: Procedure<Any, Any, Any>,
  handler: Handler<R>,
  options: ServeOptions | undefined
): Effect.Effect<never, AmqpError> =>
  Effect.flatMap(Effect.runtime<R | Scope.Scope>(), (runtime) => {
    const handle = handlerOf(runtime, handler)
    return run4(
      inside,
      withSchemas(
        Core.serve(
          toProcedure4(procedure),
          handlerOr(handler, (payload: unknown, request: CoreConsumer.Delivery) =>
            handle(payload, toDelivery3(inside, request))
          ) as never,
          optionsOf(inside, runtime, options)
        ) as Effect4.Effect<never, unknown, CoreConsumer.AmqpConsumer>,
        runtime
      )
    )
  }) as never

const isRecord = (value: unknown) => typeof value === "object" && value !== null && !Array.isArray(value)

/** The options of one call over those of all calls. What is no object is passed on, and refused later. */
export const mergeCallOptions = (
  all: CallOptions | undefined,
  one: CallOptions | undefined
): CallOptions | undefined => {
  if (one === undefined || (all !== undefined && !isRecord(all))) return all
  if (all === undefined || !isRecord(one)) return one
  // `undefined` means that the option is not given, as everywhere.
  return { ...all, ...Object.fromEntries(Object.entries(one).filter(([, value]) => value !== undefined)) }
}
