/**
 * The cost of the dashboard's page for the browser, with 50 consumers and constant traffic: CPU time of the page's process
 * per second, and its heap. `node --conditions=@effect-amqp/source packages/http/test/programs/dashboardCost.ts [SECONDS]`,
 * by default 600.
 */
import { AmqpChannel, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Context, Effect, Layer, References } from "effect"
import { HttpServer } from "effect/http"
import * as Chromium from "../support/chromium.ts"
import { serveDashboard } from "../support/dashboard.ts"

const seconds = Number(process.argv[2] ?? 600)

const program = Effect.gen(function* () {
  const { missing, path } = yield* Chromium.find
  if (path === undefined) return yield* Effect.die(new Error(missing))
  const broker = yield* TestBroker.TestBroker
  const services = yield* Layer.build(serveDashboard(broker.url, { authorize: () => Effect.succeed("allow") }))
  const { address } = Context.get(services, HttpServer.HttpServer)
  yield* Effect.gen(function* () {
    for (let i = 0; i < 50; i++) {
      const queue = `queue-${i % 30}`
      yield* AmqpChannel.use((channel) => channel.queueDeclare(queue))
      yield* Effect.forkScoped(Effect.exit(AmqpConsumer.consume(queue, () => Effect.sleep("5 millis"))))
    }
    yield* Effect.suspend(() =>
      AmqpPublisher.publish({ routingKey: `queue-${Math.floor(Math.random() * 30)}`, content: "one" })
    ).pipe(Effect.ignore, Effect.andThen(Effect.sleep("10 millis")), Effect.forever, Effect.forkScoped)
    const browser = yield* Chromium.launch(path)
    const page = yield* Effect.promise(() => browser.newPage({ viewport: { width: 1280, height: 900 } }))
    yield* Effect.promise(() => page.goto(`${HttpServer.formatAddress(address)}/amqp/dashboard`))
    const session = yield* Effect.promise(() => page.context().newCDPSession(page))
    yield* Effect.promise(() => session.send("Performance.enable", { timeDomain: "threadTicks" }))
    const metrics = Effect.promise(async () => {
      await session.send("HeapProfiler.collectGarbage")
      const { metrics } = await session.send("Performance.getMetrics")
      return Object.fromEntries(metrics.map(({ name, value }) => [name, value])) as Record<string, number>
    })
    yield* Effect.sleep("10 seconds")
    const began = Date.now()
    const before = yield* metrics
    yield* Effect.sleep(seconds * 1000)
    const after = yield* metrics
    const elapsed = (Date.now() - began) / 1000
    const share = (name: string) => `${((100 * (after[name]! - before[name]!)) / elapsed).toFixed(1)} %`
    console.log(
      `over ${elapsed.toFixed(0)} s: tasks ${share("TaskDuration")} of a core (script ${share("ScriptDuration")}, ` +
        `layout ${share("LayoutDuration")}, style ${share("RecalcStyleDuration")}), ` +
        `heap ${(after["JSHeapUsedSize"]! / 1_048_576).toFixed(1)} MiB, ${after["Nodes"]} nodes`
    )
  }).pipe(Effect.provideContext(services), Effect.provideService(References.MinimumLogLevel, "Error"))
})

await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(TestBroker.layerPrivate())))
