/** Several hosts: three nodes of one cluster, of which one is killed, paused or cut off, and a queue that outlives it. */
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

/** With these hosts, in this order, and with an eye on silence. */
const configFor = Effect.fnUntraced(function* (...[first, ...others]: ReadonlyArray<Node | AmqpConfig.Host>) {
  const { url } = yield* Cluster.Cluster
  return configOf(url, {
    hosts: [hostOf(first!), ...others.map(hostOf)],
    heartbeat: Duration.seconds(1),
    connectTimeout: Duration.seconds(2),
    publishTimeout: Duration.seconds(20)
  })
})

/** Where a connection with these hosts comes to be. */
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
  /** The publishers', and the consumers'. */
  readonly connections: readonly [Connection, Connection]
  /** Waits until some more are confirmed. */
  readonly goesOn: Effect.Effect<void>
  /** Measures the time from `fault` to the first confirm of what is published after it. */
  readonly measured: <E>(fault: Effect.Effect<void, E>) => Effect.Effect<void, E>
}

const figures: Array<string> = []

afterAll(() => {
  console.log(["", "with a quorum queue on three nodes", ...figures].join("\n"))
})

/**
 * While publishers and a consumer are at work on a queue whose leader is `leader`, with these hosts, `fault` happens and
 * ends. They go on, and at the end everything that was confirmed has been handled, and nothing is left open.
 */
const whileTrafficGoesOn = (
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
    const goesOn = Effect.suspend(() => {
      const from = ledger.confirmed
      return until("200 more confirms", () => ledger.confirmed > from + 200)
    })
    yield* Effect.gen(function* () {
      const consuming = yield* Effect.forkScoped(consumer(queue, ledger))
      const publishing = yield* Effect.forEach(Array.from({ length: 16 }), () =>
        Effect.forkScoped(publisher(queue, ledger, () => isDone))
      )
      yield* goesOn
      const consumers = yield* Effect.flatMap(AmqpConsumer.AmqpConsumer, ({ connection }) => connection)
      yield* fault({ queue, ledger, connections: [yield* AmqpConnection.AmqpConnection, consumers], goesOn, measured })
      yield* cluster.ready
      yield* goesOn
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

// Nothing listens there.
const nowhere: AmqpConfig.Host = { host: "127.0.0.1", port: 1 }

/** Both connections go to another node, and from there everything goes on. */
const failsOver = (gone: Node, { connections, goesOn }: Traffic) =>
  Effect.gen(function* () {
    for (const connection of connections) {
      yield* untilState(connection, (state) => state._tag === "Open" && state.peer !== peerOf(gone))
    }
    yield* goesOn
  })

/** A publish that has a second: why it fails. */
const probing = ({ queue }: Traffic) =>
  reasonOf(AmqpPublisher.publish({ routingKey: queue, content: new Uint8Array(4).fill(255) }, { timeout: "1 second" }))

/** RabbitMQ 4.3 keeps the clients of a node that is cut off: nothing of theirs is confirmed, and nobody is told. */
const staysWithout = (cut: Node, traffic: Traffic) =>
  Effect.gen(function* () {
    yield* cut.cut
    const { confirmed } = traffic.ledger
    for (let i = 0; i < 5; i++) {
      assert.deepInclude(yield* probing(traffic), { _tag: "PublishTimeout", sent: true })
    }
    // What the others had stored, too, when it was cut off.
    assert.isAtMost(traffic.ledger.confirmed - confirmed, 16)
    for (const { state } of traffic.connections) {
      assert.deepInclude(state.value, { _tag: "Open", generation: 1, peer: peerOf(cut) })
    }
  })

layer(Cluster.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("nothing confirmed is lost and nothing hangs when the node of the connections and of a quorum queue's leader", () => {
    it.effect(
      "is killed: publishers and consumers go on with another, and who connects takes the next host that is there",
      () =>
        Effect.gen(function* () {
          const [first, second, third] = (yield* Cluster.Cluster).nodes
          const hosts = [first, second, third]
          yield* whileTrafficGoesOn("killed", { hosts, leader: first }, (traffic) =>
            Effect.gen(function* () {
              yield* traffic.measured(first.kill9)
              yield* failsOver(first, traffic)
              assert.strictEqual(yield* connectedTo(first, nowhere, third), peerOf(third))
              yield* first.start
            })
          )
        }),
      90_000
    )

    it.effect(
      "is paused: the heartbeat notices",
      () =>
        Effect.gen(function* () {
          const [first, second, third] = (yield* Cluster.Cluster).nodes
          const hosts = [second, third, first]
          yield* whileTrafficGoesOn("paused", { hosts, leader: second }, (traffic) =>
            Effect.gen(function* () {
              yield* traffic.measured(second.pause)
              yield* failsOver(second, traffic)
              assert.strictEqual(yield* connectedTo(second, first), peerOf(first))
              yield* second.resume
            })
          )
        }),
      90_000
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
          yield* whileTrafficGoesOn("cut off", { hosts, leader: third }, (traffic) =>
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
      90_000
    )
  })

  describe("a quorum queue", () => {
    it.effect(
      "whose leader is lost, on a node that nobody is connected to: publishes wait for the next leader",
      () =>
        Effect.gen(function* () {
          const [first, second, third] = (yield* Cluster.Cluster).nodes
          const hosts = [first, third]
          yield* whileTrafficGoesOn("only the leader cut off", { hosts, leader: second }, (traffic) =>
            Effect.gen(function* () {
              yield* traffic.measured(second.cut)
              yield* traffic.goesOn
              yield* second.heal
              for (const { state } of traffic.connections) {
                assert.deepInclude(state.value, { _tag: "Open", generation: 1, peer: peerOf(first) })
              }
            })
          )
        }),
      90_000
    )

    it.effect(
      "without a majority confirms nothing: publishes end by their time limit, and go on when it is back",
      () =>
        Effect.gen(function* () {
          const {
            nodes: [first, second, third],
            pausesMinority
          } = yield* Cluster.Cluster
          const hosts = [third, first, second]
          yield* whileTrafficGoesOn("without a majority", { hosts, leader: third }, (traffic) =>
            Effect.gen(function* () {
              const [publishers] = traffic.connections
              const probe = probing(traffic)
              yield* traffic.measured(Effect.andThen(first.pause, second.pause))
              const { confirmed } = traffic.ledger
              assert.deepInclude(yield* probe, { _tag: "PublishTimeout", sent: true })
              // The third node gives up too, as soon as it knows that it is alone; that of 4.3 does not.
              if (pausesMinority) yield* untilState(publishers, ({ _tag }) => _tag === "Reconnecting")
              assert.deepInclude(yield* probe, { _tag: "PublishTimeout", sent: !pausesMinority })
              // What had been stored by two of them when they were paused.
              assert.isAtMost(traffic.ledger.confirmed - confirmed, 16)
              yield* first.resume
              yield* second.resume
            })
          )
        }),
      90_000
    )
  })
})
