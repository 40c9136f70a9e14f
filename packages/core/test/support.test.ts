import { assert, describe, it } from "@effect/vitest"
import { connect } from "amqplib"
import { Effect, Exit } from "effect"
import { encodeMessage, PROTOCOL_HEADER } from "./support/frames.ts"
import {
  call,
  clientHandshake,
  connected,
  consuming,
  get,
  nextEvent,
  openChannel,
  rawClient,
  refusal
} from "./support/amqplibClient.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

/** One of each operation, as a client does them that expects no faults. */
const wholeStory = Effect.fnUntraced(function* (url: string) {
  const connection = yield* connected(url)
  const channel = yield* call(() => connection.createConfirmChannel())
  const { queue } = yield* call(() => channel.assertQueue("orders"))
  assert.strictEqual(queue, "orders")
  assert.isUndefined(yield* get(channel, "orders"))
  channel.sendToQueue("orders", Buffer.from("hello"), { messageId: "1", headers: { n: 7 } })
  yield* call(() => channel.waitForConfirms())
  const message = yield* get(channel, "orders")
  assert.strictEqual(message?.content.toString(), "hello")
  assert.strictEqual(message?.properties.messageId, "1")
  assert.deepStrictEqual(message?.properties.headers, { n: 7 })
  if (message !== undefined) channel.ack(message)
  yield* call(() => channel.close())
  yield* call(() => connection.close())
})

