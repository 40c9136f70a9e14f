/** Request and reply on a real broker: both sides, and peers that use another library. */
import { assert, describe, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  AmqpError,
  AmqpMessage,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import {
  Cause,
  Deferred,
  Effect,
  Exit,
  Fiber,
  type LogLevel,
  Metric,
  Option,
  Queue,
  References,
  Schema,
  SchemaGetter,
  type Scope
} from "effect"
import { configOf, reasonOf } from "./support/amqp.ts"
import { logged } from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"

class NoSuchUser extends Schema.TaggedError<NoSuchUser>()("NoSuchUser", { id: Schema.Int }) {}

const FindUser = AmqpRpc.make("users.find", {
  payload: { id: Schema.Int },
  success: Schema.Struct({ name: Schema.String, since: Schema.Date }),
  error: NoSuchUser
})
const findUser = AmqpRpc.client(FindUser)
const since = new Date("2024-02-29T12:00:00Z")
const alice = { name: "Alice", since }

const Echo = AmqpRpc.make("echo", { payload: Schema.String, success: Schema.String })
const echo = AmqpRpc.client(Echo)

type All = Amqp.Amqp | AmqpRpc.AmqpRpc

const layerOf = (url: string) => Amqp.fromConfig(configOf(url))

/** Runs a program with everything it needs, and closes all of it afterwards. The log contains only errors. */
const withAll = <A, E>(
  program: Effect.Effect<A, E, All | Scope.Scope | TestBroker.TestBroker>,
  level: LogLevel.LogLevel = "Fatal"
): Effect.Effect<A, E | AmqpError.AmqpError | TestBroker.TestBrokerError, TestBroker.TestBroker> =>
  Effect.gen(function* () {
    const broker = yield* TestBroker.TestBroker
    const result = yield* program.pipe(
      Effect.scoped,
      Effect.provide(layerOf(broker.url), { local: true }),
      Effect.provideService(References.MinimumLogLevel, level)
    )
    yield* broker.awaitCensus({ connections: 0, channels: 0, consumers: 0 })
    return result
  })

const declare = (queue: string, options?: AmqpChannel.QueueDeclareOptions) =>
  Effect.scoped(
    AmqpChannel.use((channel) =>
      Effect.gen(function* () {
        yield* channel.queueDelete(queue)
        yield* channel.queueDeclare(queue, options)
      })
    )
  )

/** Serves until the scope closes. */
const serving = <P extends Schema.Constraint, S extends Schema.Constraint, E extends Schema.Constraint>(
  procedure: AmqpRpc.Procedure<P, S, E>,
  handler: (payload: P["Type"], request: AmqpConsumer.Delivery) => Effect.Effect<S["Type"], E["Type"], Scope.Scope>,
  options?: AmqpRpc.ServeOptions
) =>
  Effect.forkScoped(
    AmqpRpc.serve(procedure, handler, options) as Effect.Effect<never, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer>
  )

const findAlice = ({ id }: { readonly id: number }) =>
  id === 1 ? Effect.succeed(alice) : Effect.fail(new NoSuchUser({ id }))

/** Opens the client's channel, so that a short timeout is available to the call alone. */
const warm = Effect.flip(AmqpRpc.client(AmqpRpc.make("nowhere"))())

/** The work of a handler or a caller: some milliseconds. */
const pause = (milliseconds: number) =>
  Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, milliseconds)))

/** Takes the messages of a queue out. Unsettled messages are not among them. */
const drain = (queue: string) =>
  Effect.scoped(
    AmqpChannel.use((channel) =>
      Effect.gen(function* () {
        const found: Array<AmqpMessage.Delivery> = []
        while (true) {
          const delivery = yield* channel.get(queue, { noAck: true })
          if (Option.isNone(delivery)) return found
          found.push(delivery.value)
        }
      })
    )
  )

