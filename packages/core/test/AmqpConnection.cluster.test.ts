/**
 * Several hosts: three nodes of one cluster, of which one is killed, paused or cut off, and a queue that survives it.
 */
import { Amqp, AmqpChannel, type AmqpConfig, AmqpConnection, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Duration, Effect, Fiber, References, Stream, SubscriptionRef } from "effect"
import { consumer, publisher } from "../chaos/ends.ts"
import { Ledger } from "../chaos/Ledger.ts"
import { configOf, layerWith, reasonOf } from "./support/amqp.ts"
import * as Cluster from "./support/Cluster.ts"

type Node = Cluster.Node

const hostOf = (one: Node | AmqpConfig.Host): AmqpConfig.Host => ("evaluate" in one ? one.host : one)

const peerOf = ({ host }: Node) => `${host.host}:${host.port}`

/** A configuration with these hosts, in this order, that notices silence soon. */
const configFor = Effect.fnUntraced(function* (...[first, ...others]: ReadonlyArray<Node | AmqpConfig.Host>) {
  const { url } = yield* Cluster.Cluster
  return configOf(url, {
    hosts: [hostOf(first!), ...others.map(hostOf)],
    heartbeat: Duration.seconds(1),
    connectTimeout: Duration.seconds(2),
    publishTimeout: Duration.seconds(20)
  })
})

/** The node to which a connection with these hosts goes. */
const connectedTo = (...hosts: ReadonlyArray<Node | AmqpConfig.Host>) =>
  Effect.gen(function* () {
    const { state } = yield* Effect.flatMap(configFor(...hosts), AmqpConnection.make)
    return state.value._tag === "Open" ? state.value.peer : state.value._tag
  }).pipe(Effect.scoped)

type Connection = AmqpConnection.AmqpConnection["Service"]

const untilState = ({ state }: Connection, wanted: (state: AmqpConnection.State) => boolean) =>
  SubscriptionRef.changes(state).pipe(
    Stream.filter(wanted),
    Stream.runHead,
    Effect.timeoutOrElse({
      duration: "30 seconds",
      orElse: () => Effect.die(new Error(`for 30 s the connection stayed ${JSON.stringify(state.value)}`))
    })
  )

const until = (what: string, condition: () => boolean) =>
  Effect.sleep(5).pipe(
    Effect.repeat({ until: condition }),
    Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => Effect.die(new Error(`not within 30 s: ${what}`)) })
  )

let queues = 0

/** A queue with a member on each node, and its leader on this one. */
const declareQueue = Effect.fnUntraced(function* (leader: Node) {
  const name = `replicated-${++queues}`
  const config = yield* configFor(leader)
  yield* AmqpChannel.use((channel) => channel.queueDeclare(name, { queueType: "quorum" })).pipe(
    Effect.scoped,
    Effect.provide(layerWith(config), { local: true })
  )
  const cluster = yield* Cluster.Cluster
  yield* cluster.ready
  assert.strictEqual((yield* cluster.leader(name)).name, leader.name)
  return name
})

interface Traffic {
  readonly queue: string
  readonly ledger: Ledger
  /** The publishers' connection, and the consumers'. */
  readonly connections: readonly [Connection, Connection]
  /** Waits until this many more publishes are confirmed. */
  readonly continues: Effect.Effect<void>
  /** Measures the time from `fault` to the first confirm of a message that is published after it. */
  readonly measured: <E>(fault: Effect.Effect<void, E>) => Effect.Effect<void, E>
}

const figures: Array<string> = []

afterAll(() => {
  console.log(["", "with a quorum queue on three nodes", ...figures].join("\n"))
})

/**
 * Publishers and a consumer with these hosts work on a queue whose leader is `leader`, while `fault` happens and ends.
 * They continue. At the end every confirmed message has been handled, and nothing is left open.
 */
