// What crosses the border between the two Effects: spans, log lines, the clock, causes and interruptions.
import {
  Amqp,
  AmqpChannel,
  AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  AmqpError,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc,
  AmqpTopology
} from "@effect-amqp/platform"
import { assert, describe, it, layer } from "@effect/vitest"
import {
  BigDecimal,
  Cause,
  type Clock,
  Config,
  ConfigError,
  ConfigProvider,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FiberId,
  HashMap,
  HashSet,
  Layer,
  Logger,
  LogLevel,
  Option,
  Queue,
  Redacted,
  Schema,
  TestClock,
  TestContext,
  Tracer
} from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as tls from "node:tls"
import * as Application from "./support/application.ts"
import { Broker, layer as BrokerLayer } from "./support/Broker.ts"
import { untilStats } from "./support/polling.ts"

/** A tracer that keeps its spans. */
const tracer = () => {
  const spans: Array<Tracer.Span> = []
  const native = Effect.runSync(Effect.tracer)
  return {
    spans,
    tracer: Tracer.make({
      span: (...args) => {
        const span = native.span(...args)
        spans.push(span)
        return span
      },
      context: (f) => f()
    })
  }
}

const lines = () => {
  const all: Array<{ readonly text: string; readonly level: string; readonly annotations: Record<string, unknown> }> =
    []
  const logger = Logger.make(({ annotations, logLevel, message }) => {
    all.push({
      text: Array.isArray(message) ? message.join(" ") : String(message),
      level: logLevel.label,
      annotations: Object.fromEntries(HashMap.toEntries(annotations))
    })
  })
  return { all, layer: Logger.replace(Logger.defaultLogger, logger) }
}

/** The tree of a cause, without what Effect adds to its leaves. */
const shape = (cause: Cause.Cause<unknown>): unknown =>
  Cause.match(cause, {
    onEmpty: "empty" as unknown,
    onFail: (error) => `fail ${String(error)}`,
    onDie: (defect) => `die ${String(defect)}`,
    onInterrupt: () => "interrupt",
    onSequential: (left, right) => ({ sequential: [left, right] }),
    onParallel: (left, right) => ({ parallel: [left, right] })
  })