/** Waits until the broker holds no message of this queue, ready or unsettled. */
const untilEmpty = (queue: string) =>
  Effect.gen(function* () {
    const broker = yield* TestBroker.TestBroker
    while (true) {
      const found = (yield* broker.queues).find(({ name }) => name === queue)
      if (found !== undefined && found.ready + found.unacked === 0) return
      yield* pause(5)
    }
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a call ends with", () => {
    it.effect("the handler's success or failure, typed", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("users.find")
          yield* serving(FindUser, findAlice)
          assert.deepStrictEqual(yield* findUser({ id: 1 }), alice)
          const error = yield* Effect.flip(findUser({ id: 2 }))
          assert.instanceOf(error, NoSuchUser)
          assert.strictEqual(error._tag === "NoSuchUser" && error.id, 2)
          yield* untilEmpty("users.find")
        })
      )
    )

    it.effect("undefined, if the procedure has no success schema", () =>
      withAll(
        Effect.gen(function* () {
          const Ping = AmqpRpc.make("ping")
          yield* declare("ping")
          yield* serving(Ping, () => Effect.void)
          assert.isUndefined(yield* AmqpRpc.client(Ping)())
        })
      )
    )

    it.effect("PublishReturned at once, when no queue takes the request", () =>
      withAll(
        Effect.gen(function* () {
          const nowhere = AmqpRpc.client(AmqpRpc.make("nowhere"), { timeout: "20 days" })
          const reason = yield* reasonOf(nowhere())
          assert.deepInclude(reason, { _tag: "PublishReturned", replyCode: 312, routingKey: "nowhere" })
        })
      )
    )

    it.effect("NotFound for an exchange that does not exist; the next call has another channel", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          yield* serving(Echo, Effect.succeed)
          const astray = AmqpRpc.client(AmqpRpc.make("astray", { exchange: "no such exchange" }))
          assert.strictEqual((yield* reasonOf(astray()))._tag, "NotFound")
          assert.strictEqual(yield* echo("again"), "again")
        })
      )
    )

    it.effect("RequestTimeout, when there is no server; the request has left its queue by then", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          yield* warm
          const reason = yield* reasonOf(echo("nobody", { timeout: 300 }))
          assert.strictEqual(reason._tag, "RequestTimeout")
          assert.include(reason.message, "had queued the request")
          // The broker's time to live started later than the client's timeout.
          yield* untilEmpty("echo")
          yield* reasonOf(echo("kept", { timeout: 300, expires: false }))
          assert.lengthOf(yield* drain("echo"), 1)
        })
      )
    )

    it.effect("RemoteFailure, when the handler dies or interrupts itself; the details stay on the server", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          yield* serving(Echo, (word) => {
            if (word === "die") return Effect.die(new Error("the password is 1234"))
            if (word === "throw") throw new Error("the password is 1234")
            return word === "interrupt" ? Effect.interrupt : Effect.succeed(word)
          })
          for (const word of ["die", "throw", "interrupt"]) {
            const reason = yield* reasonOf(echo(word))
            assert.strictEqual(reason._tag, "RemoteFailure", word)
            assert.notInclude(reason.message, "1234")
          }
          assert.strictEqual(yield* echo("alive"), "alive")
          yield* untilEmpty("echo")
        })
      )
    )

    it.effect("RemoteFailure, when the server returns or fails with a value that its schemas do not allow", () =>
      withAll(
        Effect.gen(function* () {
          const Age = AmqpRpc.make("age", { success: Schema.Int, error: Schema.Int })
          yield* declare("age")
          let call = 0
          yield* serving(Age, () => (call++ === 0 ? Effect.succeed(0.5) : Effect.fail(0.5)))
          assert.strictEqual((yield* reasonOf(AmqpRpc.client(Age)()))._tag, "RemoteFailure")
          assert.strictEqual((yield* reasonOf(AmqpRpc.client(Age)()))._tag, "RemoteFailure")
        })
      )
    )

    it.effect("RemoteFailure, when the schema of the payload dies", () =>
      withAll(
        Effect.gen(function* () {
          const broken = Schema.String.pipe(
            Schema.decodeTo(Schema.String, {
              decode: SchemaGetter.transform((): string => {
                throw new Error("the password is 1234")
              }),
              encode: SchemaGetter.passthrough()
            })
          )
          const Broken = AmqpRpc.make("broken", { payload: broken })
          yield* declare("broken")
          yield* serving(Broken, () => Effect.void)
          const reason = yield* reasonOf(AmqpRpc.client(Broken)("a"))
          assert.strictEqual(reason._tag, "RemoteFailure")
          assert.notInclude(reason.message, "1234")
          yield* untilEmpty("broken")
        })
      )
    )

    it.effect("RemoteFailure, when the reply is larger than the server's broker accepts", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          const publisher = yield* AmqpPublisher.make({ maxMessageSize: 1000 })
          yield* serving(Echo, (word) => Effect.succeed(word.repeat(1000))).pipe(
            Effect.updateService(AmqpConsumer.AmqpConsumer, (consumer) => ({ ...consumer, publisher }))
          )
          assert.strictEqual((yield* reasonOf(echo("x")))._tag, "RemoteFailure")
          assert.lengthOf(yield* echo(""), 0)
        })
      )
    )

    it.effect("MessageTooLarge, when the request is, which costs no other call its reply", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          yield* serving(Echo, Effect.succeed)
          const client = yield* AmqpRpc.makeClient({ maxMessageSize: 1000 })
          const words = ["a", "x".repeat(2000), "b"]
          const exits = yield* Effect.forEach(words, (word) => Effect.exit(client.call(Echo, word)), { concurrency: 3 })
          assert.deepStrictEqual([exits[0], exits[2]], [Exit.succeed("a"), Exit.succeed("b")])
          assert.strictEqual((yield* reasonOf(Effect.flatten(Effect.succeed(exits[1]!))))._tag, "MessageTooLarge")
        })
      )
    )

    it.effect(
      "RemoteFailure, which says why, when the server cannot read the request or serves another procedure",
      () =>
        withAll(
          Effect.gen(function* () {
            yield* declare("users.find")
            yield* serving(FindUser, findAlice)
            const Older = AmqpRpc.make("users.find", { payload: { id: Schema.String }, success: Schema.Void })
            const unread = yield* reasonOf(AmqpRpc.client(Older)({ id: "a secret" }))
            assert.strictEqual(unread._tag, "RemoteFailure")
            assert.include(unread.message, "$.id")
            assert.notInclude(unread.message, "a secret")
            const Delete = AmqpRpc.make("users.delete", { payload: { id: Schema.Int }, queue: "users.find" })
            const refused = yield* reasonOf(AmqpRpc.client(Delete)({ id: 1 }))
            assert.strictEqual(refused._tag, "RemoteFailure")
            assert.include(refused.message, "users.delete")
            yield* untilEmpty("users.find")
          })
        )
    )

    it.effect("InvalidArgument before anything is sent, for invalid options", () =>
      withAll(
        Effect.gen(function* () {
          const argument = (call: Effect.Effect<unknown, unknown, AmqpRpc.AmqpRpc | AmqpConsumer.AmqpConsumer>) =>
            Effect.map(reasonOf(call), (reason) => (reason._tag === "InvalidArgument" ? reason.argument : reason._tag))
          const options: ReadonlyArray<readonly [string, object]> = [
            ["timeout", { timeout: 0 }],
            ["timeout", { timeout: Number.NaN }],
            ["timeout", { timeout: "25 days" }],
            ["onBlocked", { onBlocked: "never" }],
            ["expires", { expires: "yes" }],
            ["priority", { priority: 256 }],
            ["headers", { headers: "none" }],
            ["headers.at", { headers: { at: Number.NaN } }],
            ["timeouts", { timeouts: 1 }]
          ]
          for (const [name, option] of options) {
            assert.strictEqual(yield* argument(echo("", option)), name)
            assert.strictEqual(yield* argument(AmqpRpc.client(Echo, option)("")), name)
          }
          const procedures: ReadonlyArray<readonly [string, unknown]> = [
            ["name", AmqpRpc.make("")],
            ["name", AmqpRpc.make("x".repeat(256))],
            ["name", AmqpRpc.make(7 as never)],
            ["name", AmqpRpc.make(undefined as never)],
            ["name", AmqpRpc.make("q", { name: "p" } as never)],
            ["options", AmqpRpc.make("q", null as never)],
            ["options", AmqpRpc.make("q", [] as never)],
            ["queue", AmqpRpc.make("q", { queue: "" })],
            ["exchange", AmqpRpc.make("q", { exchange: 7 as never })],
            ["success", AmqpRpc.make("q", { success: "string" as never })],
            ["payload", AmqpRpc.make("q", { payload: { id: "string" } as never })],
            ["timeout", AmqpRpc.make("q", { timeout: 5 } as never)],
            ["procedure", { ...Echo }],
            ["procedure", undefined]
          ]
          for (const [name, procedure] of procedures) {
            assert.strictEqual(yield* argument(AmqpRpc.client(procedure as typeof Echo)("")), name)
            assert.strictEqual(yield* argument(AmqpRpc.serve(procedure as typeof Echo, Effect.succeed)), name)
          }
          for (const replyTo of [
            "queues",
            true,
            null,
            ["payments"]
          ] as ReadonlyArray<unknown> as ReadonlyArray<"any">) {
            assert.strictEqual(yield* argument(AmqpRpc.serve(Echo, Effect.succeed, { replyTo })), "replyTo")
          }
          assert.strictEqual(yield* argument(echo(7 as never)), "content")
          assert.strictEqual(yield* argument(AmqpRpc.serve(Echo, undefined as never)), "handler")
          for (const nothing of [null, [], "options"] as ReadonlyArray<unknown> as ReadonlyArray<never>) {
            assert.strictEqual(yield* argument(echo("", nothing)), "options")
            assert.strictEqual(yield* argument(AmqpRpc.client(Echo, nothing)("", { priority: 1 })), "options")
            assert.strictEqual(yield* argument(AmqpRpc.client(Echo, { priority: 1 })("", nothing)), "options")
          }
          for (const [name, option] of [
            ["concurrency", { concurrency: 0 }],
            ["prefetch", { prefetch: 2, concurrency: 3 }],
            ["onFailure", { onFailure: AmqpConsumer.drop } as {}]
          ] as const) {
            assert.strictEqual(yield* argument(AmqpRpc.serve(Echo, Effect.succeed, option)), name)
          }
          for (const [name, option] of [
            ["maxInFlight", { maxInFlight: 0 }],
            ["maxWaiting", { maxWaiting: -1 }],
            ["maxMessageSize", { maxMessageSize: 0.5 }],
            ["max", { max: 1 } as {}]
          ] as const) {
            assert.strictEqual(yield* argument(Effect.scoped(AmqpRpc.makeClient(option)) as Effect.Effect<never>), name)
          }
          assert.deepInclude(yield* AmqpRpc.stats, { inFlight: 0, waiting: 0, replied: 0 })
        })
      )
    )
  })

  describe("of many calls", () => {
    it.effect("a thousand at once each get their own reply", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          // The handlers finish in another order than the requests arrived in.
          yield* serving(
            Echo,
            (word) =>
              Effect.as(
                Effect.promise(() => new Promise((resolve) => setTimeout(resolve, Number(word) % 7))),
                word
              ),
            { concurrency: 50 }
          )
          const words = Array.from({ length: 1000 }, (_, i) => String(i))
          const replies = yield* Effect.forEach(words, (word) => echo(word), { concurrency: "unbounded" })
          assert.deepStrictEqual(replies, words)
          assert.deepInclude(yield* AmqpRpc.stats, { inFlight: 0, waiting: 0, replied: 1000, unclaimed: 0 })
        })
      )
    )

    it.effect("a late reply is dropped and counted, and never reaches another call", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          const answer = yield* Deferred.make<void>()
          yield* serving(Echo, (word) =>
            word === "late" ? Effect.as(Deferred.await(answer), word) : Effect.succeed(word)
          )
          // The channels are open now, so the next request is sent within its timeout.
          assert.strictEqual(yield* echo("first"), "first")
          assert.strictEqual((yield* reasonOf(echo("late", { timeout: 200, expires: false })))._tag, "RequestTimeout")
          yield* Deferred.succeed(answer, undefined)
          while ((yield* AmqpRpc.stats).unclaimed === 0) assert.strictEqual(yield* echo("next"), "next")
          assert.deepInclude(yield* AmqpRpc.stats, { inFlight: 0, timedOut: 1, unclaimed: 1 })
        })
      )
    )
  })

  describe("when connections die", () => {
    it.effect("calls end with what is known of them, the server continues, the next call is answered", () =>
      withAll(
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* declare("echo")
          const taken = yield* Queue.unbounded<void>()
          yield* serving(
            Echo,
            (word) =>
              word === "hang" ? Effect.andThen(Queue.offer(taken, undefined), Effect.never) : Effect.succeed(word),
            { shutdownTimeout: 0 }
          )
          for (const kill of [broker.killConnections, broker.closeConnections()]) {
            const hanging = yield* Effect.forkChild(Effect.exit(echo("hang", { timeout: "1 hour", expires: false })), {
              startImmediately: true
            })
            yield* Queue.take(taken)
            yield* kill
            const reason = yield* reasonOf(Effect.flatten(Fiber.join(hanging)))
            assert.oneOf(reason._tag, ["ConnectionClosed", "PublishUnknown"])
            const again = Effect.retry(echo("again"), { while: (error) => error.isRetryable })
            assert.strictEqual(yield* again, "again")
          }
        })
      )
    )

    it.effect(
      "whatever is interrupted, late or lost: each call gets its own reply or a reason, and nothing is left",
      () =>
        withAll(
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            yield* declare("echo")
            yield* serving(Echo, (word) => Effect.as(pause(Number(word) % 13), word), { shutdownTimeout: 0 })
            const calls = yield* Effect.forEach(Array.from({ length: 400 }), (_, i) =>
              pause(i % 5).pipe(
                Effect.andThen(echo(String(i), { timeout: i % 3 === 0 ? 1 + (i % 40) : "10 seconds" })),
                Effect.exit,
                Effect.forkChild
              )
            )
            for (const [i, kill] of [
              broker.killConnections,
              broker.closeConnections(),
              broker.killConnections
            ].entries()) {
              yield* pause(10)
              yield* Fiber.interruptAll(calls.filter((_, j) => j % 10 === i))
              yield* kill
            }
            const known = ["RequestTimeout", "PublishTimeout", "PublishUnknown", "ConnectionClosed", "ChannelClosed"]
            for (const [i, call] of calls.entries()) {
              const exit = yield* Effect.exit(Effect.flatten(Fiber.join(call)))
              if (Exit.isSuccess(exit)) assert.strictEqual(exit.value, String(i))
              else if (!Cause.hasInterruptsOnly(exit.cause)) {
                assert.oneOf((yield* reasonOf(Effect.failCause(exit.cause)))._tag, known)
              }
            }
            assert.deepInclude(yield* AmqpRpc.stats, { inFlight: 0, waiting: 0 })
            assert.strictEqual(yield* Effect.retry(echo("0"), { while: (error) => error.isRetryable }), "0")
          })
        )
    )

    it.effect("a network that stalls costs a request its timeout; its reply is dropped when the network recovers", () =>
      withAll(
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* declare("echo")
          yield* serving(Echo, Effect.succeed)
          const proxy = yield* FaultProxy.make(broker.url)
          const connection = yield* AmqpConnection.make(configOf(proxy.through(broker.url)))
          const client = yield* AmqpRpc.makeClient().pipe(
            Effect.provideService(AmqpConnection.AmqpConnection, connection)
          )
          assert.strictEqual(yield* client.call(Echo, "before"), "before")
          proxy.stall("down")
          const reason = yield* reasonOf(client.call(Echo, "during", { timeout: 100, expires: false }))
          assert.strictEqual(reason._tag, "RequestTimeout")
          assert.include(reason.message, "had not confirmed")
          proxy.heal()
          assert.strictEqual(yield* client.call(Echo, "after"), "after")
          while ((yield* client.stats).unclaimed === 0) yield* pause(1)
          assert.deepInclude(yield* client.stats, { inFlight: 0, timedOut: 1, replied: 2, unclaimed: 1 })
        })
      )
    )

    it.effect("a server that ends in mid-request leaves the request to another", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          const taken = yield* Deferred.make<void>()
          const first = yield* Effect.forkChild(
            AmqpRpc.serve(Echo, () => Effect.andThen(Deferred.succeed(taken, undefined), Effect.never), {
              shutdownTimeout: 0
            })
          )
          const call = yield* Effect.forkChild(echo("patient"))
          yield* Deferred.await(taken)
          yield* Fiber.interrupt(first)
          yield* serving(Echo, (word, request) => Effect.succeed(`${word} ${request.redelivered}`))
          assert.strictEqual(yield* Fiber.join(call), "patient true")
        })
      )
    )
  })

  describe("a server", () => {
    it.effect("does not handle a request whose time was up before it was delivered", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          yield* warm
          yield* Effect.forEach(["a", "b", "c"], (word) => reasonOf(echo(word, { timeout: 100 })), { concurrency: 3 })
          // A request has arrived after its caller's time began, so the broker drops it a little later.
          yield* untilEmpty("echo")
          const handled: Array<string> = []
          yield* serving(Echo, (word) => {
            handled.push(word)
            return Effect.succeed(word)
          })
          yield* echo("in time")
          assert.deepStrictEqual(handled, ["in time"])
        })
      )
    )

    it.effect(
      "acknowledges a request after its reply was confirmed, and closes the handler's scope before the reply",
      () =>
        withAll(
          Effect.gen(function* () {
            yield* declare("echo")
            const events: Array<string> = []
            const note = (event: string) => Effect.sync(() => void events.push(event))
            const isSettled = { atReply: true }
            yield* serving(Echo, (word, request) =>
              Effect.gen(function* () {
                delivery = request
                yield* Effect.addFinalizer(() => note("scope closed"))
                yield* note("handled")
                return word
              })
            ).pipe(
              Effect.updateService(AmqpConsumer.AmqpConsumer, (consumer) => ({
                ...consumer,
                publisher: {
                  ...consumer.publisher,
                  publish: (message, options) =>
                    Effect.gen(function* () {
                      const confirmed = yield* consumer.publisher.publish(message, options)
                      isSettled.atReply = delivery?.isSettled ?? true
                      yield* note("reply confirmed")
                      return confirmed
                    })
                }
              }))
            )
            let delivery: AmqpConsumer.Delivery | undefined
            yield* echo("one")
            yield* untilEmpty("echo")
            assert.deepStrictEqual(events, ["handled", "scope closed", "reply confirmed"])
            assert.isFalse(isSettled.atReply)
          })
        )
    )

    it.effect("whose reply cannot be sent gets the request again, after pauses, until it has replied", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          let tries = 0
          const nacked = AmqpError.fromReason(new AmqpError.PublishNacked({ message: "no" }))
          const deliveries: Array<boolean> = []
          yield* serving(Echo, (word, { redelivered }) => {
            deliveries.push(redelivered)
            return Effect.succeed(word)
          }).pipe(
            Effect.updateService(AmqpConsumer.AmqpConsumer, (consumer) => ({
              ...consumer,
              publisher: {
                ...consumer.publisher,
                publish: (...args) =>
                  Effect.suspend(() => (++tries > 6 ? consumer.publisher.publish(...args) : Effect.fail(nacked)))
              }
            }))
          )
          const startedAt = performance.now()
          assert.strictEqual(yield* echo("late"), "late")
          assert.isAtLeast(performance.now() - startedAt, 1900)
          assert.deepStrictEqual(deliveries, [false, true, true])
          assert.strictEqual(tries, 7)
        })
      )
    )

    it.effect(
      "replies to no queue unless it is allowed to: such a request is rejected, unhandled, counted, logged",
      () =>
        logged((lines) =>
          withAll(
            Effect.gen(function* () {
              yield* declare("dead")
              yield* declare("payments")
              yield* declare("echo", { deadLetterExchange: "", deadLetterRoutingKey: "dead" })
              const handled: Array<string> = []
              yield* serving(Echo, (word) => Effect.sync(() => (handled.push(word), word)))
              const before = (yield* Metric.value(AmqpRpc.refusedReplies)).count
              for (const replyTo of ["payments", "payments", "amq.rabbitmq.reply-to", "amq.gen-1"]) {
                yield* AmqpPublisher.publish({
                  routingKey: "echo",
                  content: '"pay"',
                  correlationId: "1",
                  replyTo
                }).pipe(Effect.catchReason("AmqpError", "InvalidArgument", () => Effect.void))
              }
              assert.strictEqual(yield* echo("next"), "next")
              yield* untilEmpty("echo")
              assert.deepStrictEqual(handled, ["next"])
              assert.strictEqual((yield* Metric.value(AmqpRpc.refusedReplies)).count, before + 3)
              assert.lengthOf(yield* drain("payments"), 0)
              assert.lengthOf(yield* drain("dead"), 3)
              const warnings = lines.filter(({ text }) => text.includes("AMQP RPC request rejected"))
              assert.lengthOf(warnings, 3)
              assert.strictEqual(warnings[0]?.level, "Warn")
              assert.include(warnings[0]?.text, "payments")
            }),
            "Warn"
          )
        )
    )

    it.effect("logs a few of many requests that it refuses or fails, and then their number", () =>
      logged((lines) =>
        withAll(
          Effect.gen(function* () {
            yield* declare("echo")
            const send = (content: string, replyTo: string) =>
              AmqpPublisher.publish({ routingKey: "echo", content, correlationId: "1", replyTo })
            const server = yield* Effect.forkScoped(
              AmqpRpc.serve(Echo, () => Effect.die("broken"), { replyTo: (queue) => queue === "nowhere" })
            )
            for (let i = 0; i < 12; i++) {
              yield* send("{", "nowhere")
              yield* send('"it"', "nowhere")
              yield* send('"it"', "payments")
            }
            yield* untilEmpty("echo")
            yield* Fiber.interrupt(server)
            for (const [title, level] of [
              ["AMQP RPC request refused", "Warn"],
              ["AMQP RPC handler died", "Error"],
              ["AMQP RPC request rejected", "Warn"]
            ] as const) {
              const written = lines.filter(({ text }) => text.startsWith(title))
              assert.lengthOf(written, 6, title)
              assert.strictEqual(written[5]?.level, level)
              assert.match(written[5]?.text ?? "", /, and 7 more in the last .*"procedure":"echo"/)
            }
          }),
          "Warn"
        )
      )
    )

    it.effect("replies to the queues that a function allows, and by direct reply-to in any case", () =>
      withAll(
        Effect.gen(function* () {
          for (const queue of ["echo", "replies.of.shop", "payments"]) yield* declare(queue)
          const asked: Array<string> = []
          yield* serving(Echo, Effect.succeed, {
            replyTo: (queue) => {
              asked.push(queue)
              return queue.startsWith("replies.")
            }
          })
          for (const replyTo of ["payments", "replies.of.shop"]) {
            yield* AmqpPublisher.publish({ routingKey: "echo", content: '"it"', correlationId: "1", replyTo })
          }
          assert.strictEqual(yield* echo("direct"), "direct")
          yield* untilEmpty("echo")
          assert.deepStrictEqual(asked, ["payments", "replies.of.shop"])
          assert.lengthOf(yield* drain("payments"), 0)
          assert.deepStrictEqual((yield* drain("replies.of.shop")).map(AmqpMessage.text), ['"it"'])
        })
      )
    )

    it.effect("answers peers that have their own reply queue, by the wire format", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("users.find")
          yield* serving(FindUser, findAlice, { replyTo: "any" })
          yield* AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              const { queue } = yield* channel.queueDeclare("", { exclusive: true })
              const { deliveries } = yield* channel.consume(queue, { noAck: true })
              const ask = (content: string, correlationId: string, properties: AmqpMessage.Properties = {}) =>
                Effect.gen(function* () {
                  yield* channel.publish({
                    routingKey: "users.find",
                    content,
                    correlationId,
                    replyTo: queue,
                    ...properties
                  })
                  const reply = yield* Queue.take(deliveries)
                  return [reply.properties.correlationId, reply.properties.type, JSON.parse(AmqpMessage.text(reply))]
                })
              assert.deepStrictEqual(yield* ask('{"id":1}', "one"), [
                "one",
                "success",
                { name: "Alice", since: "2024-02-29T12:00:00.000Z" }
              ])
              assert.deepStrictEqual(yield* ask('{"id":2}', "two", { type: "users.find" }), [
                "two",
                "failure",
                { _tag: "NoSuchUser", id: 2 }
              ])
              const [id, type, content] = yield* ask("{", "three", { type: "users.find" })
              assert.deepStrictEqual([id, type], ["three", "defect"])
              assert.hasAllKeys(content, ["message"])
            })
          )
        })
      )
    )

    it.effect("counts the replies whose queue is gone or whose address is invalid, and continues", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          yield* serving(Echo, Effect.succeed, { replyTo: "any" })
          const before = (yield* Metric.value(AmqpRpc.unroutable)).count
          const addresses = [
            "a queue that was deleted",
            // RabbitMQ 3.10 closes the connection of a client that publishes to one of these.
            "amq.rabbitmq.reply-to.nobody.nothing",
            "amq.rabbitmq.reply-to.AAAA.AAAA",
            "amq.rabbitmq.reply-to.g2gA.AAAA",
            "amq.rabbitmq.reply-to.g1h2AA.AAAA",
            "amq.rabbitmq.reply-to.",
            "amq.rabbitmq.reply-to.a",
            "amq.rabbitmq.reply-to.a.b.c"
          ]
          for (const replyTo of addresses) {
            yield* AmqpPublisher.publish({ routingKey: "echo", content: '"anybody?"', correlationId: "1", replyTo })
          }
          assert.strictEqual(yield* echo("next"), "next")
          yield* untilEmpty("echo")
          assert.strictEqual((yield* Metric.value(AmqpRpc.unroutable)).count, before + addresses.length)
          const { state } = yield* AmqpConnection.AmqpConnection
          assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
        })
      )
    )

    it.effect("handles a request that needs no reply, and gets it again after a pause if the handler fails", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("users.find")
          const handled: Array<number> = []
          yield* serving(
            FindUser,
            (payload) => {
              handled.push(payload.id)
              return handled.length > 3 ? Effect.succeed(alice) : findAlice(payload)
            },
            { concurrency: 1, prefetch: 4 }
          )
          for (const content of ['{"id":1}', '{"id":2}', "{"]) {
            yield* AmqpPublisher.publish({ routingKey: "users.find", content })
          }
          yield* findUser({ id: 1 })
          while (handled.length < 4) yield* pause(20)
          assert.deepStrictEqual(handled, [1, 2, 1, 2])
          // A message that cannot be read stays, too.
          const broker = yield* TestBroker.TestBroker
          const left = Effect.map(broker.queues, (all) => all.find(({ name }) => name === "users.find")?.messages)
          assert.strictEqual(yield* Effect.repeat(left, { until: (messages) => messages === 1 }), 1)
        })
      )
    )
  })

  describe("a client", () => {
    it.effect("reaches the queue by exchange and routing key, with its headers", () =>
      withAll(
        Effect.gen(function* () {
          const Price = AmqpRpc.make("price.of", {
            payload: { article: Schema.String },
            success: Schema.Array(Schema.String),
            exchange: "rpc",
            routingKey: "price.europe",
            queue: "prices"
          })
          yield* declare("prices")
          yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.andThen(
                channel.exchangeDeclare("rpc", "topic", { autoDelete: true }),
                channel.queueBind("prices", "rpc", "price.*")
              )
            )
          )
          yield* serving(Price, ({ article }, { properties, routingKey }) =>
            Effect.succeed([article, String(properties.headers["tenant"]), routingKey, String(properties.type)])
          )
          const price = AmqpRpc.client(Price, { headers: { tenant: "a" } })
          assert.deepStrictEqual(yield* price({ article: "tea" }), ["tea", "a", "price.europe", "price.of"])
          assert.deepStrictEqual(yield* price({ article: "tea" }, { headers: { tenant: "b" } }), [
            "tea",
            "b",
            "price.europe",
            "price.of"
          ])
        })
      )
    )

    it.effect("is answered by a peer that supports only correlationId and replyTo", () =>
      withAll(
        Effect.gen(function* () {
          yield* declare("echo")
          yield* AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              const { deliveries } = yield* channel.consume("echo")
              const call = yield* Effect.forkChild(echo("you there"))
              const request = yield* Queue.take(deliveries)
              const { correlationId, replyTo } = request.properties
              yield* channel.publish({ routingKey: replyTo!, correlationId, content: '"yes"' })
              yield* channel.ack(request)
              assert.strictEqual(yield* Fiber.join(call), "yes")
            })
          )
        })
      )
    )
  })
})
