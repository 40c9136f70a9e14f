/**
 * Live updates: everything that is published to the exchange `news` appears in every browser that shows the page.
 *
 * - `GET /` is the page, `GET /news` are its server-sent events, and `POST /news` publishes a line.
 *
 * Run it with `npm start -- live`. Ctrl-C stops it.
 */
import { AmqpChannel, AmqpConsumer, AmqpMessage, AmqpTopology } from "@effect-amqp/core"
import { AmqpHttp, AmqpHttpServer } from "@effect-amqp/http"
import { Console, Effect, Layer, Stream } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import * as ExampleBroker from "./support/ExampleBroker.ts"
import * as ExampleServer from "./support/ExampleServer.ts"
import { launch } from "./support/launch.ts"

const exchange = "news"

// --- Publishing --------------------------------------------------------------------------------------------------------

const publish = Effect.gen(function* () {
  const { text } = yield* HttpServerRequest.HttpServerRequest
  const content = yield* text
  yield* AmqpChannel.use((channel) => channel.publish({ exchange, routingKey: "", content }))
  return HttpServerResponse.empty({ status: 202 })
})

// --- A stream of events for each browser -------------------------------------------------------------------------------

const queueOf = () => `news.${crypto.randomUUID()}`

const follow = Effect.gen(function* () {
  const consumer = yield* AmqpConsumer.AmqpConsumer
  const queue = queueOf()
  const news = AmqpConsumer.stream(queue, {
    // This browser has its own queue, which is deleted with it.
    declare: (channel) =>
      Effect.andThen(
        channel.queueDeclare(queue, { exclusive: true, autoDelete: true }),
        channel.queueBind(queue, exchange, "")
      )
  }).pipe(
    Stream.tap((delivery) => delivery.ack),
    Stream.map((delivery) => `data: ${JSON.stringify(AmqpMessage.text(delivery))}\n\n`),
    // It ends when the server stops, so that the server does not wait for browsers.
    Stream.interruptWhen(AmqpHttpServer.stopping),
    Stream.provideService(AmqpConsumer.AmqpConsumer, consumer)
  )
  const events = Stream.concat(Stream.make(": welcome\n\n"), news)
  return HttpServerResponse.stream(Stream.encodeText(events), {
    contentType: "text/event-stream",
    headers: { "cache-control": "no-store" }
  })
})

const page = HttpServerResponse.html(`<!doctype html>
<html lang="en">
  <title>News</title>
  <h1>News</h1>
  <ul id="news" aria-live="polite"></ul>
  <script>
    new EventSource("/news").onmessage = ({ data }) => {
      const item = document.createElement("li")
      item.textContent = JSON.parse(data)
      document.getElementById("news").append(item)
    }
  </script>
</html>
`)

// --- The program -------------------------------------------------------------------------------------------------------

const Routes = Layer.mergeAll(
  HttpRouter.add("GET", "/", page),
  HttpRouter.add("GET", "/news", follow),
  HttpRouter.add("POST", "/news", publish)
).pipe(Layer.provide(AmqpHttp.layer))

const Announcement = Layer.effectDiscard(
  Effect.flatMap(HttpServer.HttpServer, ({ address }) => {
    const url = HttpServer.formatAddress(address)
    return Console.log(`News are on ${url}.\n\n  curl -i ${url}/news -d 'It works'\n\nCtrl-C stops it.`)
  })
)

Announcement.pipe(
  Layer.provide(HttpRouter.serve(Routes, { disableListenLog: true })),
  Layer.provide(AmqpTopology.layer(AmqpTopology.make(AmqpTopology.exchange(exchange, "fanout")))),
  Layer.provide(ExampleServer.layer),
  Layer.provide(ExampleBroker.layer),
  launch
)