describe("the border", () => {
  layer(BrokerLayer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.effect("one trace: publisher, message and handler", () => {
      const { spans, tracer: own } = tracer()
      return Effect.gen(function* () {
        const handled = yield* Deferred.make<Tracer.AnySpan>()
        yield* AmqpChannel.use((channel) => channel.queueDeclare("traced"))
        yield* Effect.forkScoped(
          AmqpConsumer.consume("traced", (delivery) =>
            Effect.gen(function* () {
              assert.match(String(delivery.properties.headers["traceparent"]), /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/)
              yield* Effect.withSpan(
                Effect.flatMap(Effect.currentSpan, (span) => Deferred.succeed(handled, span)),
                "handler"
              )
            })
          )
        )
        const root = yield* Effect.withSpan(
          Effect.zipRight(AmqpPublisher.publish({ routingKey: "traced", content: "x" }), Effect.currentSpan),
          "request"
        )
        const handler = yield* Deferred.await(handled)
        assert.strictEqual(handler.traceId, root.traceId)
        const named = (name: string) => spans.find((span) => span.name === name)!
        const publish = named("publish traced")
        const process = named("process traced")
        assert.strictEqual(Option.getOrThrow(publish.parent).spanId, root.spanId)
        assert.strictEqual(publish.kind, "producer")
        assert.strictEqual(publish.attributes.get("messaging.system"), "rabbitmq")
        assert.strictEqual(Option.getOrThrow(process.parent).spanId, publish.spanId)
        assert.strictEqual(Option.getOrThrow(named("handler").parent).spanId, process.spanId)
        assert.strictEqual(publish.status._tag, "Ended")
      }).pipe(Effect.scoped, Effect.provide(Application.amqp()), Effect.withTracer(own))
    })

    it.effect("one trace: call, request and handler, whose log lines have the annotations of both sides", () => {
      const { spans, tracer: own } = tracer()
      const { all, layer } = lines()
      return Effect.gen(function* () {
        const procedure = AmqpRpc.make("traced.rpc", { success: Schema.String, error: Schema.String })
        yield* AmqpChannel.use((channel) => channel.queueDeclare("traced.rpc"))
        const server = AmqpRpc.serve(procedure, (_, { properties }) =>
          Effect.gen(function* () {
            yield* Effect.log("asked")
            const { spanId } = yield* Effect.orDie(Effect.currentSpan)
            return `${properties.headers["traceparent"]} ${spanId}`
          }).pipe(Effect.withSpan("handler"), Effect.annotateLogs("handler", "price"), Effect.withLogSpan("asking"))
        )
        const serving = yield* Effect.fork(Effect.annotateLogs(server, "side", "server"))
        const [reply, root] = yield* AmqpRpc.client(procedure)().pipe(
          Effect.zip(Effect.currentSpan),
          Effect.withSpan("request"),
          Effect.annotateLogs("side", "client")
        )
        // The span of the request ends after the reply.
        yield* Fiber.interrupt(serving)
        const named = (name: string) => spans.find((span) => span.name === name)!
        const [call, process, handler] = [named("call traced.rpc"), named("process traced.rpc"), named("handler")]
        assert.deepStrictEqual(new Set(spans.map(({ name }) => name)).size, spans.length)
        assert.strictEqual(Option.getOrThrow(call.parent).spanId, root.spanId)
        assert.strictEqual(Option.getOrThrow(process.parent).spanId, call.spanId)
        assert.strictEqual(Option.getOrThrow(handler.parent).spanId, process.spanId)
        for (const { traceId } of [call, process, handler]) assert.strictEqual(traceId, root.traceId)
        assert.strictEqual(reply, `00-${root.traceId}-${call.spanId}-01 ${handler.spanId}`)
        assert.deepStrictEqual([call.kind, process.kind], ["client", "server"])
        assert.strictEqual(call.attributes.get("rpc.method"), "traced.rpc")
        assert.strictEqual(process.attributes.get("amqp.rpc.reply"), "success")
        const asked = all.find(({ text }) => text === "asked")
        assert.deepStrictEqual(asked?.annotations, { side: "server", handler: "price" })
      }).pipe(Effect.scoped, Effect.provide(Application.amqp()), Effect.withTracer(own), Effect.provide(layer))
    })

    it.effect("a failure ends the span of its call as a failure, and a defect is logged by the server", () => {
      const { spans, tracer: own } = tracer()
      const { all, layer } = lines()
      return Effect.gen(function* () {
        const procedure = AmqpRpc.make("traced.failure", { payload: Schema.Boolean, error: Schema.String })
        yield* AmqpChannel.use((channel) => channel.queueDeclare("traced.failure"))
        const server = AmqpRpc.serve(procedure, (dies) => (dies ? Effect.die(new Error("bug")) : Effect.fail("no")))
        yield* Effect.forkScoped(Effect.annotateLogs(server, "side", "server"))
        const call = AmqpRpc.client(procedure)
        assert.strictEqual(yield* Effect.flip(call(false)), "no")
        const { status } = spans.find(({ name }) => name === "call traced.failure")!
        assert(status._tag === "Ended")
        assert.deepStrictEqual(status.exit, Exit.fail("no"))
        yield* Effect.flip(call(true))
        const line = all.find(({ level, text }) => level === "ERROR" && text.includes("RPC"))
        assert.strictEqual(line?.annotations["side"], "server")
        assert.strictEqual(line?.annotations["procedure"], "traced.failure")
      }).pipe(Effect.scoped, Effect.provide(Application.amqp()), Effect.withTracer(own), Effect.provide(layer))
    })

    it.effect("a call outside all spans begins a trace of its own, wherever the layer was built", () => {
      const { spans, tracer: own } = tracer()
      return Effect.gen(function* () {
        const context = yield* Effect.withSpan(Layer.build(Application.amqp()), "startup")
        yield* AmqpPublisher.publish({ routingKey: "nowhere", content: "x" }).pipe(Effect.provide(context))
        const publish = spans.find(({ name }) => name === "publish nowhere")
        assert.isTrue(Option.isNone(publish!.parent))
      }).pipe(Effect.scoped, Effect.withTracer(own))
    })

    it.effect("a caller disables tracing or its timing, annotates spans and links them, each for its own calls", () => {
      const { spans, tracer: own } = tracer()
      return Effect.gen(function* () {
        const publish = AmqpPublisher.publish({ routingKey: "nowhere", content: "x" })
        // In one fiber and span, so that only references distinguish the calls.
        const calls = Effect.gen(function* () {
          const parent = yield* Effect.currentSpan
          yield* publish
          yield* publish.pipe(Effect.withTracerEnabled(false))
          yield* publish.pipe(Effect.annotateSpans("tenant", "acme"))
          yield* publish.pipe(Effect.linkSpans(parent, { why: "cause" }))
          yield* publish.pipe(Effect.withTracerTiming(false))
          yield* publish
          return parent
        })
        const parent = yield* Effect.withSpan(calls, "request")
        const published = spans.filter(({ name }) => name === "publish nowhere")
        assert.deepStrictEqual(
          published.map(({ attributes, links, status }) => [
            attributes.get("tenant"),
            links.length,
            status.startTime > 0n
          ]),
          [
            [undefined, 0, true],
            ["acme", 0, true],
            [undefined, 1, true],
            [undefined, 0, false],
            [undefined, 0, true]
          ]
        )
        const [link] = published[2]!.links
        assert.strictEqual(link!.span, parent)
        assert.deepStrictEqual(link!.attributes, { why: "cause" })
        spans.length = 0
        yield* publish.pipe(Effect.withSpan("hidden", { context: Context.make(Tracer.DisablePropagation, true) }))
        const shown = spans.find(({ name }) => name === "publish nowhere")
        assert.isTrue(shown === undefined || Option.isNone(shown.parent))
      }).pipe(Effect.provide(Application.amqp()), Effect.withTracer(own))
    })

    it.scoped("a layer by fromConfig connects once, however many layers it is provided to", () =>
      Effect.gen(function* () {
        const { url } = yield* Broker
        const config = yield* AmqpConfig.make({ url })
        const uses = (amqp: Layer.Layer<Amqp.Amqp, AmqpError.AmqpError>) =>
          Layer.provide(
            Layer.scopedContext(Effect.map(AmqpConnection.AmqpConnection, (used) => Context.make(Used, used))),
            amqp
          )
        class Used extends Context.Tag("test/Used")<Used, object>() {}
        class Other extends Context.Tag("test/Other")<Other, object>() {}
        const as = (amqp: Layer.Layer<Amqp.Amqp, AmqpError.AmqpError>) =>
          Layer.project(uses(amqp), Used, Other, (used) => used)
        const one = Amqp.fromConfig(config)
        const shared = yield* Layer.build(Layer.merge(uses(one), as(one)))
        assert.strictEqual(Context.get(shared, Used), Context.get(shared, Other))
        const separate = yield* Layer.build(Layer.merge(uses(one), as(Amqp.fromConfig(config))))
        assert.notStrictEqual(Context.get(separate, Used), Context.get(separate, Other))
      })
    )

    it.effect("a defect of an interrupted handler's finalizers is logged", () => {
      const { all, layer } = lines()
      return Effect.gen(function* () {
        yield* AmqpChannel.use((channel) => channel.queueDeclare("dying"))
        const started = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(
          AmqpConsumer.consume(
            "dying",
            () =>
              Effect.zipRight(Deferred.succeed(started, undefined), Effect.never).pipe(
                Effect.onInterrupt(() => Effect.die(new Error("bug")))
              ),
            { shutdownTimeout: "10 millis" }
          )
        )
        yield* AmqpPublisher.publish({ routingKey: "dying", content: "x" })
        yield* Deferred.await(started)
        yield* Fiber.interrupt(fiber)
        const line = all.find(({ text }) => text.includes("died while it was interrupted"))
        assert.strictEqual(line?.level, "ERROR")
      }).pipe(Effect.scoped, Effect.provide(Application.amqp()), Effect.provide(layer))
    })

    it.effect("log lines go to Effect 3's loggers, with levels and annotations of both sides", () => {
      const { all, layer } = lines()
      return Effect.gen(function* () {
        yield* Effect.scoped(AmqpPool.stats).pipe(
          Effect.provide(Application.amqp()),
          Effect.annotateLogs("app", "shop")
        )
        const open = all.find(({ text }) => text === "AMQP connection open")
        assert.strictEqual(open?.level, "INFO")
        assert.strictEqual(open?.annotations["app"], "shop")
        assert.property(open?.annotations, "peer")
        all.length = 0
        yield* AmqpPool.stats.pipe(Effect.provide(Application.amqp()), Logger.withMinimumLogLevel(LogLevel.Warning))
        assert.deepStrictEqual(all, [])
      }).pipe(Effect.provide(layer))
    })

    it.effect(
      "waits follow the clock with which the layer was built, and handlers that of the fiber that consumes",
      () =>
        Effect.gen(function* () {
          const { url } = yield* Broker
          // In a fiber of its own, because the TestContext changes the references of the fiber that builds it.
          const clock = yield* Effect.promise(() =>
            Effect.runPromise(Effect.scoped(Effect.provide(TestClock.testClock(), TestContext.TestContext)))
          )
          const options = { url, pool: { max: 1, acquireTimeout: Duration.seconds(10) } }
          const services = yield* Effect.withClock(Layer.build(Amqp.layer(options)), clock)
          yield* Effect.gen(function* () {
            const pool = yield* AmqpPool.AmqpPool
            // The borrowers are on the system's clock, on which ten seconds have not passed.
            const gate = yield* Deferred.make<void>()
            const holder = yield* Effect.fork(pool.use(() => Deferred.await(gate)))
            yield* Effect.repeat(pool.stats, { until: ({ used }) => used === 1 })
            const waiting = yield* Effect.fork(Effect.flip(pool.use(() => Effect.void)))
            yield* Effect.repeat(pool.stats, { until: ({ pending }) => pending === 1 })
            yield* clock.adjust("9 seconds")
            assert.strictEqual((yield* pool.stats).pending, 1)
            yield* clock.adjust("1 second")
            const error = yield* Fiber.join(waiting)
            assert.strictEqual(error.reason._tag, "AcquireTimeout")
            yield* Deferred.succeed(gate, undefined)
            yield* Fiber.join(holder)
            yield* pool.use((channel) => channel.queueDeclare("clocks"))
            const ofHandler = yield* Deferred.make<Clock.Clock>()
            yield* Effect.forkScoped(
              AmqpConsumer.consume("clocks", () =>
                Effect.flatMap(Effect.clock, (own) => Deferred.succeed(ofHandler, own))
              )
            )
            yield* AmqpPublisher.publish({ routingKey: "clocks", content: "x" })
            assert.strictEqual(yield* Deferred.await(ofHandler), yield* Effect.clock)
          }).pipe(Effect.provide(services))
        }).pipe(Effect.scoped)
    )

    it.effect("values of Effect 3 in options, messages and headers", () =>
      Effect.gen(function* () {
        const delivery = yield* AmqpChannel.useConfirm((channel) =>
          Effect.gen(function* () {
            yield* channel.queueDeclare("values", { messageTtl: Duration.minutes(1), expires: "10 minutes" })
            yield* channel.publish(
              {
                routingKey: "values",
                content: "x",
                expiration: Duration.seconds(30),
                headers: { price: BigDecimal.unsafeFromString("1.25"), list: [1, "a"] }
              },
              { timeout: Duration.seconds(5) }
            )
            return yield* channel.get("values", { noAck: true })
          })
        ).pipe(Effect.scoped)
        const { properties } = Option.getOrThrow(delivery)
        assert.strictEqual(properties.expiration, 30_000)
        const { price } = properties.headers
        assert(BigDecimal.isBigDecimal(price))
        assert.strictEqual(BigDecimal.format(price), "1.25")
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.effect("headers that contain themselves are refused as the core refuses them", () =>
      Effect.gen(function* () {
        const messageOf = (headers: object) =>
          Effect.map(
            Effect.flip(AmqpPublisher.publish({ routingKey: "nowhere", content: "", headers: headers as never })),
            ({ message, reason }) => [reason._tag, message]
          )
        const plain: Record<string, unknown> = {}
        plain["self"] = plain
        // With a value of Effect 3 the headers are copied.
        const copied: Record<string, unknown> = { list: [], price: BigDecimal.make(5n, 1) }
        copied["list"] = [1, copied]
        let deep: Record<string, unknown> = { price: BigDecimal.make(5n, 1) }
        for (let i = 0; i < 100_000; i++) deep = { deep }
        const expected = "expected a value that does not contain itself, got a cycle. Nothing was sent."
        assert.deepStrictEqual(yield* messageOf(plain), ["InvalidArgument", `basic.publish: headers.self: ${expected}`])
        assert.deepStrictEqual(yield* messageOf(copied), [
          "InvalidArgument",
          `basic.publish: headers.list[1]: ${expected}`
        ])
        assert.strictEqual((yield* messageOf(deep))[0], "InvalidArgument")
        const error = yield* Effect.flip(
          Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("", { arguments: plain as never })))
        )
        assert(AmqpError.isAmqpError(error))
        assert.include(error.message, "arguments.self: expected a value that does not contain itself")
        const topology = AmqpTopology.make(AmqpTopology.queue("cyclic", { arguments: plain as never }))
        const refused = yield* Effect.flip(AmqpTopology.declare(topology))
        assert.include(refused.message, "expected a value that does not contain itself")
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.effect("a defect of a borrower is its own, and no rejection is unhandled", () =>
      Effect.gen(function* () {
        const rejections: Array<unknown> = []
        const note = (reason: unknown) => void rejections.push(reason)
        process.on("unhandledRejection", note)
        const bug = new Error("bug")
        const exit = yield* Effect.exit(Effect.scoped(AmqpChannel.use(() => Effect.die(bug))))
        assert(Exit.isFailure(exit))
        assert.deepStrictEqual([...Cause.defects(exit.cause)], [bug])
        const failed = yield* Effect.exit(
          Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive("missing")))
        )
        assert(Exit.isFailure(failed))
        const error = Option.getOrThrow(Cause.failureOption(failed.cause))
        assert(error instanceof AmqpError.AmqpError && error.reason instanceof AmqpError.NotFound)
        assert.strictEqual(error.reason.operation, "queue.declare")
        assert.strictEqual(error._tag, "AmqpError")
        assert.strictEqual(error.message, error.reason.message)
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 10)))
        process.off("unhandledRejection", note)
        assert.deepStrictEqual(rejections, [])
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.effect(
      "onFailure gets the first failure of a handler's cause, and onDefect the first defect if there is none",
      () =>
        Effect.gen(function* () {
          const { parallel, sequential } = Cause
          const interrupt = Cause.interrupt(FiberId.none)
          const causes: Record<string, readonly [string, Effect.Effect<never, string>]> = {
            "parallel: a defect, then a failure": [
              "failure f",
              Effect.failCause(parallel(Cause.die("d"), Cause.fail("f")))
            ],
            "parallel: an interruption, then a failure": [
              "failure f",
              Effect.failCause(parallel(interrupt, Cause.fail("f")))
            ],
            "sequential: a defect, then a failure": [
              "failure f",
              Effect.failCause(sequential(Cause.die("d"), Cause.fail("f")))
            ],
            "nested: three failures": [
              "failure 1",
              Effect.failCause(sequential(parallel(Cause.fail("1"), Cause.fail("2")), Cause.fail("3")))
            ],
            "nested: interruptions and two defects": [
              "defect 1",
              Effect.failCause(parallel(sequential(interrupt, Cause.die("1")), sequential(Cause.die("2"), interrupt)))
            ],
            "a finalizer that dies after a failure": ["failure f", Effect.ensuring(Effect.fail("f"), Effect.die("d"))],
            "a failure that interrupts its sibling": [
              "failure f",
              Effect.zipRight(Effect.never, Effect.fail("f"), { concurrent: true })
            ]
          }
          const seen = yield* Queue.unbounded<string>()
          const choose = (name: string) => (reason: unknown) => {
            seen.unsafeOffer(`${name} ${String(reason)}`)
            return AmqpConsumer.drop
          }
          yield* AmqpChannel.use((channel) => channel.queueDeclare("causes"))
          yield* Effect.forkScoped(
            AmqpConsumer.consume("causes", (delivery) => causes[String(delivery.properties.messageId)]![1], {
              onFailure: choose("failure"),
              onDefect: choose("defect")
            })
          )
          for (const [name, [expected]] of Object.entries(causes)) {
            yield* AmqpPublisher.publish({ routingKey: "causes", content: "x", messageId: name })
            assert.strictEqual(yield* Queue.take(seen), expected, name)
          }
        }).pipe(Effect.scoped, Effect.provide(Application.amqp()))
    )

    it.effect("a handler's cause of interruptions only is for neither policy: the message is delivered again", () => {
      const { all, layer } = lines()
      return Effect.gen(function* () {
        const calls: Array<unknown> = []
        const choose = (reason: unknown) => {
          calls.push(reason)
          return AmqpConsumer.drop
        }
        const again = yield* Deferred.make<void>()
        const interrupted = Cause.parallel(Cause.interrupt(FiberId.runtime(1, 0)), Cause.interrupt(FiberId.none))
        yield* AmqpChannel.use((channel) => channel.queueDeclare("interruptions"))
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            "interruptions",
            ({ redelivered }) => (redelivered ? Deferred.succeed(again, undefined) : Effect.failCause(interrupted)),
            { onFailure: choose, onDefect: choose }
          )
        )
        yield* AmqpPublisher.publish({ routingKey: "interruptions", content: "x" })
        yield* Deferred.await(again)
        assert.deepStrictEqual(calls, [])
        assert.lengthOf(
          all.filter(({ text }) => text.startsWith("AMQP handler was interrupted")),
          1
        )
      }).pipe(Effect.scoped, Effect.provide(Application.amqp()), Effect.provide(layer))
    })

    it.effect("the cause of a borrower keeps its shape", () =>
      Effect.gen(function* () {
        const cause = Cause.sequential(Cause.parallel(Cause.fail("1"), Cause.die("2")), Cause.fail("3"))
        const failing = Effect.failCause(cause)
        const { confirm, transaction, use } = yield* AmqpPool.AmqpPool
        const ways: ReadonlyArray<Effect.Effect<unknown, unknown, AmqpPool.AmqpPool>> = [
          use(() => failing),
          confirm.use(() => failing),
          transaction.use(() => failing),
          AmqpChannel.useTransaction(() => failing),
          Effect.scoped(AmqpChannel.use(() => failing))
        ]
        for (const way of ways) {
          const exit = yield* Effect.exit(way)
          assert(Exit.isFailure(exit))
          assert.deepStrictEqual(shape(exit.cause), { sequential: [{ parallel: ["fail 1", "die 2"] }, "fail 3"] })
        }
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.effect("an interrupted transaction keeps the defects of its effect's finalizers", () =>
      Effect.gen(function* () {
        const bug = new Error("bug")
        const started = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(
          AmqpChannel.useTransaction((channel) =>
            channel.publish({ routingKey: "nowhere", content: "x" }).pipe(
              Effect.zipRight(Deferred.succeed(started, undefined)),
              Effect.zipRight(Effect.never),
              Effect.onInterrupt(() => Effect.die(bug))
            )
          )
        )
        yield* Deferred.await(started)
        const exit = yield* Fiber.interrupt(fiber)
        assert(Exit.isFailure(exit))
        assert.isTrue(Cause.isInterrupted(exit.cause))
        assert.deepStrictEqual([...Cause.defects(exit.cause)], [bug])
      }).pipe(Effect.provide(Application.amqp()))
    )

    it.effect("an interrupted operation has its interruptor in its cause; a handler is interrupted without one", () =>
      Effect.gen(function* () {
        const interruptor = FiberId.runtime(1_000_000, 0)
        const interruptorsOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>) =>
          Effect.map(Fiber.interruptAs(fiber, interruptor), (exit) => {
            assert(Exit.isFailure(exit))
            assert.isTrue(Cause.isInterruptedOnly(exit.cause))
            return HashSet.toValues(Cause.interruptors(exit.cause))
          })
        const { get, use } = yield* AmqpPool.AmqpPool
        const waits = [use(() => Effect.void), Effect.scoped(get), Effect.scoped(AmqpChannel.use(() => Effect.void))]
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* get
            for (const wait of waits) {
              const fiber = yield* Effect.fork(wait)
              yield* untilStats(({ pending }) => pending === 1)
              assert.deepStrictEqual(yield* interruptorsOf(fiber), [interruptor])
            }
          })
        )
        const started = yield* Deferred.make<void>()
        const ofHandler = yield* Deferred.make<ReadonlyArray<FiberId.FiberId>>()
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("interruptors")))
        const consumer = yield* Effect.fork(
          AmqpConsumer.consume(
            "interruptors",
            () =>
              Effect.onInterrupt(Effect.zipRight(Deferred.succeed(started, undefined), Effect.never), (interruptors) =>
                Deferred.succeed(ofHandler, HashSet.toValues(interruptors))
              ),
            { shutdownTimeout: 0 }
          )
        )
        yield* AmqpPublisher.publish({ routingKey: "interruptors", content: "x" })
        yield* Deferred.await(started)
        assert.deepStrictEqual(yield* interruptorsOf(consumer), [interruptor])
        assert.deepStrictEqual(yield* Deferred.await(ofHandler), [FiberId.none])
      }).pipe(Effect.provide(Application.amqp({ pool: { max: 1 } })))
    )

    it.effect("nothing is left open when the layer closes, also when building it is interrupted", () =>
      Effect.gen(function* () {
        const broker = yield* Broker
        yield* Effect.scoped(AmqpChannel.use(() => Effect.void)).pipe(Effect.provide(Application.amqp()))
        const fiber = yield* Effect.fork(Effect.scoped(Layer.build(Application.amqp())))
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        yield* Fiber.interrupt(fiber)
        yield* broker.awaitCensus({ connections: 0, channels: 0 })
      })
    )

    it.effect("layerConfig reads Effect 3's ConfigProvider", () =>
      Effect.gen(function* () {
        const { url } = yield* Broker
        const provider = ConfigProvider.fromMap(
          new Map([
            ["ORDERS_AMQP_URL", url],
            ["ORDERS_AMQP_POOL_SIZE", "3"]
          ]),
          { pathDelim: "_" }
        )
        const stats = yield* AmqpPool.stats.pipe(
          Effect.provide(Amqp.layerConfig(Config.nested(AmqpConfig.config, "ORDERS"))),
          Effect.withConfigProvider(provider)
        )
        assert.strictEqual(stats.max, 3)
      })
    )
  })

  it.scoped("the environment names files of TLS: their certificates, or the core's errors", () =>
    Effect.gen(function* () {
      const read = (variables: Record<string, string>) =>
        AmqpConfig.config.pipe(
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables)), { pathDelim: "." }))
        )
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const file = join(directory, "ca.pem")
      writeFileSync(file, tls.rootCertificates[0]!)
      const config = yield* read({ AMQP_URL: "amqps://localhost", AMQP_TLS_CA_FILE: file })
      const { tls: made } = config as never as { readonly tls: { readonly files: { readonly ca: unknown } } }
      assert.deepStrictEqual(made.files.ca, [{ setting: "AMQP_TLS_CA_FILE", path: file }])
      const names = ["AMQP_TLS_CA_FILE", "AMQP_TLS_CERT_FILE", "AMQP_TLS_KEY_FILE"]
      const missing = join(directory, "missing.pem")
      const error = yield* Effect.flip(
        read({ AMQP_URL: "amqps://localhost", ...Object.fromEntries(names.map((name) => [name, missing])) })
      )
      assert.isTrue(ConfigError.isConfigError(error))
      for (const name of names) assert.include(String(error), name)
      assert.include(String(error), "(ENOENT)")
    })
  )

  it.effect("a configuration lists its mistakes, and shows no secret", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(AmqpConfig.make({ port: 70_000, pool: { max: 0 } }))
      assert(error.reason._tag === "InvalidConfig")
      assert.deepStrictEqual(
        error.reason.issues.map(({ setting }) => setting),
        ["port", "pool.max"]
      )
      const url = Redacted.make("amqp://me:s3cret@host:1/%zz")
      const wrong = yield* Effect.flip(AmqpConfig.fromUrl(url))
      assert.notInclude(wrong.message, "s3cret")
      const fromEnv = yield* AmqpConfig.config.pipe(
        Effect.withConfigProvider(
          ConfigProvider.fromMap(
            new Map([
              ["AMQP_PORT", "many"],
              ["AMQP_PASSWORD", "s3cret"]
            ]),
            { pathDelim: "." }
          )
        ),
        Effect.flip
      )
      assert.include(String(fromEnv), "AMQP_PORT")
      assert.notInclude(String(fromEnv), "s3cret")
    })
  )

  it.effect("a mistake in the environment names its variable, with its prefix, in the core's own words", () =>
    Effect.gen(function* () {
      const provider = ConfigProvider.fromMap(
        new Map([
          ["BILLING_AMQP_URL", "http://rabbit"],
          ["BILLING_AMQP_FRAME_MAX", "many"]
        ]),
        { pathDelim: "_" }
      )
      const error = yield* Config.nested(AmqpConfig.config, "BILLING").pipe(
        Effect.withConfigProvider(provider),
        Effect.flip
      )
      const found: Array<readonly [string, string]> = []
      const walk = (error: ConfigError.ConfigError): void => {
        if (error._op === "And") [error.left, error.right].forEach(walk)
        else if (error._op === "InvalidData") found.push([error.path.join("_"), error.message])
      }
      walk(error)
      assert.deepStrictEqual(found, [
        [
          "BILLING_AMQP_URL",
          "expected a URL such as amqp://user:password@host:5672/vhost, or amqps:// for TLS, got a URL with the scheme http:"
        ],
        ["BILLING_AMQP_FRAME_MAX", 'expected an integer from 4096 to 4294967295, got "many"']
      ])
      assert.notInclude(String(error), "SchemaError")
    })
  )
})
