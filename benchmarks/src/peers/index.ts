/** The contenders, by name. Each is loaded only in the process that is this contender. */
import type { Peer } from "./peer.ts"

const contenders = {
  "effect-amqp": () => import("./effectAmqp.ts").then(({ peer }) => peer),
  "effect-amqp, publishAll": () => import("./effectAmqp.ts").then(({ all }) => all),
  "effect-amqp, stream": () => import("./effectAmqp.ts").then(({ streams }) => streams),
  "effect-amqp, AmqpPool.get": () => import("./effectAmqp.ts").then(({ streams }) => streams),
  "effect-amqp, AmqpChannel.use": () => import("./effectAmqp.ts").then(({ ofScope }) => ofScope),
  "Effect's Pool, without channels": () => import("./effectAmqp.ts").then(({ bare }) => bare),
  amqplib: () => import("./amqplib.ts").then(({ peer }) => peer),
  "amqplib, without confirms": () => import("./amqplib.ts").then(({ unconfirmed }) => unconfirmed),
  "rabbitmq-client": () => import("./rabbitmqClient.ts").then(({ peer }) => peer),
  "@cloudamqp/amqp-client": () => import("./cloudamqp.ts").then(({ peer }) => peer),
  "@cloudamqp/amqp-client, channel": () => import("./cloudamqp.ts").then(({ byChannel }) => byChannel),
  "amqp-connection-manager": () => import("./connectionManager.ts").then(({ peer }) => peer),
  rascal: () => import("./rascal.ts").then(({ peer }) => peer),
  "amqplib + generic-pool": () => import("./pools.ts").then(({ genericPool }) => genericPool),
  "amqplib + tarn": () => import("./pools.ts").then(({ tarn }) => tarn),
  // In the package, whose Effect is Effect 3.
  "effect-amqp on Effect 3": () => import("../../../packages/platform/benchmark/bridge.ts").then(({ peer }) => peer),
  "Effect 3's Pool of amqplib's channels": () =>
    import("../../../packages/platform/benchmark/byHand.ts").then(({ peer }) => peer),
  "effect-amqp on Effect's HTTP": () => import("../http/effect.ts").then(({ publisher }) => publisher),
  "effect-amqp, one channel per request": () => import("../http/effect.ts").then(({ borrower }) => borrower),
  "Effect's HTTP without AMQP": () => import("../http/effect.ts").then(({ plain }) => plain),
  "Fastify + amqplib": () => import("../http/fastify.ts").then(({ publisher }) => publisher),
  "Fastify + amqplib, a channel per request": () => import("../http/fastify.ts").then(({ opener }) => opener),
  "effect-amqp on Fastify": () => import("../http/fastify.ts").then(({ effectPublisher }) => effectPublisher),
  "effect-amqp on Fastify, a channel per request": () =>
    import("../http/fastify.ts").then(({ effectBorrower }) => effectBorrower),
  "Fastify without AMQP": () => import("../http/fastify.ts").then(({ plain }) => plain)
} satisfies Record<string, () => Promise<Peer>>

export type Name = keyof typeof contenders

export const load = (name: Name): Promise<Peer> => contenders[name]()
