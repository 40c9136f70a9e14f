/**
 * The dashboard in a browser, on a real broker behind a proxy that fails: what its users see, by the names that a screen reader
 * reads to them.
 */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Context, Deferred, Duration, Effect, Fiber, Layer, type Scope } from "effect"
import { HttpServer } from "effect/http"
import type { Browser as PlaywrightBrowser, Page } from "playwright-core"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import * as Chromium from "./support/chromium.ts"
import { type Options, serveDashboard } from "./support/dashboard.ts"
import { type Contrasts, contrasts, oddities } from "./support/readable.ts"

const found = await Effect.runPromise(Chromium.find)

class Browser extends Context.Service<Browser, PlaywrightBrowser>()("Browser") {}

const environment = Layer.merge(
  TestBroker.layer,
  found.path === undefined ? Layer.empty : Layer.effect(Browser, Chromium.launch(found.path))
) as Layer.Layer<TestBroker.TestBroker | Browser, TestBroker.TestBrokerError>

const path = "/amqp/dashboard"
const expected = `Basic ${btoa("operator:word")}`

// A browser that shares two cores with a broker and other tests takes its time.
const patience = 30_000

const promise = <A>(f: () => Promise<A>) => Effect.promise(f)

/** A dashboard for a user with a password, on the real broker behind a proxy. */
const dashboard = Effect.fnUntraced(function* (options: Options = {}) {
  const broker = yield* TestBroker.TestBroker
  const proxy = yield* FaultProxy.make(broker.url)
  const services = yield* Layer.build(
    serveDashboard(proxy.through(broker.url), {
      authorize: ({ headers }) => Effect.succeed(headers["authorization"] === expected ? "allow" : "authenticate"),
      ...options,
      amqp: {
        connectionName: "orders",
        pool: { max: 4, acquireTimeout: Duration.seconds(60) },
        reconnect: {
          minDelay: Duration.millis(100),
          maxDelay: Duration.millis(500),
          healthyAfter: Duration.seconds(1),
          schedule: undefined,
          onRefused: "retry"
        }
      }
    })
  )
  const url = HttpServer.formatAddress(Context.get(services, HttpServer.HttpServer).address) + path
  return { proxy, services, url }
})

/** A browser's window of its own, and what went wrong in it. */
const open = (
  options: Parameters<PlaywrightBrowser["newContext"]>[0] = {}
): Effect.Effect<
  { readonly page: Page; readonly mishaps: Array<string>; readonly requested: Array<string> },
  never,
  Browser | Scope.Scope
> =>
  Effect.gen(function* () {
    const browser = yield* Browser
    const context = yield* Effect.acquireRelease(
      promise(() =>
        browser.newContext({ httpCredentials: { username: "operator", password: "word" }, locale: "en", ...options })
      ),
      (context) => promise(() => context.close())
    )
    const page = yield* promise(() => context.newPage())
    page.setDefaultTimeout(patience)
    const mishaps: Array<string> = []
    const requested: Array<string> = []
    page.on("console", (message) => message.type() === "error" && mishaps.push(message.text()))
    page.on("pageerror", (error) => mishaps.push(error.message))
    page.on("request", (request) => requested.push(request.url()))
    return { page, mishaps, requested }
  })

/** Waits for a row of a figure's table, as it is read aloud: the name of the row, and its numbers. */
const row = (page: Page, figure: string | RegExp, name: RegExp) =>
  promise(() => page.getByRole("figure", { name: figure }).getByRole("row", { name }).first().waitFor())

const connection = /^Connection /
const consumersConnection = /^Consumers’ connection /

/** Waits until this has been said to those who do not see it. */
const said = (page: Page, text: string) =>
  promise(() => page.getByRole("log").getByText(text, { exact: true }).first().waitFor({ state: "attached" }))

const stream = (page: Page, words: string) =>
  promise(() => page.getByRole("banner").getByText(words, { exact: true }).waitFor())

const options = { excludeTestServices: true, timeout: "5 minutes" } as const