describe("a scripted broker without a script", () => {
  it.live("lets a client connect, open a channel, declare, publish, confirm, get and close", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* wholeStory(broker.url)
      yield* broker.socketsClosed
      assert.strictEqual(broker.connections, 0)
      assert.strictEqual(broker.openChannels, 0)
      assert.strictEqual(broker.maxOpenChannels, 1)
      assert.deepStrictEqual(broker.methods({ channel: 1 }), [
        "channel.open",
        "confirm.select",
        "queue.declare",
        "basic.get",
        "basic.publish",
        "basic.get",
        "basic.ack",
        "channel.close"
      ])
    })
  )

  it.effect("does so under a TestClock, which it never reads", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* wholeStory(broker.url)
      yield* broker.socketsClosed
    })
  )

  it.live("does so when it writes one byte at a time", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ chop: 1 })
      yield* wholeStory(broker.url)
      yield* broker.socketsClosed
      const client = yield* rawClient(broker)
      client.write(PROTOCOL_HEADER)
      const start = encodeMessage(0, "connection.start", {}).length
      yield* client.received(start)
      assert.isAbove(client.reads(), start / 2)
    })
  )

  it.live("answers topology, qos, recover and a new secret", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const connection = yield* connected(broker.url)
      const channel = yield* openChannel(connection)
      yield* call(() => channel.assertExchange("a", "direct"))
      yield* call(() => channel.assertExchange("b", "fanout"))
      yield* call(() => channel.bindExchange("a", "b", "key"))
      yield* call(() => channel.unbindExchange("a", "b", "key"))
      const { queue } = yield* call(() => channel.assertQueue(""))
      assert.match(queue, /^amq\.gen-/)
      yield* call(() => channel.bindQueue(queue, "a", "key"))
      channel.publish("a", "key", Buffer.from("1"))
      channel.publish("a", "other", Buffer.from("nowhere"))
      assert.strictEqual((yield* call(() => channel.checkQueue(queue))).messageCount, 1)
      yield* call(() => channel.unbindQueue(queue, "a", "key"))
      assert.strictEqual((yield* call(() => channel.purgeQueue(queue))).messageCount, 1)
      yield* call(() => channel.prefetch(5))
      yield* call(() => channel.recover())
      yield* call(() => channel.deleteQueue(queue))
      yield* call(() => channel.deleteExchange("b"))
      yield* call(() => connection.updateSecret(Buffer.from("new"), "expired"))
      assert.strictEqual((yield* broker.received("connection.update-secret")).args.newSecret, "new")
    })
  )

  it.live("delivers within the prefetch, requeues what a channel leaves unsettled, and refuses a second ack", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const connection = yield* connected(broker.url)
      const channel = yield* openChannel(connection)
      for (const body of ["1", "2", "3"]) broker.enqueue("work", body, { headers: { body } })
      yield* call(() => channel.prefetch(2))
      const { deliveries } = yield* consuming(channel, "work")
      yield* call(() => channel.checkQueue("work")) // a reply that comes after the deliveries
      assert.deepStrictEqual(
        deliveries.map((delivery) => delivery?.content.toString()),
        ["1", "2"]
      )
      assert.strictEqual(broker.ready("work"), 1)
      const closed = nextEvent(channel, "error")
      const first = deliveries[0]
      if (first) channel.ack(first)
      if (first) channel.ack(first)
      assert.include(String(yield* closed), "unknown delivery tag 1")
      assert.strictEqual(broker.ready("work"), 2)
      const sibling = yield* openChannel(connection)
      const again = yield* get(sibling, "work")
      assert.strictEqual(again?.content.toString(), "2")
      assert.isTrue(again?.fields.redelivered)
    })
  )

  it.live("returns what is mandatory and unroutable, before it confirms", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const connection = yield* connected(broker.url)
      const channel = yield* call(() => connection.createConfirmChannel())
      const events: Array<string> = []
      channel.on("return", (message) =>
        events.push(`return ${message.fields.routingKey} ${message.content.toString()}`)
      )
      channel.publish("", "nowhere", Buffer.from("1"), { mandatory: true }, () => events.push("confirm 1"))
      channel.publish("", "nowhere", Buffer.from("2"), {}, () => events.push("confirm 2"))
      yield* call(() => channel.waitForConfirms())
      assert.deepStrictEqual(events, ["return nowhere 1", "confirm 1", "confirm 2"])
    })
  )

  it.live("routes what a transaction published when it commits, and forgets it when it rolls back", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const client = yield* rawClient(broker)
      const publish = encodeMessage(1, "basic.publish", { routingKey: "q" }, { body: Buffer.from("x") })
      client.write(clientHandshake, encodeMessage(1, "channel.open"), encodeMessage(1, "queue.declare", { queue: "q" }))
      client.write(encodeMessage(1, "tx.select"), publish, publish, publish, encodeMessage(1, "tx.rollback"), publish)
      yield* broker.received("basic.publish", 4)
      assert.strictEqual(broker.ready("q"), 0)
      client.write(encodeMessage(1, "tx.commit"))
      yield* broker.received("tx.commit")
      assert.strictEqual(broker.ready("q"), 1)
    })
  )

  it.live("notifies consumers when their queue is deleted, and answers a cancel", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const connection = yield* connected(broker.url)
      const channel = yield* openChannel(connection)
      const kept = yield* consuming(channel, "kept")
      const deleted = yield* consuming(channel, "deleted")
      assert.notStrictEqual(kept.consumerTag, deleted.consumerTag)
      yield* call(() => channel.deleteQueue("deleted"))
      assert.deepStrictEqual(deleted.deliveries, [null])
      yield* call(() => channel.cancel(kept.consumerTag))
      broker.enqueue("kept", "for nobody")
      assert.strictEqual(broker.ready("kept"), 1)
    })
  )

  it.live("counts the channels that are open now, and the highest count", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const one = yield* connected(broker.url)
      const two = yield* connected(broker.url)
      const channels = yield* Effect.forEach([one, one, one, two, two], openChannel)
      assert.strictEqual(broker.openChannels, 5)
      yield* Effect.forEach(channels.slice(0, 2), (channel) => call(() => channel.close()))
      assert.strictEqual(broker.openChannels, 3)
      yield* openChannel(one)
      assert.strictEqual(broker.openChannels, 4)
      assert.strictEqual(broker.maxOpenChannels, 5)
      assert.strictEqual(broker.connection(1).maxOpenChannels, 3)
      broker.connection(2).destroy()
      yield* broker.until(() => broker.connections === 1)
      assert.strictEqual(broker.openChannels, 2)
      broker.closeChannels(541)
      assert.strictEqual(broker.openChannels, 0)
      yield* broker.received("channel.close-ok", 2)
      assert.strictEqual(broker.maxOpenChannels, 5)
    })
  )
})

