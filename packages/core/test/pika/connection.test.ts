/**
 * Connecting as Pika does: parameters, credentials, and the lifecycle of a connection. Rows of `docs/pika.md` name
 * these tests.
 */
import { assert, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConfig, AmqpConnection, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Redacted, Stream, SubscriptionRef } from "effect"
import * as Certificates from "../support/certificates.ts"
import * as FaultProxy from "../support/FaultProxy.ts"
import * as ScriptedBroker from "../support/ScriptedBroker.ts"
import * as TlsProxy from "../support/TlsProxy.ts"
import {
  connected,
  connectedTo,
  contents,
  fill,
  ownQueue,
  parameters,
  provided,
  reasonOf,
  untilState
} from "./broker.ts"

/** What the connection reports while it is open. */
const open = Effect.gen(function* () {
  const { state } = yield* AmqpConnection.AmqpConnection
  const now = yield* SubscriptionRef.get(state)
  return now._tag === "Open" ? now : assert.fail(`it is ${now._tag}`)
})

/** The settings that the service was made with. */
const config = Effect.map(AmqpConnection.AmqpConnection, ({ config }) => config)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("without parameters it connects to the local broker, as guest", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.make()
      assert.deepStrictEqual(config.hosts, [{ host: "localhost", port: 5672 }])
      assert.strictEqual(config.vhost, "/")
      assert.deepInclude(config.credentials, { _tag: "Plain", username: "guest" })
      // The tests' broker has its own port and virtual host. The rest is left to the defaults.
      const { password, port, username, virtual_host: vhost } = yield* parameters
      yield* open.pipe(provided(Amqp.layer({ username, password, port, vhost })))
    })
  )

  it.effect("host and port locate the broker, and a list of hosts is tried in order", () =>
    Effect.gen(function* () {
      const { host, password, port, username, virtual_host: vhost } = yield* parameters
      const refusing = yield* FaultProxy.make(1)
      refusing.refuse()
      const first = yield* open.pipe(provided(Amqp.layer({ host, port, username, password, vhost })))
      assert.strictEqual(first.peer, `${host}:${port}`)
      const hosts = [`127.0.0.1:${refusing.port}`, { host, port }]
      const second = yield* open.pipe(provided(Amqp.layer({ hosts, username, password, vhost })))
      assert.strictEqual(second.peer, `${host}:${port}`)
      assert.isAtLeast(refusing.stats.refused, 1)
    })
  )

  it.effect("the broker counts the connection in its virtual host, and refuses an unknown one", () =>
    Effect.gen(function* () {
      const { awaitCensus, url, vhost } = yield* TestBroker.TestBroker
      yield* awaitCensus({ connections: 1 }).pipe(connectedTo(url, { vhost }))
      const reason = yield* reasonOf(open.pipe(connectedTo(url, { vhost: "nowhere" })))
      assert.strictEqual(reason._tag, "VirtualHostRefused")
    })
  )

  it.effect("a user name and a password log in, and wrong ones fail differently from an absent broker", () =>
    Effect.gen(function* () {
      const { host, password, port, username, virtual_host: vhost } = yield* parameters
      const credentials = { _tag: "Plain", username, password: Redacted.make(password) } as const
      yield* open.pipe(provided(Amqp.layer({ host, port, vhost, credentials })))
      const wrong = { _tag: "Plain", username, password: "wrong" } as const
      const reason = yield* reasonOf(open.pipe(provided(Amqp.layer({ host, port, vhost, credentials: wrong }))))
      assert.strictEqual(reason._tag, "AuthenticationFailed")
    })
  )

  it.effect("EXTERNAL logs in with the client's certificate", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.on("connection.start-ok", (start) => {
        assert.strictEqual(start.args.mechanism, "EXTERNAL")
        start.proceed()
      })
      const { port } = yield* TlsProxy.make(broker, {
        requestCert: true,
        rejectUnauthorized: true,
        ca: Certificates.ca
      })
      const options: AmqpConfig.Options = {
        host: "localhost",
        port,
        credentials: { _tag: "External" },
        tls: { ca: Certificates.ca, cert: Certificates.client.cert, key: Certificates.client.key }
      }
      yield* open.pipe(provided(Amqp.layer(options)))
    })
  )

  it.effect("the password is kept for reconnecting, and is never printed", () =>
    Effect.gen(function* () {
      const { password } = yield* parameters
      const { credentials } = yield* config
      assert.isTrue(credentials._tag === "Plain" && Redacted.value(credentials.password) === password)
      assert.include(JSON.stringify(credentials), "redacted")
    }).pipe(connected())
  )

  it.effect("channel_max, frame_max and heartbeat are proposed, and the agreed values are reported", () =>
    Effect.gen(function* () {
      const agreed = yield* open.pipe(connected({ channelMax: 100, frameMax: 8192, heartbeat: "5 seconds" }))
      assert.deepInclude(agreed, { channelMax: 100, frameMax: 8192 })
      assert.deepStrictEqual(agreed.heartbeat, Duration.seconds(5))
    })
  )

  it.effect("tls switches TLS on, and the broker's certificate is checked", () =>
    Effect.gen(function* () {
      const { host, port, ...login } = yield* parameters
      const behind: AmqpConfig.Options = {
        host: "localhost",
        port: (yield* TlsProxy.make({ host, port })).port,
        vhost: login.virtual_host,
        username: login.username,
        password: login.password
      }
      yield* open.pipe(provided(Amqp.layer({ ...behind, tls: { ca: Certificates.ca } })))
      const reason = yield* reasonOf(open.pipe(provided(Amqp.layer({ ...behind, tls: true }))))
      assert.strictEqual(reason._tag, "TlsFailed")
    })
  )

  it.effect("the first connect is tried connection_attempts times, retry_delay apart", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* FaultProxy.proxied
      proxy.refuse()
      const connecting = yield* Effect.forkChild(
        open.pipe(connectedTo(url, { connectionAttempts: 1000, retryDelay: "10 millis" }))
      )
      yield* proxy.accepted(3)
      proxy.heal()
      yield* Fiber.join(connecting)
      proxy.refuse()
      assert.strictEqual((yield* reasonOf(open.pipe(connectedTo(url))))._tag, "ConnectionClosed")
    })
  )

  it.effect("connecting to a peer that falls silent fails after socket_timeout", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* FaultProxy.proxied
      proxy.stall()
      const reason = yield* reasonOf(open.pipe(connectedTo(url, { socketTimeout: "50 millis" })))
      assert.strictEqual(reason._tag, "ConnectTimeout")
    })
  )

  it.effect("connecting to one host fails after stack_timeout, even if the peer sends data", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* FaultProxy.proxied
      proxy.chop(1)
      proxy.rate(100)
      const reason = yield* reasonOf(open.pipe(connectedTo(url, { connectTimeout: "200 millis" })))
      assert.strictEqual(reason._tag, "ConnectTimeout")
    })
  )

  it.effect("the handshake requests the locale", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const asked = yield* Effect.forkChild(broker.received("connection.start-ok"))
      yield* open.pipe(connectedTo(broker.url, { locale: "en_US" }))
      assert.strictEqual((yield* Fiber.join(asked)).args.locale, "en_US")
    })
  )

  it.effect("the broker shows the client properties and the connection's name", () =>
    Effect.gen(function* () {
      const { evaluate, vhost } = yield* TestBroker.TestBroker
      const shown = evaluate(
        `[proplists:get_value(client_properties, C) || C <- rabbit_networking:connection_info_all([vhost, client_properties]), proplists:get_value(vhost, C) =:= <<"${vhost}">>].`
      )
      const options: AmqpConfig.Options = { connectionName: "orders", clientProperties: { deployment: "blue" } }
      const text = yield* shown.pipe(connected(options))
      assert.include(text, "orders")
      assert.include(text, "blue")
    })
  )

  it.effect("a new secret is sent to the broker, and used for reconnecting", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const connection = yield* AmqpConnection.AmqpConnection
        yield* connection.updateSecret(Redacted.make("second"), "the first expires")
        broker.destroy()
      }).pipe(Effect.andThen(broker.received("connection.start-ok", 2)), connectedTo(broker.url))
      const told = broker.log.find(({ method }) => method === "connection.update-secret")
      assert.deepInclude(told?.args, { reason: "the first expires" })
      const { args } = yield* broker.received("connection.start-ok", 2)
      assert.strictEqual(args.response.toString(), "\0guest\0second")
    })
  )

  it.effect("TCP keep-alive is on, and has the delay of tcp_options", () =>
    Effect.gen(function* () {
      const byDefault = yield* config.pipe(connected())
      assert.deepStrictEqual(byDefault.tcp, {
        noDelay: true,
        keepAlive: true,
        keepAliveDelay: Duration.seconds(30)
      })
      const { tcp } = yield* config.pipe(connected({ tcp: { keepAliveDelay: "1 minute" } }))
      assert.deepStrictEqual(tcp.keepAliveDelay, Duration.minutes(1))
    })
  )

  it.effect("each parameter of URLParameters is a parameter of our URLs", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const query =
        "?channel_max=100&frame_max=65536&heartbeat=30&locale=en_US&connection_attempts=3&retry_delay=0.25" +
        "&socket_timeout=5&stack_timeout=7.5&blocked_connection_timeout=300.5" +
        "&client_properties={'product': 'shop'}&tcp_options={'TCP_KEEPIDLE': 60}&backpressure_detection=t"
      const read = yield* AmqpConfig.fromUrl(url + query)
      const seconds = Duration.seconds
      assert.deepInclude(read, { channelMax: 100, frameMax: 65_536, heartbeat: seconds(30), locale: "en_US" })
      assert.deepInclude(read, { connectionAttempts: 3, retryDelay: Duration.millis(250) })
      assert.deepInclude(read, { socketTimeout: seconds(5), connectTimeout: Duration.millis(7500) })
      assert.deepInclude(read, { blockedConnectionTimeout: Duration.millis(300_500) })
      assert.deepStrictEqual(read.tcp.keepAliveDelay, Duration.minutes(1))
      assert.strictEqual(read.clientProperties["product"], "shop")
      const agreed = yield* open.pipe(provided(Amqp.fromConfig(read)))
      assert.deepInclude(agreed, { channelMax: 100, frameMax: 65_536, heartbeat: seconds(30) })
    })
  )

  it.effect("ssl_options of a URL are Pika's", () =>
    Effect.gen(function* () {
      const { host, password, port, username, virtual_host } = yield* parameters
      const { port: tlsPort } = yield* TlsProxy.make({ host, port })
      const secure = `amqps://localhost:${tlsPort}/${virtual_host}?ssl_options={'server_hostname': 'localhost'}`
      const read = yield* AmqpConfig.fromUrl(secure, { username, password, tls: { ca: Certificates.ca } })
      assert.deepInclude(read.tls, { servername: "localhost", verify: true })
      yield* open.pipe(provided(Amqp.fromConfig(read)))
    })
  )

  it.effect("the connection's state is a reference, with its changes as a stream", () =>
    Effect.gen(function* () {
      const { closeConnections } = yield* TestBroker.TestBroker
      const connection = yield* AmqpConnection.AmqpConnection
      assert.strictEqual((yield* SubscriptionRef.get(connection.state))._tag, "Open")
      const seen = yield* SubscriptionRef.changes(connection.state).pipe(
        Stream.map(({ _tag }) => _tag),
        Stream.changes,
        Stream.take(3),
        Stream.runCollect,
        Effect.timeout("10 seconds"),
        Effect.forkChild({ startImmediately: true })
      )
      yield* closeConnections()
      assert.deepStrictEqual(yield* Fiber.join(seen), ["Open", "Reconnecting", "Open"])
    }).pipe(connected())
  )

  it.effect("a lost connection is re-established, and the next borrower notices nothing", () =>
    Effect.gen(function* () {
      const { killConnections } = yield* TestBroker.TestBroker
      const lost = yield* Effect.forkChild(
        untilState((now) => now._tag === "Reconnecting"),
        { startImmediately: true }
      )
      yield* killConnections
      yield* Fiber.join(lost)
      const queue = yield* ownQueue
      yield* fill(queue, "after")
      assert.deepStrictEqual(yield* contents(queue), ["after"])
      assert.deepInclude(yield* open, { generation: 2 })
    }).pipe(connected())
  )

  it.effect("the connection closes with its scope, and notifies its peer", () =>
    Effect.gen(function* () {
      const { awaitCensus } = yield* TestBroker.TestBroker
      const { state } = yield* AmqpConnection.AmqpConnection.pipe(connected())
      assert.strictEqual((yield* SubscriptionRef.get(state))._tag, "Closed")
      yield* awaitCensus({ connections: 0, channels: 0 })
    })
  )

  it.effect("an interruption stops connecting, and leaves no socket", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* FaultProxy.proxied
      proxy.stall()
      const connecting = yield* Effect.forkChild(open.pipe(connectedTo(url)))
      yield* proxy.accepted()
      yield* Fiber.interrupt(connecting)
      proxy.heal()
      yield* proxy.linksClosed
    })
  )

  it.effect("timers are those of Effect, and end with the fiber that waits", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const publish = fill(queue, "later")
      yield* Effect.delay(publish, "10 millis")
      const never = yield* Effect.forkChild(Effect.delay(publish, "1 hour"))
      yield* Fiber.interrupt(never)
      assert.deepStrictEqual(yield* contents(queue), ["later"])
    }).pipe(connected())
  )

  it.effect("the server's product and version are available", () =>
    Effect.gen(function* () {
      const { product } = yield* open.pipe(connected())
      assert.match(product, /^RabbitMQ \d/)
    })
  )

  it.effect("the connection numbers the channels, and a borrower opens them", () =>
    Effect.gen(function* () {
      const { awaitCensus } = yield* TestBroker.TestBroker
      const one = yield* AmqpPool.get
      const two = yield* AmqpPool.get
      assert.notStrictEqual(one, two)
      yield* awaitCensus({ channels: 2 })
    }).pipe(connected())
  )

  it.effect("there is no check whether a channel is open: an operation fails with the reason why it is not", () =>
    Effect.gen(function* () {
      const reasons = yield* AmqpChannel.use((channel) =>
        Effect.all([reasonOf(channel.queueDeclarePassive("missing")), reasonOf(channel.queueDeclare("q"))])
      )
      assert.deepStrictEqual(
        reasons.map(({ _tag }) => _tag),
        ["NotFound", "ChannelClosed"]
      )
    }).pipe(connected())
  )
})
