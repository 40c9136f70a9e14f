/** The dashboard during incidents, in a browser and on a real broker: what somebody on call has to see. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Exit, Scope } from "effect"
import type { Page } from "playwright-core"
import {
  connection,
  consumer,
  dashboard,
  environment,
  found,
  line,
  open,
  path,
  promise,
  row,
  said,
  stream
} from "./support/dashboardPage.ts"
import { type Contrasts, contrasts } from "./support/accessibility.ts"
import * as HttpProxy from "./support/httpProxy.ts"

/** Waits for what a program outside of Effect does. */
const until = (isDone: () => boolean) => Effect.repeat(Effect.sleep("10 millis"), { until: isDone })

/** Headings of tables whose text is wider than its cell, which is as wide as the texts of its neighbors allow. */
const overlaps = `Array.from(document.querySelectorAll("main :is(th, td, dt, h2)"))
  .filter((cell) => cell.checkVisibility() && !cell.closest(".vh") && (cell.closest("thead")?.clientWidth ?? 9) > 1 && cell.scrollWidth > cell.clientWidth + 1)
  .map((cell) => cell.tagName + " " + cell.textContent)`

const options = { excludeTestServices: true, timeout: "5 minutes" } as const

/** A name that would run a script as markup, one of 255 bytes, and one from right to left that reverses what follows. */
const hostile = [`<img src=x onerror="window.ran=1"></script>`, "q".repeat(255), "طلبات\u202eشحن-".repeat(9)] as const

const press = (page: Page, name: string) => promise(() => page.getByRole("button", { name, exact: true }).click())

