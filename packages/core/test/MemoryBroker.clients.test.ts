/** Clients of other libraries on the memory broker, with the programs that their tutorials begin with. */
import { MemoryBroker } from "@effect-amqp/core/testing"
import { assert, describe, it } from "@effect/vitest"
import amqplib from "amqplib"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { Connection } from "rabbitmq-client"
import { node } from "./support/processes.ts"

const listening = Effect.flatMap(MemoryBroker.make(), ({ listen }) => listen())

/** A Python that has Pika, if there is one. */
const python = ["python3", "/usr/bin/python3"].find((path) => spawnSync(path, ["-c", "import pika"]).status === 0)

const pika = `
import sys, pika, threading
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1] + "/%2F"))
channel = connection.channel()

def take(queue, count):
    bodies = []
    for method, properties, body in channel.consume(queue, inactivity_timeout=5):
        assert method is not None, "no delivery"
        bodies.append((method.routing_key, body, method.redelivered))
        channel.basic_ack(method.delivery_tag)
        if len(bodies) == count: break
    channel.cancel()
    return bodies

# Work queues: durable, persistent, fair dispatch, a message that comes back.
channel.queue_declare("task_queue", durable=True)
channel.basic_qos(prefetch_count=1)
channel.basic_publish("", "task_queue", b"task", pika.BasicProperties(delivery_mode=2, headers={"n": 1}))
method, properties, body = channel.basic_get("task_queue")
assert (body, properties.headers, properties.delivery_mode) == (b"task", {"n": 1}, 2)
channel.basic_nack(method.delivery_tag)
assert take("task_queue", 1) == [("task_queue", b"task", True)]

# Publish and subscribe: a fanout exchange, and a queue that the broker names.
channel.exchange_declare("logs", "fanout")
logs = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(logs, "logs")
channel.basic_publish("logs", "", b"log")
assert take(logs, 1) == [("", b"log", False)]

# Routing and topics.
channel.exchange_declare("topics", "topic")
errors = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(errors, "topics", "*.error.#")
for key in ["kernel.error", "kernel.info", "cron.error.disk"]: channel.basic_publish("topics", key, key.encode())
assert [key for key, _, _ in take(errors, 2)] == ["kernel.error", "cron.error.disk"]

# Requests and replies, with direct reply-to.
channel.queue_declare("rpc_queue")
def on_request(ch, method, properties, body):
    ch.basic_publish("", properties.reply_to, str(int(body) * 2).encode(), pika.BasicProperties(correlation_id=properties.correlation_id))
    ch.basic_ack(method.delivery_tag)
channel.basic_consume("rpc_queue", on_request)
replies = []
client = connection.channel()
client.basic_consume("amq.rabbitmq.reply-to", lambda ch, m, p, b: replies.append((p.correlation_id, b)), auto_ack=True)
client.basic_publish("", "rpc_queue", b"21", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="1"))
while not replies: connection.process_data_events(time_limit=1)
assert replies == [("1", b"42")]

# Confirms, returns and nacks.
confirmed = connection.channel()
confirmed.confirm_delivery()
confirmed.basic_publish("", "task_queue", b"confirmed", mandatory=True)
try:
    confirmed.basic_publish("", "nowhere", b"lost", mandatory=True)
    assert False
except UnroutableError: pass
confirmed.queue_declare("small", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
confirmed.basic_publish("", "small", b"1")
try:
    confirmed.basic_publish("", "small", b"2")
    assert False
except NackError: pass

# Dead letters.
confirmed.queue_declare("dead")
confirmed.queue_declare("work", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
confirmed.basic_publish("", "work", b"bad")
method, _, _ = confirmed.basic_get("work")
confirmed.basic_reject(method.delivery_tag, requeue=False)
method, properties, body = confirmed.basic_get("dead", auto_ack=True)
assert (properties.headers["x-death"][0]["reason"], properties.headers["x-death"][0]["queue"]) == ("rejected", "work")

# Errors end their channel with RabbitMQ's words.
try:
    confirmed.queue_declare("absent", passive=True)
    assert False
except ChannelClosedByBroker as error:
    assert (error.reply_code, error.reply_text) == (404, "NOT_FOUND - no queue 'absent' in vhost '/'")
connection.close()
print("pika is content")
`

describe("a memory broker serves", () => {
  it.live.skipIf(python === undefined)(
    `Pika's tutorial, and its confirms and errors${python === undefined ? " (skipped: python3-pika is not installed)" : ""}`,
    () =>
      Effect.gen(function* () {
        const { output } = yield* node(["-c", pika, yield* listening], {}, python)
        assert.deepStrictEqual(yield* output, ["pika is content"])
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("amqplib's tutorial, and its confirms and errors", () =>
    Effect.gen(function* () {
      const url = yield* listening
      yield* Effect.promise(async () => {
        const connection = await amqplib.connect(url)
        const channel = await connection.createConfirmChannel()
        await channel.assertExchange("logs", "fanout", { durable: true })
        const { queue } = await channel.assertQueue("", { exclusive: true })
        await channel.bindQueue(queue, "logs", "")
        const arrived = new Promise<amqplib.ConsumeMessage | null>((resolve) => void channel.consume(queue, resolve))
        channel.publish("logs", "key", Buffer.from("log"), { headers: { n: 1, deep: { list: [1, "two"] } } })
        await channel.waitForConfirms()
        const message = await arrived
        assert.strictEqual(message?.content.toString(), "log")
        assert.deepStrictEqual(message?.properties.headers, { n: 1, deep: { list: [1, "two"] } })
        channel.ack(message!)

        const other = await connection.createChannel()
        const closed = new Promise<Error>((resolve) => other.on("error", resolve))
        await other.checkQueue("absent").catch(() => {})
        assert.include((await closed).message, "NOT_FOUND - no queue 'absent' in vhost '/'")
        await connection.close()
      })
    }).pipe(Effect.scoped)
  )

  it.live("rabbitmq-client's publisher, consumer and requests", () =>
    Effect.gen(function* () {
      const url = yield* listening
      yield* Effect.promise(async () => {
        const done: Array<string> = []
        const rabbit = new Connection(url)
        rabbit.on("error", (error) => done.push(String(error)))
        const consumer = rabbit.createConsumer(
          { queue: "user-events", queueOptions: { durable: true }, qos: { prefetchCount: 2 } },
          async (message) => {
            done.push(String(message.body))
            // Code 1 requeues it: it arrives a second time.
            return done.length === 1 ? 1 : 0
          }
        )
        await new Promise((resolve) => consumer.once("ready", resolve))
        const publisher = rabbit.createPublisher({ confirm: true, maxAttempts: 2 })
        await publisher.send("user-events", "first")
        while (done.length < 2) await new Promise((resolve) => setImmediate(resolve))
        assert.deepStrictEqual(done, ["first", "first"])

        const server = rabbit.createConsumer({ queue: "doubles" }, async (request, reply) => reply(request.body * 2))
        await new Promise((resolve) => server.once("ready", resolve))
        const client = rabbit.createRPCClient({ confirm: true })
        assert.strictEqual((await client.send("doubles", 21)).body, 42)
        for (const part of [publisher, consumer, client, server, rabbit]) await part.close()
      })
    }).pipe(Effect.scoped)
  )
})
