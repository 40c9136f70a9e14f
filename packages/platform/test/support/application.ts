// An application of Effect 3 on a virtual host of its own.
import { Amqp, type AmqpConfig } from "@effect-amqp/platform"
import { Effect, Layer } from "effect"
import * as Broker from "./Broker.ts"

/** All services, connected to the broker in context. */
export const amqp = (options?: Omit<AmqpConfig.Options, "url">) =>
  Layer.unwrapEffect(Effect.map(Broker.Broker, ({ url }) => Amqp.layer({ url, ...options })))

/** The broker and all services. */
export const layer = (options?: Omit<AmqpConfig.Options, "url">) => Layer.provideMerge(amqp(options), Broker.layer)
