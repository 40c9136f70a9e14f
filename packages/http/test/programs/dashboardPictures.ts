/**
 * `npm run pictures` takes the dashboard's pictures for the README in a browser. It takes two minutes, and shows a
 * service under load on a real broker, during an outage and an alarm.
 */
import { AmqpChannel, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Context, Duration, Effect, Layer, References } from "effect"
import { HttpServer } from "effect/http"
import * as FileSystem from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import type { Page } from "playwright-core"
import * as FaultProxy from "../../../core/test/support/FaultProxy.ts"
import * as Chromium from "../support/chromium.ts"
import { serveDashboard } from "../support/dashboard.ts"

const folder = fileURLToPath(new URL("../../../../docs/images", import.meta.url))

const started = Date.now()
const seconds = () => (Date.now() - started) / 1000
/** A load that rises and falls, from 0 to 1. */
const tide = (period: number) => 0.5 + 0.5 * Math.sin((seconds() * 2 * Math.PI) / period)

const load = Effect.gen(function* () {
  yield* AmqpChannel.use((channel) => channel.queueDeclare("orders"))
  const publishing = Effect.forEach(
    Array.from({ length: 8 }, (_, i) => i),
    () => Effect.ignore(AmqpPublisher.publish({ routingKey: "orders", content: "one order" })),
    { concurrency: "unbounded", discard: true }
  ).pipe(Effect.andThen(Effect.suspend(() => Effect.sleep(8 + 30 * tide(45)))), Effect.forever)
  const handling = AmqpConsumer.consume(
    "orders",
    () =>
      Effect.andThen(
        Effect.sleep(2 + Math.random() ** 4 * 30),
        Math.random() < 0.02 ? Effect.fail({ _tag: "OutOfStock" }) : Effect.void
      ),
    { concurrency: 10, onFailure: AmqpConsumer.deadLetter }
  )
  const borrowing = AmqpChannel.use(() => Effect.sleep(200 + Math.random() * 1500)).pipe(
    Effect.scoped,
    Effect.ignore,
    Effect.andThen(Effect.suspend(() => Effect.sleep(Math.random() * 4000 * tide(70)))),
    Effect.forever
  )
  for (const queue of ["invoices", "shipments"]) {
    yield* AmqpChannel.use((channel) => channel.queueDeclare(queue))
    for (let i = 0; i < 4; i++) yield* Effect.forkScoped(Effect.exit(AmqpConsumer.consume(queue, () => Effect.void)))
  }
  yield* Effect.forkScoped(publishing)
  yield* Effect.forkScoped(handling)
  for (let i = 0; i < 20; i++) yield* Effect.forkScoped(borrowing)
})

const picture = Effect.fnUntraced(function* (page: Page, name: string, colorScheme: "light" | "dark") {
  yield* Effect.promise(() => page.emulateMedia({ colorScheme }))
  // Texts of the page have 10 pixels or more in the README's column of 840 pixels.
  const path = Path.join(folder, `dashboard-${name}.png`)
  yield* Effect.promise(() =>
    page.screenshot(
      name === "phone" ? { path } : { path, fullPage: true, clip: { x: 0, y: 0, width: 960, height: 1430 } }
    )
  )
})

const program = Effect.gen(function* () {
  const { missing, path } = yield* Chromium.find
  if (path === undefined) return yield* Effect.die(new Error(missing))
  const broker = yield* TestBroker.TestBroker
  const proxy = yield* FaultProxy.make(broker.url)
  const services = yield* Layer.build(
    serveDashboard(proxy.through(broker.url), {
      authorize: () => Effect.succeed("allow"),
      version: "1.4.2",
      amqp: {
        connectionName: "orders",
        pool: { max: 16, acquireTimeout: Duration.seconds(30) },
        reconnect: {
          minDelay: Duration.millis(500),
          maxDelay: Duration.seconds(1),
          healthyAfter: Duration.seconds(1),
          schedule: undefined,
          onRefused: "retry"
        }
      }
    })
  )
  const { address } = Context.get(services, HttpServer.HttpServer)
  yield* Effect.gen(function* () {
    yield* load
    const browser = yield* Chromium.launch(path)
    const look = Effect.fnUntraced(function* (width: number, height: number, deviceScaleFactor: number) {
      const page = yield* Effect.promise(() => browser.newPage({ viewport: { width, height }, deviceScaleFactor }))
      yield* Effect.promise(() => page.goto(`${HttpServer.formatAddress(address)}/amqp/dashboard`))
      return page
    })
    const desktop = yield* look(960, 800, 1.5)
    const phone = yield* look(375, 780, 2)
    yield* Effect.sleep("40 seconds")
    proxy.refuse()
    proxy.rst()
    yield* Effect.sleep("10 seconds")
    proxy.heal()
    yield* Effect.sleep("30 seconds")
    yield* broker.blockPublishers
    yield* Effect.sleep("8 seconds")
    yield* broker.unblockPublishers
    yield* Effect.sleep("20 seconds")
    yield* AmqpChannel.use((channel) => channel.queueDelete("shipments"))
    yield* Effect.sleep("8 seconds")
    FileSystem.mkdirSync(folder, { recursive: true })
    yield* picture(desktop, "light", "light")
    yield* picture(desktop, "dark", "dark")
    yield* picture(phone, "phone", "light")
  }).pipe(Effect.provideContext(services), Effect.provideService(References.MinimumLogLevel, "Error"))
})

await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(TestBroker.layerPrivate())))
