/** The services of the core as services of Effect 3. */
import {
  AmqpConnection as CoreConnection,
  AmqpPool as CorePool,
  AmqpPublisher as CorePublisher,
  AmqpRpc as CoreRpc,
  type Amqp as Core
} from "@effect-amqp/core"
import * as Context4 from "@effect-amqp/effect4/Context"
import * as Duration4 from "@effect-amqp/effect4/Duration"
import * as Layer4 from "@effect-amqp/effect4/Layer"
import * as Scope4 from "@effect-amqp/effect4/Scope"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { AmqpConnection } from "../AmqpConnection.ts"
import { AmqpConsumer } from "../AmqpConsumer.ts"
import { AmqpPublisher } from "../AmqpPublisher.ts"
import { AmqpRpc } from "../AmqpRpc.ts"
import type { State } from "../model/connection.ts"
import type { AmqpError } from "../model/error.ts"
import { AmqpPool } from "../model/pool.ts"
import type { AmqpInside } from "./channels.ts"
import { toReason3 } from "./errors.ts"
import { markEnded, register } from "./inside.ts"
import { logging } from "./logging.ts"
import { makePool } from "./pool.ts"
import { makePublisher } from "./publishing.ts"
import { makeRpc } from "./rpc.ts"
import { closeScope, Inside, outside, run4, start4 } from "./run.ts"
import { toSubscribable } from "./subscribable.ts"
import { toOptions4 } from "./values.ts"

type Services = AmqpConnection | AmqpPool | AmqpPublisher | AmqpConsumer | AmqpRpc

const toState = (state: CoreConnection.State): State =>
  state._tag === "Open"
    ? { ...state, heartbeat: Duration.millis(Duration4.toMillis(state.heartbeat)) }
    : "reason" in state && state.reason !== undefined
      ? ({ ...state, reason: toReason3(state.reason) } as State)
      : (state as State)

const servicesOf = (inside: AmqpInside): Context.Context<Services> => {
  const { context } = inside
  const connection = Context4.get(context, CoreConnection.AmqpConnection)
  return Context.empty().pipe(
    Context.add(
      AmqpConnection,
      register(inside, {
        state: toSubscribable(inside, connection.state, toState),
        flow: toSubscribable(inside, connection.flow),
        updateSecret: (secret, reason) => run4(inside, connection.updateSecret(toOptions4(secret), reason))
      })
    ),
    Context.add(AmqpPool, register(inside, makePool(inside, Context4.get(context, CorePool.AmqpPool)))),
    Context.add(
      AmqpPublisher,
      register(inside, makePublisher(inside, Context4.get(context, CorePublisher.AmqpPublisher)))
    ),
    Context.add(AmqpRpc, makeRpc(inside, Context4.get(context, CoreRpc.AmqpRpc))),
    Context.add(AmqpConsumer, register(inside, { _tag: "AmqpConsumer" }))
  )
}

/**
 * Builds the services in a scope of Effect 4 that closes with the layer. What runs in the background afterwards logs,
 * traces and keeps time as the fiber that has built the layer.
 */
export const build = (layer: Layer4.Layer<Core.Amqp, unknown>): Layer.Layer<Services, AmqpError> =>
  Layer.scopedContext(
    Effect.gen(function* () {
      const scope = yield* Effect.acquireRelease(Effect.sync(Scope4.makeUnsafe), closeScope)
      const services = yield* start4<never, Context4.Context<Core.Amqp>, AmqpError>(
        outside,
        Layer4.buildWithScope(layer, scope)
      )
      // Without the references of this fiber: each call has those of its own.
      const inside: AmqpInside = new Inside(Context4.merge(logging, services))
      // Before the scope closes: finalizers run in the reverse order.
      yield* Effect.addFinalizer(() => Effect.sync(() => markEnded(inside)))
      return servicesOf(inside)
    })
  )