const duringTraffic = (
  name: string,
  { hosts, leader }: { readonly hosts: ReadonlyArray<Node>; readonly leader: Node },
  fault: (traffic: Traffic) => Effect.Effect<void, unknown, Cluster.Cluster | Amqp.Amqp>
) =>
  Effect.gen(function* () {
    const cluster = yield* Cluster.Cluster
    const queue = yield* declareQueue(leader)
    const ledger = new Ledger()
    let isDone = false
    let took = () => 0
    const measured: Traffic["measured"] = (fault) =>
      Effect.suspend(() => {
        const begun = performance.now()
        return Effect.tap(fault, () =>
          Effect.sync(() => {
            const stopwatch = ledger.stopwatch(begun)
            took = () => stopwatch.time ?? Infinity
          })
        )
      })
    const continues = Effect.suspend(() => {
      const from = ledger.confirmed
      return until("200 more confirms", () => ledger.confirmed > from + 200)
    })
    yield* Effect.gen(function* () {
      const consuming = yield* Effect.forkScoped(consumer(queue, ledger))
      const publishing = yield* Effect.forEach(Array.from({ length: 16 }), () =>
        Effect.forkScoped(publisher(queue, ledger, () => isDone))
      )
      yield* continues
      const consumers = yield* Effect.flatMap(AmqpConsumer.AmqpConsumer, ({ connection }) => connection)
      yield* fault({
        queue,
        ledger,
        connections: [yield* AmqpConnection.AmqpConnection, consumers],
        continues,
        measured
      })
      yield* cluster.ready
      yield* continues
      isDone = true
      yield* Effect.timeoutOrElse(Fiber.joinAll(publishing), {
        duration: "30 seconds",
        orElse: () => Effect.die(new Error("a publish has not ended for 30 s"))
      })
      yield* until("every confirmed message is handled", () => ledger.missing === 0)
      assert.isUndefined(consuming.pollUnsafe())
      yield* cluster.awaitCensus({ connections: 2, consumers: 1, unacked: 0, unconfirmed: 0 })
      const { inFlight, waiting } = yield* Effect.flatMap(AmqpPublisher.AmqpPublisher, ({ stats }) => stats)
      assert.deepStrictEqual({ inFlight, waiting }, { inFlight: 0, waiting: 0 })
    }).pipe(
      Effect.scoped,
      Effect.provide(Amqp.fromConfig(yield* configFor(...hosts)), { local: true }),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
    const balance = ledger.balance()
    assert.deepInclude(balance, { lost: 0, misreported: 0, phantoms: 0 })
    yield* cluster.awaitCensus({ connections: 0, channels: 0 })
    figures.push(
      `${name.padEnd(28)} first confirm after ${took().toFixed(0).padStart(6)} ms, longest gap ` +
        `${ledger.longestGap.toFixed(0).padStart(6)} ms; confirmed ${balance.confirmed}, lost ${balance.lost}, ` +
        `duplicated ${balance.duplicated}, unknown ${balance.unknownArrived + balance.unknownLost}, refused ${balance.refused}`
    )
  })

// No process listens at this host.
const nowhere: AmqpConfig.Host = { host: "127.0.0.1", port: 1 }

/** Both connections go to another node, and everything continues from there. */
const failsOver = (gone: Node, { connections, continues }: Traffic) =>
  Effect.gen(function* () {
    for (const connection of connections) {
      yield* untilState(connection, (state) => state._tag === "Open" && state.peer !== peerOf(gone))
    }
    yield* continues
  })

/** Why a publish with a timeout of one second fails. */
const probing = ({ queue }: Traffic) =>
  reasonOf(AmqpPublisher.publish({ routingKey: queue, content: new Uint8Array(4).fill(255) }, { timeout: "1 second" }))

/**
 * RabbitMQ 4.3 keeps the clients of a node that is cut off: none of their publishes is confirmed, and no client gets an
 * error.
 */
const staysWithout = (cut: Node, traffic: Traffic) =>
  Effect.gen(function* () {
    yield* cut.cut
    const { confirmed } = traffic.ledger
    for (let i = 0; i < 5; i++) {
      assert.deepInclude(yield* probing(traffic), { _tag: "PublishTimeout", sent: true })
    }
    // Messages that the other nodes had also stored when the node was cut off.
    assert.isAtMost(traffic.ledger.confirmed - confirmed, 16)
    for (const { state } of traffic.connections) {
      assert.deepInclude(state.value, { _tag: "Open", generation: 1, peer: peerOf(cut) })
    }
  })

layer(Cluster.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("nothing confirmed is lost and nothing hangs when the node of the connections and of a quorum queue's leader", () => {
    it.effect(
      "is killed: publishers and consumers continue with another node, and a new connect uses the next host that is up",
      () =>
        Effect.gen(function* () {
          const [first, second, third] = (yield* Cluster.Cluster).nodes
          const hosts = [first, second, third]
          yield* duringTraffic("killed", { hosts, leader: first }, (traffic) =>
            Effect.gen(function* () {
              yield* traffic.measured(first.kill9)
              yield* failsOver(first, traffic)
              assert.strictEqual(yield* connectedTo(first, nowhere, third), peerOf(third))
              yield* first.start
            })
          )
        }),
      150_000
    )

    it.effect(
      "is paused: the heartbeat notices",
      () =>
        Effect.gen(function* () {
          const [first, second, third] = (yield* Cluster.Cluster).nodes
          const hosts = [second, third, first]
          yield* duringTraffic("paused", { hosts, leader: second }, (traffic) =>
            Effect.gen(function* () {
              yield* traffic.measured(second.pause)
              yield* failsOver(second, traffic)
              assert.strictEqual(yield* connectedTo(second, first), peerOf(first))
              yield* second.resume
            })
          )
        }),
      150_000
    )

    it.effect(
      "is cut off from the others",
      () =>
        Effect.gen(function* () {
          const {
            nodes: [first, second, third],
            pausesMinority
          } = yield* Cluster.Cluster
          const hosts = [third, first, second]
          yield* duringTraffic("cut off", { hosts, leader: third }, (traffic) =>
            Effect.gen(function* () {
              if (!pausesMinority) {
                yield* staysWithout(third, traffic)
                return yield* traffic.measured(third.heal)
              }
              yield* traffic.measured(third.cut)
              yield* failsOver(third, traffic)
              assert.strictEqual(yield* connectedTo(third, second), peerOf(second))
              yield* third.heal
            })
          )
        }),
      150_000
    )
  })

  describe("a quorum queue", () => {
    it.effect(
      "whose leader is lost, on a node without connections: publishes wait for the next leader",
      () =>
        Effect.gen(function* () {
          const [first, second, third] = (yield* Cluster.Cluster).nodes
          const hosts = [first, third]
          yield* duringTraffic("only the leader cut off", { hosts, leader: second }, (traffic) =>
            Effect.gen(function* () {
              yield* traffic.measured(second.cut)
              yield* traffic.continues
              yield* second.heal
              for (const { state } of traffic.connections) {
                assert.deepInclude(state.value, { _tag: "Open", generation: 1, peer: peerOf(first) })
              }
            })
          )
        }),
      150_000
    )

    it.effect(
      "without a majority confirms nothing: publishes end with their timeout, and continue when the majority is back",
      () =>
        Effect.gen(function* () {
          const {
            nodes: [first, second, third],
            pausesMinority
          } = yield* Cluster.Cluster
          const hosts = [third, first, second]
          yield* duringTraffic("without a majority", { hosts, leader: third }, (traffic) =>
            Effect.gen(function* () {
              const [publishers] = traffic.connections
              const probe = probing(traffic)
              yield* traffic.measured(Effect.andThen(first.pause, second.pause))
              const { confirmed } = traffic.ledger
              assert.deepInclude(yield* probe, { _tag: "PublishTimeout", sent: true })
              // The third node gives up too, as soon as it knows that it is alone. That of 4.3 does not.
              if (pausesMinority) yield* untilState(publishers, ({ _tag }) => _tag === "Reconnecting")
              assert.deepInclude(yield* probe, { _tag: "PublishTimeout", sent: !pausesMinority })
              // Messages that two nodes had stored when they were paused.
              assert.isAtMost(traffic.ledger.confirmed - confirmed, 16)
              yield* first.resume
              yield* second.resume
            })
          )
        }),
      150_000
    )
  })
})