describe.skipIf(found.path === undefined)(`dashboard in a browser ${found.missing ?? ""}`.trim(), () => {
  layer(
    environment,
    options
  )((it) => {
    it.effect(
      "shows the pool filling, an outage and the recovery while they happen",
      () =>
        Effect.gen(function* () {
          const { proxy, services, url } = yield* dashboard()
          const { mishaps, page, requested } = yield* open()
          yield* promise(() => page.goto(url))
          yield* stream(page, "live")
          yield* row(page, "Channels in use", /^regular 0 /)

          yield* Effect.gen(function* () {
            yield* AmqpPool.use(yield* AmqpPool.AmqpPool, (channel) => channel.queueDeclare("orders"))
            const letGo = yield* Deferred.make<void>()
            const borrow = Effect.forkChild(Effect.scoped(AmqpChannel.use(() => Deferred.await(letGo))), {
              startImmediately: true
            })
            const borrowers: Array<Fiber.Fiber<void, unknown>> = []
            for (const used of [2, 4]) {
              borrowers.push(yield* borrow, yield* borrow)
              yield* row(page, "Channels in use", new RegExp(`^regular ${used} 0 ${used} `))
            }
            yield* said(page, "All 4 regular channels are in use.")
            borrowers.push(yield* borrow, yield* borrow)
            yield* row(page, "Borrowers in line", /^regular 2 /)
            const name =
              "Channels in use, by kind, the last minute. Now: regular 4, confirm 0, transaction 0, at most 4"
            yield* promise(() => page.getByRole("img", { name }).waitFor())

            yield* row(page, consumersConnection, / none \d+ s/)
            const publishing = yield* AmqpPublisher.publish({ routingKey: "orders", content: "one" }).pipe(
              Effect.ignore,
              Effect.andThen(Effect.sleep("5 millis")),
              Effect.forever,
              Effect.forkChild
            )
            const consuming = yield* Effect.forkChild(AmqpConsumer.consume("orders", () => Effect.sleep("5 millis")))
            yield* row(page, "Published a second", /^confirmed [1-9]/)
            yield* row(page, "Consumed", /^acknowledged [1-9]/)
            yield* row(page, "Time to the confirm", /^99 % [\d.]+ m?s /)
            yield* row(page, "Time in handlers", /^median [\d.]+ m?s /)
            yield* row(page, "deliveries since the start", /^acked [1-9]/)
            yield* row(page, consumersConnection, / open \d+ s connection 1 to 127\.0\.0\.1:/)

            proxy.refuse()
            proxy.rst()
            yield* row(page, connection, / reconnecting \d+ s Connect/)
            yield* row(page, consumersConnection, / reconnecting \d+ s Connect/)
            yield* said(page, "Connection lost: ConnectionClosed. Reconnecting.")
            yield* said(page, "The consumers’ connection is lost: ConnectionClosed. Reconnecting.")
            yield* row(page, "Published a second", /^confirmed 0 /)
            yield* row(page, "Channels in use", /^regular 4 0 4 0$/)
            yield* promise(() => page.waitForFunction("document.title.startsWith('reconnecting')"))

            proxy.heal()
            yield* row(page, connection, / open \d+ s connection 2 to 127\.0\.0\.1:/)
            yield* row(page, consumersConnection, / open \d+ s connection 2 to 127\.0\.0\.1:/)
            yield* said(page, "Connection open.")
            yield* said(page, "The consumers’ connection is open.")
            yield* row(page, "Published a second", /^confirmed [1-9]/)
            yield* row(page, "Consumed", /^delivered [1-9]/)
            yield* Deferred.succeed(letGo, undefined)
            yield* Fiber.awaitAll(borrowers)
            yield* row(page, "Borrowers in line", /^regular 0 0 2$/)
            yield* row(page, "Channels in use", /^regular 0 0 4 /)
            yield* Fiber.interruptAll([publishing, consuming])
          }).pipe(Effect.provideContext(services))

          assert.deepStrictEqual(mishaps, [])
          assert.deepStrictEqual([...new Set(requested)], [url, `${url}/events`])
        }),
      120_000
    )

    it.effect(
      "says so when the stream is lost, however that comes about, and when it is back",
      () =>
        Effect.gen(function* () {
          let welcome = true
          const { url } = yield* dashboard({ authorize: () => Effect.succeed(welcome ? "allow" : "deny") })
          const network = yield* FaultProxy.make(url)
          const { page } = yield* open()
          yield* promise(() => page.goto(network.through(url)))
          const lost = page.getByText("Stream lost.", { exact: true })
          yield* stream(page, "live")
          assert.isFalse(yield* promise(() => lost.isVisible()))

          // A network that says nothing.
          network.stall()
          yield* promise(() => lost.waitFor())
          yield* stream(page, "stream lost")
          network.heal()
          yield* stream(page, "live")
          assert.isFalse(yield* promise(() => lost.isVisible()))
          yield* said(page, "The stream is back.")

          // A server that breaks off, and lets nobody in for a while: an EventSource gives up then.
          welcome = false
          network.rst()
          yield* promise(() => lost.waitFor())
          const refused = yield* promise(() => page.waitForResponse((response) => response.status() === 403))
          assert.strictEqual(refused.url(), `${network.through(url)}/events`)
          welcome = true
          yield* stream(page, "live")
        }),
      120_000
    )

    it.effect(
      "can be read: by a screen reader, in both colour schemes, 320 pixels wide, and without motion",
      () =>
        Effect.gen(function* () {
          const { url } = yield* dashboard()
          const { mishaps, page } = yield* open({ viewport: { width: 320, height: 640 }, colorScheme: "light" })
          yield* promise(() => page.goto(url))
          yield* row(page, "Channels in use", /^regular 0 /)
          yield* row(page, "Published since the start", /^confirmed 0$/)
          assert.deepStrictEqual(yield* promise(() => page.evaluate(oddities)), [])
          // An hour later, and with the longest of reasons, before it is drawn anew.
          const later = `document.querySelectorAll(".wide tbody tr").forEach(({ children }) => {
            children[1].textContent = "reconnecting"
            children[2].textContent = "59 min 59 s"
            children[3].textContent = "AuthenticationFailed, 12345 attempts failed"
          })`
          assert.deepStrictEqual(yield* promise(() => page.evaluate(`${later}; ${oddities}`)), [])

          for (const colorScheme of ["light", "dark"] as const) {
            yield* promise(() => page.emulateMedia({ colorScheme }))
            const { compared, low } = yield* promise(() => page.evaluate<Contrasts>(contrasts))
            assert.isAbove(compared, 100, colorScheme)
            assert.deepStrictEqual(low, [], colorScheme)
          }

          const moving = () => promise(() => page.evaluate<number>("document.getAnimations().length"))
          assert.strictEqual(yield* moving(), 1)
          yield* promise(() => page.emulateMedia({ reducedMotion: "reduce" }))
          assert.strictEqual(yield* moving(), 0)

          // Whoever points at a plot gets the numbers of that moment, in all tables.
          const published = page.getByRole("figure", { name: "Published a second" })
          yield* promise(() => published.getByRole("columnheader", { name: "now" }).waitFor())
          yield* promise(() => page.getByRole("img", { name: "Channels in use" }).scrollIntoViewIfNeeded())
          const box = yield* promise(() => page.getByRole("img", { name: "Channels in use" }).boundingBox())
          yield* promise(() => page.mouse.move(box!.x + box!.width - 2, box!.y + box!.height / 2))
          yield* promise(() => published.getByRole("columnheader", { name: /^\d\d:\d\d:\d\d$/ }).waitFor())

          yield* promise(() => page.keyboard.press("Tab"))
          yield* promise(() => page.keyboard.press("Enter"))
          yield* promise(() => page.getByRole("button", { name: "Pause", pressed: true }).waitFor())
          yield* stream(page, "paused")
          assert.deepStrictEqual(mishaps, [])
        }),
      120_000
    )
  })
})