describe("what a scripted broker does on its own", () => {
  it.live("blocks and unblocks, and forces connections closed", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const connection = yield* connected(broker.url)
      const blocked = nextEvent(connection, "blocked")
      broker.block("low on disk")
      assert.strictEqual(yield* blocked, "low on disk")
      const unblocked = nextEvent(connection, "unblocked")
      broker.unblock()
      yield* unblocked
      const closed = nextEvent(connection, "close")
      broker.closeConnections()
      assert.include(String(yield* closed), "320 (CONNECTION-FORCED)")
      yield* broker.received("connection.close-ok")
      yield* broker.socketsClosed
    })
  )

  it.live("requests flow to stop, and sees the flow-ok", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const client = yield* rawClient(broker)
      client.write(clientHandshake, encodeMessage(1, "channel.open"))
      yield* broker.until(() => broker.openChannels === 1)
      broker.flow(false)
      client.write(encodeMessage(1, "channel.flow-ok", { active: false }))
      assert.isFalse((yield* broker.received("channel.flow-ok")).args.active)
      client.write(encodeMessage(1, "basic.get", { queue: "q" }))
      yield* broker.received("basic.get")
      assert.include(client.seen().toString("hex"), encodeMessage(1, "channel.flow", { active: false }).toString("hex"))
    })
  )

  it.live("sends heartbeats until it is stopped", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ tune: { heartbeat: 1 } })
      const connection = yield* connected(broker.url)
      const failed = nextEvent(connection, "error")
      yield* broker.received("heartbeat", 3) // three seconds, which a client without heartbeats would not survive
      broker.stopHeartbeats()
      assert.include(String(yield* failed), "Heartbeat timeout")
    })
  )

  it.live("stops reading, so that what a client writes backs up, and reads it all in the end", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const connection = yield* connected(broker.url)
      const channel = yield* openChannel(connection)
      broker.pause()
      const body = Buffer.alloc(64 * 1024)
      let published = 1
      while (channel.publish("", "sink", body)) published++
      yield* openChannel(yield* connected(broker.url)) // time for bytes to pass, if any did
      assert.strictEqual(broker.count("basic.publish"), 0)
      const drained = nextEvent(channel, "drain")
      broker.resume()
      yield* drained
      yield* broker.received("basic.publish", published)
    })
  )

  it.live("goes down, refusing connections, and comes up on the same port", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const connection = yield* connected(broker.url)
      const died = nextEvent(connection, "error")
      yield* broker.down
      yield* died
      assert.include(String(yield* refusal(() => connect(broker.url))), "ECONNREFUSED")
      yield* broker.up
      yield* wholeStory(broker.url)
      assert.strictEqual(broker.count("accept"), 2)
    })
  )
})

describe("a client's protocol errors", () => {
  const misbehaving = Effect.fnUntraced(function* (options: ScriptedBroker.Options, ...parts: Array<Buffer>) {
    const broker = yield* ScriptedBroker.make(options)
    const client = yield* rawClient(broker)
    client.write(...parts)
    yield* broker.until(() => broker.protocolErrors.length > 0)
    return broker.protocolErrors
  })

  it.live("fail the test at the end of the broker's scope", () =>
    Effect.gen(function* () {
      const exit = yield* misbehaving({}, clientHandshake, encodeMessage(1, "queue.declare")).pipe(
        Effect.scoped,
        Effect.exit
      )
      assert.isTrue(Exit.isFailure(exit))
      assert.include(String(exit), "queue.declare on a channel that is closed")
    })
  )

  it.live("are only recorded where a test is about them", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [Array<Buffer>, string]> = [
        [[Buffer.from("GET / HTTP/1.1\r\n\r\n")], "protocol header"],
        [[PROTOCOL_HEADER, encodeMessage(0, "connection.open")], "connection.start-ok was expected"],
        [[clientHandshake, encodeMessage(17, "channel.open")], "channel-max is 16"],
        [[clientHandshake, encodeMessage(1, "channel.open"), encodeMessage(1, "channel.open")], "channel.open on"],
        [[clientHandshake, encodeMessage(0, "connection.tune")], "no client sends method 10.30"],
        [[clientHandshake, Buffer.from("\x09rubbish")], "unknown frame type 9"]
      ]
      for (const [parts, expected] of cases) {
        const errors = yield* misbehaving({ protocolErrors: "record" }, ...parts).pipe(Effect.scoped)
        assert.include(errors.join(), expected)
      }
    })
  )

  it.live("are reported together with errors of handlers", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        broker.on("accept", () => {
          throw new Error("oops")
        })
        broker.on("protocol-header", () => Effect.fail("late oops"))
        const client = yield* rawClient(broker)
        client.write(PROTOCOL_HEADER)
        yield* broker.received("protocol-header")
      }).pipe(Effect.scoped, Effect.exit)
      assert.include(String(exit), "handler of accept: Error: oops; handler of protocol-header: late oops")
    })
  )
})