describe.skipIf(found.path === undefined)(`dashboard in an incident ${found.missing ?? ""}`.trim(), () => {
  layer(
    environment,
    options
  )((it) => {
    it.effect(
      "says which consumers have ended and why, and that the broker blocks; frozen it stays as it is; no name runs as a script",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const { services, url } = yield* dashboard({ version: "1.2.3", queueCounts: true })
          const { errors, page } = yield* open({ viewport: { width: 1280, height: 800 } })
          yield* Effect.gen(function* () {
            const declare = (queue: string) =>
              Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue, { autoDelete: true })))
            const names = ["shipments", "failing", ...hostile]
            for (const name of names) {
              yield* declare(name)
              for (let i = 0; i < (name === "shipments" ? 4 : 1); i++) {
                yield* Effect.forkScoped(
                  Effect.exit(
                    AmqpConsumer.consume(
                      name,
                      () =>
                        name === "failing"
                          ? Effect.fail({ _tag: "DatabaseUnavailable" })
                          : name === hostile[1]
                            ? Effect.fail({ _tag: hostile[0] })
                            : Effect.void,
                      // Three of four consumers end when their queue is deleted.
                      { onFailure: AmqpConsumer.deadLetter, ...(i === 3 ? { resubscribe: "always" } : undefined) }
                    )
                  )
                )
              }
            }
            yield* promise(() => page.goto(url))
            yield* promise(() =>
              page.getByText(/^version 1\.2\.3, process \d+, up for .+, since [\d:]+ UTC$/).waitFor()
            )
            yield* line(page, /^Nothing is wrong since [\d:]+ UTC/)
            yield* consumer(page, /^shipments running for .+ 4 of 4 0 /)
            yield* Effect.forEach(["failing", "failing", "shipments"], (routingKey) =>
              AmqpPublisher.publish({ routingKey, content: "one" })
            )
            yield* consumer(page, /^failing running .* DatabaseUnavailable at [\d:]+ – /)
            yield* row(page, "Failures by queue and reason since start", /^failing: DatabaseUnavailable 2$/)
            yield* row(
              page,
              "Dead letters by queue and reason since start",
              /^failing: DatabaseUnavailable 2 .+ ago .+ ago$/
            )
            yield* line(page, /^2 dead letters in .+; 100 % of the failures are DatabaseUnavailable since/)
            yield* promise(() => page.getByText(/^2 more in .+, 2 in all$/).waitFor())

            yield* press(page, "Freeze")
            yield* promise(() => page.getByRole("button", { name: "Resume", exact: true }).waitFor())
            // The texts, the plots and the title.
            const frozen = () =>
              promise(() =>
                page.evaluate<ReadonlyArray<string>>(
                  `[document.title, document.body.innerText, ...Array.from(document.querySelectorAll("svg"), ({ outerHTML }) => outerHTML)]`
                )
              )
            const before = yield* frozen()
            yield* Effect.scoped(
              AmqpChannel.use((channel) =>
                Effect.forEach(["shipments", hostile[0]], (queue) => channel.queueDelete(queue))
              )
            )
            yield* broker.blockPublishers
            // RabbitMQ blocks a connection when it publishes the next time.
            yield* Effect.forkScoped(Effect.exit(AmqpPublisher.publish({ routingKey: "failing", content: "two" })))
            const watching = yield* open()
            yield* promise(() => watching.page.goto(url))
            yield* line(watching.page, /^Publishers are blocked: the broker is low on memory \(not ready\) since/)
            yield* line(watching.page, "shipments: 3 of 4 consumers: ended, its queue was deleted (not ready) since")
            assert.deepStrictEqual(yield* frozen(), before)
            yield* press(page, "Resume")
            yield* line(page, "shipments: 3 of 4 consumers: ended, its queue was deleted (not ready) since")
            yield* consumer(
              page,
              /^shipments ended for .+ 0 of 4 .* failed at [\d:]+: its queue was deleted \(ConsumerCancelled\)/
            )
            yield* line(page, /^shipments: 1 of 4 consumers: subscribing again, its queue /)
            yield* said(page, "Publishers are blocked: the broker is low on memory.")
            assert.match(yield* promise(() => page.title()), /^(blocked|\d+ problems)/)
            yield* broker.unblockPublishers
            yield* declare("shipments")
            yield* consumer(page, /^shipments ended for .+ 1 of 4 /)

            yield* promise(() => page.getByRole("searchbox", { name: "Filter by queue" }).fill("QQQ"))
            yield* promise(() => page.getByText("1 of 5 rows match.").waitFor())
            const long = page
              .getByRole("table", { name: "Consumers" })
              .getByRole("button", { name: hostile[1] })
              .first()
            const heightOf = () => promise(() => long.evaluate((button) => button.getBoundingClientRect().height))
            const clipped = yield* heightOf()
            yield* promise(() => long.press("Enter"))
            assert.isAbove(yield* heightOf(), 2 * clipped)
            yield* promise(() => page.getByRole("searchbox").fill("طلبات"))
            yield* consumer(page, /^طلبات/)
            assert.include(
              yield* promise(() => page.getByRole("table", { name: "Consumers" }).innerText()),
              String.raw`\u202e`
            )

            // The tag of an error, and the name of a consumer that is not its queue's.
            yield* AmqpPublisher.publish({ routingKey: hostile[1], content: "one" })
            yield* row(page, "Failures by queue and reason since start", /^q+ ?: <img src=x .+ 1$/)
            yield* Effect.forkScoped(
              Effect.exit(AmqpConsumer.consume("failing", () => Effect.never, { name: hostile[0] }))
            )
            yield* promise(() => page.getByRole("searchbox").fill("onerror"))
            yield* consumer(page, /^failing <img src=x .+ running /)
          }).pipe(Effect.scoped, Effect.provideContext(services))
          // The name of the connection, and the version.
          const named = yield* dashboard({ version: hostile[0], amqp: { connectionName: hostile[0] } })
          const other = yield* open()
          yield* promise(() => other.page.goto(named.url))
          yield* promise(() => other.page.getByText(`version ${hostile[0]}, process`).waitFor())
          yield* promise(() => other.page.getByRole("heading", { name: `AMQP: ${hostile[0]}` }).waitFor())
          for (const one of [page, other.page]) {
            assert.isUndefined(yield* promise(() => one.evaluate("window.ran")))
          }
          assert.deepStrictEqual([...errors, ...other.errors], [])
        }),
      120_000
    )

    it.effect(
      "says why it has no data: an expired session, no permission, too many viewers, a proxy that buffers",
      () =>
        Effect.gen(function* () {
          let decision: "allow" | "deny" | "authenticate" = "allow"
          const { url } = yield* dashboard({
            authorize: () => Effect.succeed(decision),
            challenge: "Session",
            limits: { viewers: 1 }
          })
          const proxy = yield* HttpProxy.make(new URL(url).origin)
          const { page } = yield* open({ httpCredentials: [] })
          // The page's timers run when the test says so.
          yield* promise(() => page.clock.install())
          yield* promise(() => page.goto(proxy.url + path))
          yield* stream(page, "live")
          const shows = (title: string) => promise(() => page.getByText(title, { exact: true }).waitFor())
          const forward = (milliseconds: number) => promise(() => page.clock.fastForward(milliseconds))

          for (const [now, title, heading, button] of [
            ["authenticate", "Sign in again.", "sign in again", "Reload"],
            ["deny", "Access denied.", "access denied", "Try again"]
          ] as const) {
            decision = now
            proxy.endStreams()
            yield* stream(page, "stream lost")
            yield* forward(2000)
            yield* shows(title)
            yield* stream(page, heading)
            const asked = proxy.streams
            yield* forward(600_000)
            assert.strictEqual(proxy.streams, asked)
            decision = "allow"
            yield* press(page, button)
            yield* stream(page, "live")
          }

          // A proxy that requires a login redirects to its page, or answers with it.
          for (const login of ["redirect", "page"] as const) {
            proxy.login = login
            proxy.endStreams()
            yield* stream(page, "stream lost")
            yield* forward(2000)
            yield* shows("Sign in again.")
            proxy.login = undefined
            yield* press(page, "Reload")
            yield* stream(page, "live")
          }

          // The place of this page is taken by another one.
          proxy.upstream = undefined
          proxy.endStreams()
          yield* shows("Stream lost.")
          const other = yield* open({ httpCredentials: [] })
          yield* promise(() => other.page.goto(url))
          yield* stream(other.page, "live")
          proxy.upstream = new URL(url).origin
          yield* forward(5000)
          yield* shows("Too many viewers.")
          yield* promise(() => other.page.close())
          // The server notices a moment later that a viewer has left.
          const back = yield* Effect.forkChild(stream(page, "live"))
          yield* Effect.repeat(Effect.andThen(forward(10_000), Effect.sleep("100 millis")), {
            until: () => back.pollUnsafe() !== undefined
          })

          proxy.isBuffering = true
          proxy.endStreams()
          yield* stream(page, "stream lost")
          const asked = proxy.streams
          yield* forward(2000)
          yield* until(() => proxy.streams > asked)
          yield* forward(15_000)
          yield* shows("No event within 15 s.")
          proxy.isBuffering = false
          yield* forward(16_000)
          yield* stream(page, "live")
        }),
      120_000
    )

    it.effect(
      "lists twelve consumers that run until all are wanted, and those that do not run always and first",
      () =>
        Effect.gen(function* () {
          const { services, url } = yield* dashboard()
          const { page } = yield* open()
          yield* Effect.gen(function* () {
            const queues = Array.from({ length: 14 }, (_, i) => `many-${i + 10}`)
            for (const queue of queues) {
              yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))
              yield* Effect.forkScoped(Effect.exit(AmqpConsumer.consume(queue, () => Effect.void)))
            }
            yield* promise(() => page.goto(url))
            yield* consumer(page, /^many-21 running /)
            const names = page.getByRole("table", { name: "Consumers" }).getByRole("rowheader")
            assert.deepStrictEqual(yield* promise(() => names.allInnerTexts()), queues.slice(0, 12))
            yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete("many-23")))
            yield* consumer(page, /^many-23 ended /)
            assert.deepStrictEqual(yield* promise(() => names.allInnerTexts()), ["many-23", ...queues.slice(0, 11)])
            yield* press(page, "Show all 14 rows")
            yield* consumer(page, /^many-22 running /)
            yield* promise(() => page.getByRole("button", { name: "Show 12 rows" }).waitFor())
          }).pipe(Effect.scoped, Effect.provideContext(services))
        }),
      120_000
    )

    it.effect(
      "hidden tabs close their streams, so that a seventh is live on HTTP/1.1, and come back with what they have missed",
      () =>
        Effect.gen(function* () {
          const { url } = yield* dashboard()
          const { context, page: first } = yield* open()
          // A browser without a window shows all pages at once.
          yield* promise(() =>
            context.addInitScript(
              `Object.defineProperty(Document.prototype, "hidden", { get: () => window.isHidden === true })`
            )
          )
          const turn = (page: Page, isHidden: boolean) =>
            promise(() =>
              page.evaluate(`window.isHidden = ${isHidden}; document.dispatchEvent(new Event("visibilitychange"))`)
            )
          yield* promise(() => first.goto(url))
          yield* stream(first, "live")
          yield* turn(first, true)
          yield* stream(first, "paused while hidden")
          for (let tab = 2; tab <= 6; tab++) {
            const page = yield* promise(() => context.newPage())
            yield* promise(() => page.goto(url, { waitUntil: "commit" }))
            yield* stream(page, "live")
            if (tab < 6) yield* turn(page, true)
          }
          const seventh = yield* promise(() => context.newPage())
          yield* promise(() => seventh.goto(url))
          yield* stream(seventh, "live")
          yield* turn(first, false)
          yield* stream(first, "live")
          // The samples of the time in which it was hidden, at the high resolution.
          const figure = first.getByRole("figure", { name: "Channels in use" })
          yield* promise(() => figure.getByText("All values").click())
          yield* promise(() => figure.getByRole("table").nth(1).getByRole("row").nth(4).waitFor())
        }),
      120_000
    )

    it.effect(
      "a restart of the service leaves what was before, with a mark; another process is named",
      () =>
        Effect.gen(function* () {
          const proxy = yield* HttpProxy.make("http://127.0.0.1:1")
          const serve = Effect.gen(function* () {
            const scope = yield* Scope.fork(yield* Effect.scope)
            const { url } = yield* Scope.provide(dashboard({ authorize: () => Effect.succeed("allow") }), scope)
            proxy.upstream = new URL(url).origin
            return scope
          })
          const one = yield* serve
          const { page } = yield* open()
          yield* promise(() => page.goto(proxy.url + path))
          yield* stream(page, "live")
          yield* row(page, connection, / open .+ connection 1 to /)
          yield* Scope.close(one, Exit.void)
          yield* stream(page, "stream lost")
          yield* serve
          yield* stream(page, "live")
          yield* said(page, "The service has started again.")
          yield* row(page, connection, / service gone /)
          const states = page.getByRole("figure", { name: connection }).locator("tbody td:nth-child(2)")
          assert.deepStrictEqual(yield* promise(() => states.allInnerTexts()), ["open", "service gone", "open"])
          const marks = page.getByRole("img", { name: /^Channels in use/ }).locator(".start")
          assert.strictEqual(yield* promise(() => marks.count()), 2)
        }),
      120_000
    )

    it.effect(
      "is used by the keyboard alone, with forced colours, 360 pixels wide; a plot says its values at the cursor",
      () =>
        Effect.gen(function* () {
          const { url } = yield* dashboard({ authorize: () => Effect.succeed("allow") })
          const { errors, page } = yield* open({
            viewport: { width: 360, height: 740 },
            forcedColors: "active",
            timezoneId: "Asia/Kolkata"
          })
          yield* promise(() => page.goto(url))
          yield* stream(page, "live")
          const focused = (name: string | RegExp) => promise(() => page.locator(":focus", { hasText: name }).waitFor())
          const tab = promise(() => page.keyboard.press("Tab"))
          const enter = promise(() => page.keyboard.press("Enter"))
          yield* tab
          yield* focused("Range: 5 minutes")
          yield* enter
          yield* focused("Range: 1 hour")
          yield* promise(() =>
            page
              .getByRole("img", { name: /, the last 10 minutes\. Now: / })
              .first()
              .waitFor()
          )
          yield* enter
          yield* tab
          yield* enter
          yield* focused(/^Times: Asia\/(Kolkata|Calcutta) \(UTC\+5:30\)$/)
          yield* promise(() =>
            page.getByText(/up for .*, since [\d:]+ Asia\/(Kolkata|Calcutta) \(UTC\+5:30\)$/).waitFor()
          )
          yield* tab
          yield* enter
          yield* focused("Resume")
          yield* promise(() =>
            page
              .getByRole("banner")
              .getByText(/^frozen at [\d:]+$/)
              .waitFor()
          )
          yield* enter
          yield* focused("Freeze")

          const plot = page.getByRole("img", { name: "Channels in use" })
          yield* promise(() => plot.focus())
          yield* promise(() => page.keyboard.press("End"))
          yield* promise(() =>
            page
              .getByRole("log")
              .getByText(/^[\d:]+: regular 0, confirm 0, transaction 0\.$/)
              .first()
              .waitFor({ state: "attached" })
          )
          const published = page.getByRole("figure", { name: "Published per second" })
          yield* promise(() => published.getByRole("columnheader", { name: /^\d\d:\d\d:\d\d$/ }).waitFor())
          yield* promise(() => page.keyboard.press("Escape"))
          yield* promise(() => published.getByRole("columnheader", { name: "now" }).waitFor())
          for (const width of [360, 768, 1280]) {
            yield* promise(() => page.setViewportSize({ width, height: 740 }))
            assert.deepStrictEqual(yield* promise(() => page.evaluate(overlaps)), [], String(width))
          }
          // On paper there are no controls, and the colors are those of the light scheme.
          yield* promise(() => page.emulateMedia({ media: "print", colorScheme: "dark", forcedColors: "none" }))
          for (const control of [
            page.getByRole("button", { name: "Freeze" }),
            page.getByRole("searchbox", { name: "Filter by queue" })
          ]) {
            assert.isFalse(yield* promise(() => control.isVisible()))
          }
          const background = "getComputedStyle(document.body).backgroundColor"
          assert.strictEqual(yield* promise(() => page.evaluate<string>(background)), "rgb(255, 255, 255)")
          const { compared, low } = yield* promise(() => page.evaluate<Contrasts>(contrasts))
          assert.isAbove(compared, 100)
          assert.deepStrictEqual(low, [])
          assert.deepStrictEqual(errors, [])
        }),
      120_000
    )
  })
})
