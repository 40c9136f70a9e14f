/** Pika's exceptions, and the reasons of `AmqpError` that replace them. Rows of `docs/pika.md` name these tests. */
import { assert, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, AmqpError, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Exit, Fiber, Queue, Stream, SubscriptionRef } from "effect"
import { createServer, type Server, type Socket } from "node:net"
import * as FaultProxy from "../support/FaultProxy.ts"
import * as ScriptedBroker from "../support/ScriptedBroker.ts"
import { connected, connectedTo, newQueue, ownQueue, reasonOf } from "./broker.ts"

/** The reason for which the connection was lost. */
const lostFor = Effect.gen(function* () {
  const { state } = yield* AmqpConnection.AmqpConnection
  const [lost] = yield* SubscriptionRef.changes(state).pipe(
    Stream.filter((now) => now._tag === "Reconnecting"),
    Stream.take(1),
    Stream.runCollect
  )
  return lost!.reason
})

const publishing = (exchange: string, options?: AmqpChannel.PublishOptions) =>
  Effect.scoped(
    AmqpChannel.useConfirm((channel) => channel.publish({ exchange, routingKey: "nobody", content: "" }, options))
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("there is one error class, with a reason that is caught by its name", () =>
    Effect.gen(function* () {
      const program = AmqpChannel.use((channel) => channel.queueDeclarePassive("missing"))
      const caught = yield* program.pipe(
        Effect.map(({ queue }) => queue),
        Effect.catchReason("AmqpError", "NotFound", (reason) => Effect.succeed(reason.message))
      )
      assert.include(caught, "missing")
      const error = yield* Effect.flip(AmqpChannel.use((channel) => channel.queueDeclarePassive("missing")))
      assert.isTrue(AmqpError.isAmqpError(error))
      assert.deepStrictEqual([error.severity, error.isRetryable], ["channel", false])
    }).pipe(connected())
  )

  it.effect("nothing listens: ConnectFailed, of the severity connection, retryable", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(AmqpPool.stats.pipe(connectedTo("amqp://guest:guest@127.0.0.1:1")))
      assert.strictEqual(error.reason._tag, "ConnectFailed")
      assert.deepStrictEqual([error.severity, error.isRetryable], ["connection", true])
    })
  )

  it.effect("a wrong password: AuthenticationFailed, not retryable", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(AmqpPool.stats.pipe(connected({ username: "nobody", password: "wrong" })))
      assert.deepInclude(reason, { _tag: "AuthenticationFailed", isRetryable: false })
    })
  )

  it.effect("a missing virtual host: VirtualHostRefused", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(AmqpPool.stats.pipe(connected({ vhost: "nowhere" })))
      assert.deepInclude(reason, { _tag: "VirtualHostRefused", isRetryable: false })
    })
  )

  it.effect("a peer that speaks another protocol: ProtocolError", () =>
    Effect.gen(function* () {
      const server = yield* Effect.acquireRelease(
        Effect.callback<Server>((resume) => {
          // This is the answer of a broker that speaks only AMQP 1.0.
          const answer = (socket: Socket) => {
            socket.on("error", () => {})
            socket.end(Buffer.from("AMQP\u0003\u0001\u0000\u0000", "latin1"))
          }
          const server = createServer(answer).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const reason = yield* reasonOf(AmqpPool.stats.pipe(connectedTo(`amqp://guest:guest@127.0.0.1:${port}`)))
      assert.strictEqual(reason._tag, "ProtocolError")
    })
  )

  it.effect(
    "a frame that the protocol does not allow: the connection is lost with ProtocolError, and re-established",
    () =>
      Effect.gen(function* () {
        const { proxy, url } = yield* FaultProxy.proxied
        yield* Effect.gen(function* () {
          const lost = yield* Effect.forkChild(lostFor, { startImmediately: true })
          proxy.corrupt(1, "down")
          const broken = yield* reasonOf(Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(""))))
          proxy.heal()
          assert.strictEqual((yield* Fiber.join(lost))._tag, "ProtocolError", broken._tag)
          yield* ownQueue.pipe(Effect.retry({ while: (error) => error.isRetryable }))
        }).pipe(connectedTo(url))
      })
  )

  it.effect("the stream is lost: ConnectionClosed, retryable", () =>
    Effect.gen(function* () {
      const { killConnections } = yield* TestBroker.TestBroker
      const lost = yield* Effect.forkChild(lostFor, { startImmediately: true })
      const consuming = yield* AmqpChannel.use((channel) =>
        Effect.flatMap(channel.queueDeclare("", { exclusive: true }), ({ queue }) => channel.consume(queue))
      )
      yield* killConnections
      assert.deepInclude(yield* Fiber.join(lost), { _tag: "ConnectionClosed", isRetryable: true })
      const ended = yield* Effect.flip(Queue.take(consuming.deliveries))
      assert.isTrue(AmqpError.isAmqpError(ended) && ended.reason._tag === "ConnectionClosed")
    }).pipe(connected())
  )

  it.effect("the broker closes the connection: ConnectionClosed with its code and text", () =>
    Effect.gen(function* () {
      const { closeConnections } = yield* TestBroker.TestBroker
      const lost = yield* Effect.forkChild(lostFor, { startImmediately: true })
      yield* closeConnections("for maintenance")
      const reason = yield* Fiber.join(lost)
      assert.deepInclude(reason, { _tag: "ConnectionClosed", replyCode: 320 })
      assert.include(reason.message, "for maintenance")
    }).pipe(connected())
  )

  it.effect("a peer that sends no heartbeats: ConnectionClosed, with a message that says so", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* FaultProxy.proxied
      yield* Effect.gen(function* () {
        const lost = yield* Effect.forkChild(lostFor, { startImmediately: true })
        // The broker still hears this client: it would otherwise close the connection at about the same time.
        proxy.drop("down")
        const reason = yield* Fiber.join(lost)
        proxy.heal()
        assert.strictEqual(reason._tag, "ConnectionClosed")
        assert.match(reason.message, /heartbeat/i)
      }).pipe(connectedTo(url, { heartbeat: "1 second" }))
    })
  )

  it.effect("the application itself has closed it: PoolClosed for borrowers, ChannelReleased for holders", () =>
    Effect.gen(function* () {
      const { channel, pool } = yield* Effect.gen(function* () {
        return { channel: yield* AmqpPool.get, pool: yield* AmqpPool.AmqpPool }
      }).pipe(connected())
      assert.strictEqual((yield* reasonOf(Effect.scoped(pool.get)))._tag, "PoolClosed")
      assert.strictEqual((yield* reasonOf(channel.queueDeclare("")))._tag, "ChannelReleased")
    })
  )

  it.effect("more channels than the connection has numbers: ChannelMaxReached for that borrower only", () =>
    Effect.gen(function* () {
      yield* AmqpPool.get
      yield* AmqpPool.get
      const reason = yield* reasonOf(AmqpPool.get)
      assert.deepInclude(reason, { _tag: "ChannelMaxReached", channelMax: 2, severity: "operation" })
    }).pipe(connected({ pool: false, channelMax: 2 }))
  )

  it.effect("the broker closes a channel: one reason per code, with the code and its text", () =>
    Effect.gen(function* () {
      const queue = "mine"
      yield* AmqpChannel.use((channel) => channel.queueDeclare(queue, { exclusive: true }))
      const using = <A>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, AmqpError.AmqpError>) =>
        reasonOf(Effect.scoped(AmqpChannel.use(f)))
      const missing = yield* using((channel) => channel.queueDeclarePassive("missing"))
      assert.deepInclude(missing, { _tag: "NotFound", replyCode: 404 })
      const other = yield* using((channel) => channel.queueDeclare(queue)).pipe(connected())
      assert.deepInclude(other, { _tag: "ResourceLocked", replyCode: 405 })
      const different = yield* using((channel) => channel.queueDeclare(queue, { exclusive: true, maxLength: 1 }))
      assert.deepInclude(different, { _tag: "PreconditionFailed", replyCode: 406, argument: "x-max-length" })
      const forbidden = yield* using((channel) => channel.exchangeDeclare("amq.mine", "direct"))
      assert.deepInclude(forbidden, { _tag: "AccessRefused", replyCode: 403 })
    }).pipe(connected())
  )

  it.effect("a dead channel fails with ChannelClosed and the reason, then the scope borrows another", () =>
    Effect.gen(function* () {
      const channel = yield* AmqpChannel.use(Effect.succeed)
      yield* Effect.ignore(channel.queueDeclarePassive("missing"))
      const reason = yield* reasonOf(channel.queueDeclare(""))
      assert.deepInclude(reason, { _tag: "ChannelClosed", replyCode: 404, isRetryable: true })
      yield* AmqpChannel.use((another) => another.queueDeclare("", { exclusive: true }))
    }).pipe(connected())
  )

  it.effect("a consumer tag that is in use is refused before it is sent", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const reason = yield* AmqpChannel.use((channel) =>
        Effect.andThen(
          channel.consume(queue, { consumerTag: "mine" }),
          reasonOf(channel.consume(queue, { consumerTag: "mine" }))
        )
      )
      assert.deepInclude(reason, { _tag: "InvalidArgument", argument: "consumerTag" })
      // The same applies to two consumers that are started at the same time.
      const exits = yield* AmqpChannel.use((channel) =>
        Effect.forEach([1, 2], () => Effect.exit(channel.consume(queue, { consumerTag: "another" })), {
          concurrency: "unbounded"
        })
      )
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false])
    }).pipe(connected())
  )

  it.effect("the broker cancels a consumer: its deliveries end with ConsumerCancelled", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      const { consumerTag, deliveries } = yield* AmqpChannel.use((channel) => channel.consume(queue))
      yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete(queue))).pipe(connected())
      const error = yield* Effect.flip(Queue.take(deliveries))
      const reason = AmqpError.isAmqpError(error) ? error.reason : assert.fail("it ended without a reason")
      assert.deepInclude(reason, { _tag: "ConsumerCancelled", queue, consumerTag })
    }).pipe(connected())
  )

  it.effect("a mandatory message that no queue takes: PublishReturned with the broker's code", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(publishing("", { mandatory: true }))
      assert.deepInclude(reason, { _tag: "PublishReturned", replyCode: 312, routingKey: "nobody" })
    }).pipe(connected())
  )

  it.effect("a message that the broker refuses: PublishNacked", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue({ exclusive: true, maxLength: 0, overflow: "reject-publish" })
      const reason = yield* reasonOf(
        Effect.scoped(AmqpChannel.useConfirm((channel) => channel.publish({ routingKey: queue, content: "" })))
      )
      assert.strictEqual(reason._tag, "PublishNacked")
    }).pipe(connected())
  )

  it.effect("names and values that cannot be encoded are refused before anything is sent: InvalidArgument", () =>
    Effect.gen(function* () {
      const long = yield* reasonOf(AmqpChannel.use((channel) => channel.queueDeclare("q".repeat(256))))
      const wrong = yield* reasonOf(
        AmqpChannel.use((channel) =>
          channel.publish({ routingKey: "q", content: "", headers: { at: (() => 0) as never } })
        )
      )
      for (const reason of [long, wrong]) assert.deepInclude(reason, { _tag: "InvalidArgument", severity: "operation" })
      assert.deepInclude(yield* AmqpPool.stats, { created: 1 })
      // The channel still works.
      yield* AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true }))
    }).pipe(connected())
  )

  it.effect("a confirm that never comes because the channel was lost: PublishUnknown", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": () => {} } })
      yield* Effect.gen(function* () {
        const waiting = yield* Effect.forkChild(Effect.flip(publishing("")), { startImmediately: true })
        yield* broker.received("basic.publish")
        broker.closeChannels(541, "INTERNAL_ERROR")
        assert.strictEqual((yield* Fiber.join(waiting)).reason._tag, "PublishUnknown")
      }).pipe(connectedTo(broker.url))
    })
  )

  it.effect("two gets at the same time on one channel are both answered", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const gets = yield* AmqpChannel.use((channel) =>
        Effect.exit(Effect.all([channel.get(queue), channel.get(queue)], { concurrency: 2 }))
      )
      assert.isTrue(Exit.isSuccess(gets))
    }).pipe(connected())
  )

  it.effect("operations may be called from within any other: nothing blocks, so nothing is re-entered", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      yield* AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          const { deliveries } = yield* channel.consume(queue)
          yield* channel.publish({ routingKey: queue, content: "" })
          const handled = yield* Effect.flatMap(Queue.take(deliveries), (delivery) =>
            Effect.andThen(channel.queueDeclare("", { exclusive: true }), channel.ack(delivery))
          ).pipe(Effect.exit)
          assert.isTrue(Exit.isSuccess(handled))
        })
      )
    }).pipe(connected())
  )
})
