import { assert, describe, it } from "@effect/vitest"
import type { ConfirmChannel } from "amqplib"
import { connect } from "amqplib"
import { Deferred, Effect, Exit } from "effect"
import { PROTOCOL_HEADER } from "./support/frames.ts"
import { call, connected, nextEvent, openChannel, rawClient, refusal } from "./support/amqplibClient.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

describe("a script", () => {
  it.live("holds an answer until it is released", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "channel.open": (ctx) => ctx.hold() } })
      const connection = yield* connected(broker.url)
      const opening = [connection.createChannel(), connection.createChannel(), connection.createChannel()] as const
      yield* broker.received("channel.open", 3)
      assert.strictEqual(broker.openChannels, 0)
      assert.strictEqual(broker.held("channel.open"), 3)
      assert.strictEqual(broker.release("channel.open", 1), 1)
      yield* call(() => opening[0])
      assert.strictEqual(broker.openChannels, 1)
      assert.strictEqual(broker.release("channel.open"), 2)
      yield* call(() => Promise.all(opening))
      broker.off("channel.open")
      yield* openChannel(connection)
      assert.strictEqual(broker.maxOpenChannels, 4)
    })
  )

  it.live("gives no held answer to a channel that is gone, nor to the channel that has its number now", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.get": (ctx) => ctx.hold() } })
      const connection = yield* connected(broker.url)
      const gone = yield* openChannel(connection)
      const getting = gone.get("q")
      yield* broker.received("basic.get")
      broker.closeChannels(541)
      yield* refusal(() => getting)
      const successor = yield* openChannel(connection)
      assert.deepStrictEqual(broker.methods({ channel: 1 }).slice(-2), ["channel.close-ok", "channel.open"])
      broker.release("basic.get")
      yield* call(() => successor.assertQueue("q")) // a stray get-empty would have been the end of it
    })
  )

  it.live("wakes a caller that waits for a method only when the method's handler is done", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      let done = false
      broker.on("channel.open", (ctx) => {
        ctx.proceed()
        done = true
      })
      const connection = yield* connected(broker.url)
      const seen: Array<boolean> = []
      const opening = connection.createChannel()
      yield* broker.until(() => {
        if (broker.openChannels === 1) seen.push(done)
        return broker.openChannels === 1
      })
      assert.deepStrictEqual(seen, [true])
      yield* call(() => opening)
    })
  )

  it.live("never answers if its handler does nothing", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "channel.open": () => {} } })
      const connection = yield* connected(broker.url)
      const opening = connection.createChannel()
      yield* broker.received("channel.open")
      broker.destroy()
      assert.include(String(yield* refusal(() => opening)), "no reply will be forthcoming")
      assert.strictEqual(broker.maxOpenChannels, 0)
    })
  )

  it.live("answers when the Effect of its handler does", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const broker = yield* ScriptedBroker.make()
      broker.once("queue.declare", (ctx) => Deferred.await(gate).pipe(Effect.map(ctx.proceed)))
      const connection = yield* connected(broker.url)
      const channel = yield* openChannel(connection)
      const declaring = channel.assertQueue("late")
      yield* broker.received("queue.declare")
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual((yield* call(() => declaring)).queue, "late")
      yield* call(() => channel.assertQueue("at once"))
    })
  )

  it.live("runs its one-time handlers in turn, then the permanent one", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.once("basic.publish", (ctx) => ctx.reply("basic.nack", { deliveryTag: ctx.deliveryTag }))
      broker.once("basic.publish", (ctx) => ctx.hold())
      const connection = yield* connected(broker.url)
      const channel: ConfirmChannel = yield* call(() => connection.createConfirmChannel())
      const outcomes: Array<string> = []
      const publish = (body: string) =>
        channel.sendToQueue("q", Buffer.from(body), {}, (error) => outcomes.push(`${body}: ${error?.message ?? "ack"}`))
      for (const body of ["1", "2", "3"]) publish(body)
      const { args, content } = yield* broker.received("basic.publish", 3)
      assert.strictEqual(args.routingKey, "q")
      assert.strictEqual(content?.body.toString(), "3")
      broker.release("basic.publish")
      yield* call(() => channel.waitForConfirms()).pipe(Effect.ignore)
      assert.deepStrictEqual(outcomes.toSorted(), ["1: message nacked", "2: ack", "3: ack"])
    })
  )

  it.live("closes a channel for a method, and its siblings stay", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.once("queue.declare", (ctx) => ctx.closeChannel(406))
      broker.once("basic.get", (ctx) => ctx.closeChannel(404, "NOT_FOUND - no queue 'x' in vhost '/'"))
      const connection = yield* connected(broker.url)
      const [one, two, three] = yield* Effect.all([connection, connection, connection].map(openChannel))
      assert.include(String(yield* refusal(() => one!.assertQueue("x"))), "406 (PRECONDITION-FAILED)")
      assert.include(String(yield* refusal(() => two!.get("x"))), "no queue 'x' in vhost")
      yield* call(() => three!.assertQueue("x"))
      assert.strictEqual(broker.openChannels, 1)
      assert.deepStrictEqual(broker.methods({ channel: 1 }), ["channel.open", "queue.declare", "channel.close-ok"])
    })
  )

  for (const fault of ["destroy", "end"] as const) {
    it.live(`dies before close-ok: ${fault}`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ on: { "channel.close": (ctx) => ctx[fault]() } })
        const connection = yield* connected(broker.url)
        const died = nextEvent(connection, "error")
        const channel = yield* openChannel(connection)
        void channel.close()
        assert.include(String(yield* died), fault === "destroy" ? "ECONNRESET" : "Unexpected close")
        yield* broker.socketsClosed
        assert.strictEqual(broker.openChannels, 0)
      })
    )
  }

  it.live("refuses the login or the vhost", () =>
    Effect.gen(function* () {
      const login = yield* ScriptedBroker.make({ on: { "connection.start-ok": ScriptedBroker.refuseLogin } })
      assert.include(String(yield* refusal(() => connect(login.url))), "ACCESS_REFUSED - Login was refused")
      const vhost = yield* ScriptedBroker.make({ on: { "connection.open": ScriptedBroker.unknownVhost } })
      yield* refusal(() => connect(`${vhost.url}/nowhere`)) // amqplib keeps the 530 to itself
      assert.strictEqual((yield* vhost.received("connection.open")).args.virtualHost, "nowhere")
      assert.strictEqual((yield* login.received("connection.start-ok")).args.response, "\0guest\0guest")
    })
  )

  it.live("is silent after it accepted, or resets", () =>
    Effect.gen(function* () {
      const silent = yield* ScriptedBroker.make({ on: { "protocol-header": (ctx) => ctx.hold() } })
      assert.include(String(yield* refusal(() => connect(silent.url, { timeout: 50 }))), "ETIMEDOUT")
      const resetting = yield* ScriptedBroker.make({ on: { accept: (ctx) => ctx.destroy() } })
      assert.include(String(yield* refusal(() => connect(resetting.url))), "ECONNRESET")
    })
  )

  it.live("proposes the tune it was given", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ tune: { channelMax: 2, frameMax: 4096, heartbeat: 0 } })
      const connection = yield* connected(broker.url)
      yield* Effect.all([connection, connection].map(openChannel))
      assert.include(String(yield* refusal(() => connection.createChannel())), "No channels left")
      assert.deepInclude(broker.connection().tuned, { channelMax: 2, frameMax: 4096, heartbeat: 0 })
    })
  )

  for (const by of ["rst", "fin"] as const) {
    it.live(`cuts the handshake after any number of bytes: ${by}`, () =>
      Effect.gen(function* () {
        const failures: Array<string> = []
        let cutOff = true
        for (let bytes = 0; cutOff; bytes += 9) {
          const broker = yield* ScriptedBroker.make({ cutAfter: { bytes, by } })
          const exit = yield* connected(broker.url).pipe(Effect.exit)
          cutOff = Exit.isFailure(exit)
          if (cutOff) failures.push(String(exit))
        }
        assert.isAbove(failures.length, 30) // a handshake is more than 270 bytes
        for (const failure of failures) assert.match(failure, /ECONNRESET|closed abruptly/)
      })
    )
  }

  it.live("cuts after exactly the configured number of bytes", () =>
    Effect.gen(function* () {
      for (const by of ["rst", "fin"] as const) {
        for (const bytes of [0, 1, 100]) {
          const broker = yield* ScriptedBroker.make({ cutAfter: { bytes, by } })
          const client = yield* rawClient(broker)
          client.write(PROTOCOL_HEADER)
          yield* client.closed
          assert.strictEqual(client.seen().length, bytes, by)
        }
      }
    })
  )

  it.live("writes random bytes", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.once("channel.open", (ctx) => ctx.write(Buffer.from("\x01\0\x01\0\0\0\x04rubbish")))
      const connection = yield* connected(broker.url)
      const failed = nextEvent(connection, "error")
      const opening = connection.createChannel()
      assert.include(String(yield* failed), "Invalid frame")
      yield* refusal(() => opening)
    })
  )
})
