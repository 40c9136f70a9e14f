/**
 * The dashboard in a browser, on a real broker behind a proxy that injects faults. The tests find elements by the names
 * that a screen reader reads.
 */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { Deferred, Effect, Fiber, Metric } from "effect"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { type Contrasts, contrasts, accessibilityProblems } from "./support/accessibility.ts"
import {
  connection,
  consumersConnection,
  dashboard,
  environment,
  found,
  open,
  promise,
  row,
  said,
  stream
} from "./support/dashboardPage.ts"

const options = { excludeTestServices: true, timeout: "5 minutes" } as const

describe.skipIf(found.path === undefined)(`dashboard in a browser ${found.missing ?? ""}`.trim(), () => {
  layer(
    environment,
    options
  )((it) => {
    it.effect(
      "shows a filling pool, an outage and the recovery while they happen",
      () =>
        Effect.gen(function* () {
          const { proxy, services, url } = yield* dashboard()
          const { errors, page, requested } = yield* open()
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
            yield* row(page, "Borrowers waiting", /^regular 2 /)
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
            yield* row(page, "Published per second", /^confirmed [1-9]/)
            yield* row(page, "Consumed", /^acknowledged [1-9]/)
            yield* row(page, "Time to confirm", /^p99 [\d.]+ m?s /)
            yield* row(page, "Time in handlers", /^median [\d.]+ m?s /)
            yield* row(page, "deliveries since start", /^acked [1-9]/)
            yield* row(page, consumersConnection, / open \d+ s connection 1 to 127\.0\.0\.1:/)

            proxy.refuse()
            proxy.rst()
            yield* row(page, connection, / reconnecting \d+ s Connect/)
            yield* row(page, consumersConnection, / reconnecting \d+ s Connect/)
            yield* said(page, "Connection lost: ConnectionClosed. Reconnecting.")
            yield* said(page, "The consumers’ connection is lost: ConnectionClosed. Reconnecting.")
            yield* row(page, "Published per second", /^confirmed 0 /)
            yield* row(page, "Channels in use", /^regular 4 0 4 0$/)
            yield* promise(() => page.waitForFunction("document.title.startsWith('reconnecting')"))

            proxy.heal()
            yield* row(page, connection, / open \d+ s connection 2 to 127\.0\.0\.1:/)
            yield* row(page, consumersConnection, / open \d+ s connection 2 to 127\.0\.0\.1:/)
            yield* said(page, "Connection open.")
            yield* said(page, "The consumers’ connection is open.")
            yield* row(page, "Published per second", /^confirmed [1-9]/)
            yield* row(page, "Consumed", /^delivered [1-9]/)
            yield* Deferred.succeed(letGo, undefined)
            yield* Fiber.awaitAll(borrowers)
            yield* row(page, "Borrowers waiting", /^regular 0 0 2$/)
            yield* row(page, "Channels in use", /^regular 0 0 4 /)
            yield* Fiber.interruptAll([publishing, consuming])
          }).pipe(Effect.provideContext(services))

          assert.deepStrictEqual(errors, [])
          assert.deepStrictEqual([...new Set(requested)], [url, `${url}/events`])
        }),
      120_000
    )

    it.effect(
      "shows when the stream is lost, for every cause, and when it is restored",
      () =>
        Effect.gen(function* () {
          const { url } = yield* dashboard()
          const network = yield* FaultProxy.make(url)
          const { page } = yield* open()
          yield* promise(() => page.goto(network.through(url)))
          const lost = page.getByText("Stream lost.", { exact: true })
          const isStale = () => promise(() => page.evaluate<boolean>("document.body.classList.contains('stale')"))
          yield* stream(page, "live")
          assert.isFalse(yield* promise(() => lost.isVisible()))
          assert.isFalse(yield* isStale())

          // The network drops everything.
          network.stall()
          yield* promise(() => lost.waitFor())
          yield* stream(page, "stream lost")
          assert.isTrue(yield* isStale())
          // All values are grey, and the plots too.
          const colours = yield* promise(() =>
            page.evaluate<ReadonlyArray<string>>(
              `[...new Set(Array.from(document.querySelectorAll("#findings b, dd, main td, main th, figure h2"), (element) => getComputedStyle(element).color))]`
            )
          )
          const grey = yield* promise(() =>
            page.evaluate<string>(`getComputedStyle(document.getElementById("peer")).color`)
          )
          assert.deepStrictEqual(colours, [grey])
          const filters = yield* promise(() =>
            page.evaluate<ReadonlyArray<string>>(
              `[...new Set(Array.from(document.querySelectorAll("main svg"), (plot) => getComputedStyle(plot).filter))]`
            )
          )
          assert.deepStrictEqual(filters, ["grayscale(1)"])
          yield* promise(() => page.getByText(/^The values are from \d\d:\d\d:\d\d UTC, .+ old\.$/).waitFor())
          network.heal()
          yield* stream(page, "live")
          assert.isFalse(yield* promise(() => lost.isVisible()))
          assert.isFalse(yield* isStale())
          yield* said(page, "Stream restored.")

          // The server resets the connection and refuses new ones for a while.
          network.refuse()
          network.rst()
          yield* promise(() => lost.waitFor())
          network.heal()
          yield* stream(page, "live")
        }),
      120_000
    )

    it.effect(
      "is accessible: to a screen reader, in both color schemes, 320 pixels wide, and without motion",
      () =>
        Effect.gen(function* () {
          const { services, url } = yield* dashboard()
          const { errors, page } = yield* open({ viewport: { width: 320, height: 640 }, colorScheme: "light" })
          yield* promise(() => page.goto(url))
          // As a relay of @effect-amqp/sql sets them.
          for (const [name, value] of [
            ["waiting", 12],
            ["oldest_age", 3],
            ["set_aside", 1]
          ] as const) {
            yield* Effect.provideContext(Metric.update(Metric.gauge(`amqp.outbox.${name}`), value), services)
          }
          yield* promise(() => page.getByText("12 waiting for 3 s, 1 set aside").waitFor())
          yield* row(page, "Channels in use", /^regular 0 /)
          yield* row(page, "Published since start", /^confirmed 0$/)
          assert.deepStrictEqual(yield* promise(() => page.evaluate(accessibilityProblems)), [])
          // The table as it is one hour later, with the longest reason, before the page is drawn again.
          const later = `document.querySelectorAll(".wide tbody tr").forEach(({ children }) => {
            children[1].textContent = "reconnecting"
            children[2].textContent = "59 min 59 s"
            children[3].textContent = "AuthenticationFailed, 12345 attempts failed"
          })`
          assert.deepStrictEqual(yield* promise(() => page.evaluate(`${later}; ${accessibilityProblems}`)), [])

          for (const colorScheme of ["light", "dark"] as const) {
            yield* promise(() => page.emulateMedia({ colorScheme }))
            const { compared, low } = yield* promise(() => page.evaluate<Contrasts>(contrasts))
            assert.isAbove(compared, 100, colorScheme)
            assert.deepStrictEqual(low, [], colorScheme)
          }

          const opacity = () =>
            promise(() =>
              page.evaluate<string>(`getComputedStyle(document.querySelector("#stream"), "::before").opacity`)
            )
          yield* promise(() => page.emulateMedia({ reducedMotion: "reduce" }))
          yield* promise(() => page.locator("#stream[data-beat]").waitFor())
          assert.strictEqual(yield* opacity(), "1")
          assert.strictEqual(yield* promise(() => page.evaluate<number>("document.getAnimations().length")), 0)

          // When the user points at a plot, all tables show the numbers of that moment.
          const published = page.getByRole("figure", { name: "Published per second" })
          yield* promise(() => published.getByRole("columnheader", { name: "now" }).waitFor())
          yield* promise(() => page.getByRole("img", { name: "Channels in use" }).scrollIntoViewIfNeeded())
          const box = yield* promise(() => page.getByRole("img", { name: "Channels in use" }).boundingBox())
          yield* promise(() => page.mouse.move(box!.x + box!.width - 2, box!.y + box!.height / 2))
          yield* promise(() => published.getByRole("columnheader", { name: /^\d\d:\d\d:\d\d$/ }).waitFor())

          assert.deepStrictEqual(errors, [])
        }),
      120_000
    )
  })
})
