/**
 * The dashboard's page in a browser, on a real broker behind a proxy that injects faults. Elements are found by the names
 * that a screen reader reads.
 */
import type { Amqp, AmqpError } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Context, Duration, Effect, Layer, type Scope } from "effect"
import { HttpServer } from "effect/http"
import type { BrowserContext, Browser as PlaywrightBrowser, Page } from "playwright-core"
import * as FaultProxy from "../../../core/test/support/FaultProxy.ts"
import * as Chromium from "./chromium.ts"
import { type Options, serveDashboard } from "./dashboard.ts"

export const found = await Effect.runPromise(Chromium.find)

export class Browser extends Context.Service<Browser, PlaywrightBrowser>()("Browser") {}

/** Where there is no browser the tests are skipped. */
export const browser = (
  found.path === undefined ? Layer.empty : Layer.effect(Browser, Chromium.launch(found.path))
) as Layer.Layer<Browser>

export const environment: Layer.Layer<TestBroker.TestBroker | Browser, TestBroker.TestBrokerError> = Layer.merge(
  TestBroker.layer,
  browser
)

export const path = "/amqp/dashboard"
const expected = `Basic ${btoa("operator:word")}`

// A browser that shares two cores with a broker and other tests is slow.
const timeoutMillis = 30_000

export const promise = <A>(f: () => Promise<A>) => Effect.promise(f)

const urlOf = (url: string, user: string | undefined) =>
  user === undefined ? url : Object.assign(new URL(url), { username: user, password: userPassword }).href

/** The password of a `user`. */
export const userPassword = "word"

export interface Served {
  /** Between the service and the broker. */
  readonly proxy: FaultProxy.FaultProxy
  readonly services: Context.Context<Amqp.Amqp | HttpServer.HttpServer>
  readonly url: string
}

/** Serves a dashboard for a user with a password, on the real broker behind a proxy, as `user` of the broker if it is given. */
export const dashboard = Effect.fnUntraced(function* (
  options: Options = {},
  user?: string
): Effect.fn.Return<Served, AmqpError.AmqpError, TestBroker.TestBroker | Scope.Scope> {
  const broker = yield* TestBroker.TestBroker
  const proxy = yield* FaultProxy.make(broker.url)
  const services = yield* Layer.build(
    serveDashboard(urlOf(proxy.through(broker.url), user), {
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
        },
        ...options.amqp
      }
    })
  )
  const url = HttpServer.formatAddress(Context.get(services, HttpServer.HttpServer).address) + path
  return { proxy, services, url }
})

/** Opens a browser window for one test, and records its errors and requests. */
export const open = (
  options: Parameters<PlaywrightBrowser["newContext"]>[0] = {}
): Effect.Effect<
  {
    readonly context: BrowserContext
    readonly page: Page
    readonly errors: Array<string>
    readonly requested: Array<string>
  },
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
    page.setDefaultTimeout(timeoutMillis)
    const errors: Array<string> = []
    const requested: Array<string> = []
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()))
    page.on("pageerror", (error) => errors.push(error.message))
    page.on("request", (request) => requested.push(request.url()))
    return { context, page, errors, requested }
  })

/** Waits for a row of a figure's table, as a screen reader reads it: the name of the row, and its numbers. */
export const row = (page: Page, figure: string | RegExp, name: RegExp) =>
  promise(() => page.getByRole("figure", { name: figure }).getByRole("row", { name }).first().waitFor())

/** Waits for a row of the table of consumers. */
export const consumer = (page: Page, name: RegExp) =>
  promise(() => page.getByRole("table", { name: "Consumers" }).getByRole("row", { name }).first().waitFor())

/** Waits for a line of what is wrong. */
export const line = (page: Page, text: string | RegExp) =>
  promise(() =>
    page.getByRole("list", { name: "What is wrong" }).getByRole("listitem").filter({ hasText: text }).first().waitFor()
  )

export const connection = /^Connection /
export const consumersConnection = /^Consumers’ connection /

/** Waits until a text was announced to screen readers. */
export const said = (page: Page, text: string) =>
  promise(() => page.getByRole("log").getByText(text, { exact: true }).first().waitFor({ state: "attached" }))

export const stream = (page: Page, words: string) =>
  promise(() => page.getByRole("banner").getByText(words, { exact: true }).waitFor())
