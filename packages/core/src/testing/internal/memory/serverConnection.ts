/** The door for clients of any kind: one connection on a socket, in frames of AMQP 0-9-1. */
import type { Socket } from "node:net"
import { bodyFrame, classBasic, headerFrame, heartbeatFrame, methodFrame } from "../../../internal/wire/protocol.ts"
import type { WireReader } from "./codec/wire.ts"
import { WireError } from "./codec/wire.ts"
import { decodeMethod, isClientMethod, methodOf } from "./codec/methodCodec.ts"
import { type Args, causeOf, type ClientMethod, type Method, type ServerMethod } from "./codec/methods.ts"
import * as Failure from "./failure.ts"
import * as Frames from "./frames.ts"
import { type Frame, FrameReader, protocolHeader } from "./frameReader.ts"
import type { Broker } from "./model/broker.ts"
import type { Channel, ChannelClient, Outbound } from "./model/channel.ts"
import { Properties } from "./model/properties.ts"
import { Session, type SessionClient } from "./model/session.ts"
import * as Table from "./model/table.ts"

/** As RabbitMQ tunes by default. */
const tuning = { channelMax: 2047, frameMax: 131_072, heartbeat: 60 }

/** RabbitMQ's `handshake_timeout`, in milliseconds: from the socket to `connection.open`. */
const handshakeTimeout = 10_000

/** How long RabbitMQ waits for the `connection.close-ok` of its `connection.close`, in milliseconds. */
const closingTimeout = 30_000

const refused = 403
const leftOut = 540
const internal = 541

/** How long RabbitMQ keeps a connection whose client it does not trust, in milliseconds, so that it does not come back at once. */
const silentCloseDelay = 3000

const readEntries = (reader: WireReader): ReadonlyArray<Table.Entry> => Table.readEntries(reader.octets(reader.long()))

/** A method, whose tables are entries with their types. */
type Received = {
  readonly [M in ClientMethod]: {
    readonly method: M
    readonly args: {
      readonly [K in keyof Args<M>]: K extends `${string}roperties` | "arguments"
        ? ReadonlyArray<Table.Entry>
        : Args<M>[K]
    }
  }
}[ClientMethod]

interface Publish {
  readonly args: Extract<Received, { readonly method: "basic.publish" }>["args"]
  properties: Properties | undefined
  size: number
  readonly chunks: Array<Buffer>
  received: number
}

const publishOf = (args: Publish["args"]): Publish => ({
  args,
  properties: undefined,
  size: 0,
  chunks: [],
  received: 0
})

interface Numbered {
  readonly number: number
  channel: Channel | undefined
  /** Whether the broker has closed it, and its client has not answered. */
  isClosing: boolean
  publish: Publish | undefined
}

/** Names and keys are read as UTF-8. Other bytes would become the replacement character, and not be those of the client. */
const checkNames = (args: object): void => {
  const { consumerTag, exchange, queue, routingKey }: { readonly [name: string]: unknown } = { ...args }
  for (const name of [consumerTag, exchange, queue, routingKey]) {
    if (typeof name === "string" && name.includes("\uFFFD")) throw Failure.leftOut("names and keys that are not UTF-8")
  }
}

const login = (
  mechanism: string,
  response: string
): { readonly user: string; readonly password: string } | undefined => {
  if (mechanism === "PLAIN") {
    const [, user, password] = response.split("\0")
    return user === undefined || password === undefined ? undefined : { user, password }
  }
  if (mechanism !== "AMQPLAIN") return undefined
  const entries = Table.readEntries(Buffer.from(response))
  const user = Table.text(Table.find(entries, "LOGIN"))
  const password = Table.text(Table.find(entries, "PASSWORD"))
  return user === undefined || password === undefined ? undefined : { user, password }
}

export class ServerConnection implements SessionClient {
  readonly #broker: Broker
  readonly #socket: Socket
  readonly #reader: FrameReader
  readonly #numbers = new Map<number, Numbered>()
  #session: Session | undefined
  #user: string | undefined
  #capabilities: ReadonlyArray<Table.Entry> = []
  /** `closing`: a `close-ok` is read. `deaf`: nothing is read until the end. */
  #stage: "header" | "start-ok" | "tune-ok" | "open" | "running" | "closing" | "deaf" | "ended" = "header"
  #frameMax = 0
  #channelMax = tuning.channelMax
  #output: Array<Buffer> = []
  #isFlushing = false
  #hasRead = false
  #cancelHeartbeat: (() => void) | undefined
  /** Cancels the deadline of the handshake, or that of the close. */
  #cancelDeadline: (() => void) | undefined

  constructor(broker: Broker, socket: Socket) {
    this.#broker = broker
    this.#socket = socket
    this.#reader = new FrameReader(broker.behavior.leastFrameMax)
    broker.opening.add(this)
    socket.setNoDelay(true)
    socket.on("data", (bytes: Buffer) => {
      if (this.#isDeaf) return
      this.#hasRead = true
      this.#reader.push(bytes)
      this.#read()
    })
    // A client may reset the connection: `close` follows.
    socket.on("error", () => {})
    socket.on("close", () => this.#ended())
    this.#expect(handshakeTimeout)
    this.heldChanged()
  }

  // --- Reading ---------------------------------------------------------------------------------------------------------

  get #isHeld(): boolean {
    return this.#session?.isHeld ?? this.#broker.isStalled
  }

  get #isDeaf(): boolean {
    return this.#stage === "deaf" || this.#stage === "ended"
  }

  heldChanged(): void {
    if (this.#isHeld) this.#socket.pause()
    else this.#socket.resume()
    this.#flush()
    // What was read before is handled now, but not inside of what has changed it.
    setImmediate(() => this.#read())
  }

  #read(): void {
    while (!this.#isHeld && !this.#isDeaf) {
      try {
        if (this.#stage === "header") {
          const header = this.#reader.header()
          if (header === undefined) return
          if (!header.equals(protocolHeader)) {
            this.#write(this.#broker.behavior.offersProtocol)
            return this.#finish()
          }
          this.#start()
          continue
        }
        const frame = this.#reader.next()
        if (frame === undefined) return
        this.#broker.run(() => this.#frame(frame))
      } catch (cause) {
        this.#broker.run(() => this.#fail(cause, 0, ""))
      }
    }
  }

  #frame({ channel, payload, type }: Frame): void {
    const isUnknown =
      type === methodFrame
        ? payload.length < 4
        : type === headerFrame
          ? payload.length < 12
          : type === heartbeatFrame
            ? payload.length > 0
            : type !== bodyFrame
    if (this.#stage === "closing" && (type !== methodFrame || isUnknown || channel !== 0)) return
    if (isUnknown) throw Failure.unknownFrame(type, payload)
    if (type === methodFrame) return this.#method(channel, payload)
    if (channel === 0 ? type !== heartbeatFrame : type === heartbeatFrame) {
      throw Failure.unexpectedOnChannel(type, payload)
    }
    if (type === headerFrame) this.#header(channel, payload)
    if (type === bodyFrame) this.#body(channel, payload)
  }

  #method(number: number, payload: Buffer): void {
    const method = methodOf(payload.readUInt32BE(0))
    // A number of no method ends RabbitMQ's process of the connection.
    if (method === undefined) return this.cut()
    if (this.#stage === "closing") return this.#onClosing(method)
    const { publish, isClosing } = this.#numbers.get(number) ?? {}
    if (publish !== undefined && !isClosing) return this.#fail(this.#notContent(publish), number, "basic.publish")
    const session = this.#session
    if (number !== 0 && session === undefined) throw Failure.unexpectedOnChannel(methodFrame, payload)
    try {
      if (!isClientMethod(method)) {
        throw number === 0 ? this.#unexpectedMethod() : Failure.commandInvalid("unimplemented method")
      }
      const received = this.#received(number, payload)
      if (number === 0) this.#onConnection(received)
      else if (session !== undefined) this.#onChannel(session, number, received)
    } catch (cause) {
      this.#fail(cause, number, method)
    }
  }

  #received(number: number, payload: Buffer): Received {
    try {
      return decodeMethod(payload, readEntries) as unknown as Received
    } catch (cause) {
      if (!(cause instanceof WireError)) throw cause
      // RabbitMQ does not say why it cannot read a method of the connection.
      throw number === 0 ? Failure.internal : Failure.undecodable(payload.subarray(4))
    }
  }

  /** Closes the channel or the connection for an error. */
  #fail(cause: unknown, number: number, method: string): void {
    const failure = cause instanceof Failure.Failure ? cause : Failure.internalError(String(cause))
    const hasCause = failure.code !== refused && failure !== Failure.internal
    const { classId, methodId } = causeOf(hasCause ? method : "")
    const close = { replyCode: failure.code, replyText: failure.message.slice(0, 255), classId, methodId }
    const numbered = this.#numbers.get(number)
    if (failure.of === "channel" && numbered !== undefined) {
      numbered.isClosing = true
      numbered.publish = undefined
      this.#session?.closeChannel(number)
      return this.#send(number, "channel.close", close)
    }
    if (this.#session === undefined && !this.#isExplained(failure)) return this.#turnsDeaf()
    this.#session?.end()
    this.#send(0, "connection.close", close)
    if (failure.isFatal) return this.#turnsDeaf()
    this.#stage = "closing"
    return this.#expect(failure.code === refused ? silentCloseDelay : closingTimeout)
  }

  /** Whether a client whose connection is not open gets a `connection.close`. */
  #isExplained({ code }: Failure.Failure): boolean {
    if (code === refused) return this.#can("authentication_failure_close")
    return code === leftOut || (this.#stage === "open" && code !== internal)
  }

  #turnsDeaf(): void {
    this.#stage = "deaf"
    this.#expect(silentCloseDelay)
  }

  // --- The connection --------------------------------------------------------------------------------------------------

  #start(): void {
    this.#stage = "start-ok"
    this.#send(0, "connection.start", {
      versionMajor: 0,
      versionMinor: 9,
      serverProperties: {
        product: "RabbitMQ",
        version: this.#broker.behavior.product,
        platform: "effect-amqp MemoryBroker",
        information: "A test double in memory, which plays RabbitMQ and keeps nothing",
        capabilities: {
          publisher_confirms: true,
          exchange_exchange_bindings: true,
          "basic.nack": true,
          consumer_cancel_notify: true,
          "connection.blocked": true,
          consumer_priorities: true,
          authentication_failure_close: true,
          per_consumer_qos: true,
          direct_reply_to: true
        }
      },
      mechanisms: "AMQPLAIN PLAIN",
      locales: "en_US"
    })
  }

  #can(capability: string): boolean {
    return Table.find(this.#capabilities, capability)?.bytes[0] === 1
  }

  #unexpectedMethod(): Failure.Failure {
    return Failure.channelError(
      `unexpected method in connection state ${this.#stage === "open" ? "opening" : this.#stage}`
    )
  }

  #onClosing(method: Method): void {
    if (method === "connection.close") this.#send(0, "connection.close-ok")
    if (method === "connection.close-ok") this.#finish()
  }

  #onConnection(received: Received): void {
    const stages: { readonly [method: string]: string } = {
      "connection.start-ok": "start-ok",
      "connection.tune-ok": "tune-ok",
      "connection.open": "open",
      "connection.close": "running",
      "connection.update-secret": "running"
    }
    if (stages[received.method] !== this.#stage) throw this.#unexpectedMethod()
    switch (received.method) {
      case "connection.start-ok":
        return this.#logIn(received.args)
      case "connection.tune-ok":
        return this.#tuned(received.args)
      case "connection.open": {
        const { virtualHost } = received.args
        const vhost = this.#broker.vhosts.get(virtualHost)
        if (vhost === undefined) throw Failure.notAllowed(`vhost ${virtualHost} not found`)
        this.#broker.opening.delete(this)
        this.#session = new Session(this.#broker, vhost, this.#user ?? "guest", this)
        this.#stage = "running"
        this.#cancelDeadline?.()
        return this.#send(0, "connection.open-ok")
      }
      case "connection.update-secret":
        return this.#send(0, "connection.update-secret-ok")
      case "connection.close":
        this.#session?.end()
        this.#send(0, "connection.close-ok")
        // The client ends the socket.
        this.#stage = "deaf"
        return this.#expect(closingTimeout)
      default:
        throw this.#unexpectedMethod()
    }
  }

  #logIn({
    clientProperties,
    mechanism,
    response
  }: Extract<Received, { readonly method: "connection.start-ok" }>["args"]): void {
    const given = Table.find(clientProperties, "capabilities")
    this.#capabilities = given?.tag === "F" ? Table.readEntries(given.bytes) : []
    if (mechanism === "EXTERNAL") throw Failure.leftOutOfLogins("logins by a certificate (EXTERNAL)")
    if (mechanism !== "PLAIN" && mechanism !== "AMQPLAIN") {
      throw Failure.commandInvalid(`unknown authentication mechanism '${mechanism}'`)
    }
    const credentials = login(mechanism, response)
    if (credentials === undefined) throw Failure.syntaxError(`a response of ${mechanism} without a user and a password`)
    this.#broker.logIn(credentials.user, credentials.password)
    this.#user = credentials.user
    this.#stage = "tune-ok"
    return this.#send(0, "connection.tune", tuning)
  }

  #tuned({ channelMax, frameMax, heartbeat }: Args<"connection.tune-ok">): void {
    const isNegotiated = (value: number, least: number, most: number) => least <= value && value <= most
    if (
      !isNegotiated(frameMax, this.#broker.behavior.leastFrameMax, tuning.frameMax) ||
      !isNegotiated(channelMax, 1, tuning.channelMax)
    ) {
      throw Failure.notAllowed(`expected limits of connection.tune, got ${frameMax} and ${channelMax}`)
    }
    this.#frameMax = frameMax
    this.#reader.frameMax = frameMax
    this.#channelMax = channelMax
    this.#stage = "open"
    if (heartbeat > 0) this.#beat(heartbeat * 500, 0)
  }

  /** Sends a heartbeat twice per interval. A client that is silent for two intervals is gone. */
  #beat(interval: number, silent: number): void {
    const { timers } = this.#broker
    this.#cancelHeartbeat = timers.at(timers.now() + interval, () => {
      const left = this.#hasRead || this.#isHeld ? 0 : silent + 1
      this.#hasRead = false
      if (left > 4) return this.cut()
      this.#write(Frames.heartbeat)
      return this.#beat(interval, left)
    })
  }

  // --- Channels --------------------------------------------------------------------------------------------------------

  #onChannel(session: Session, number: number, received: Received): void {
    const { method } = received
    const numbered = this.#numbers.get(number)
    if (numbered?.channel === undefined) {
      if (method === "basic.publish") {
        // RabbitMQ looks for the channel when the message is complete.
        this.#numbers.set(number, { number, channel: undefined, isClosing: false, publish: publishOf(received.args) })
        return undefined
      }
      if (method !== "channel.open") throw Failure.channelError("expected 'channel.open'")
      if (this.#numbers.size >= this.#channelMax) {
        const most = this.#channelMax
        const text = `number of channels opened (${most}) has reached the negotiated channel_max (${most})`
        return this.#fail(Failure.notAllowed(text), 0, "")
      }
      const channel = session.openChannel(number, this.#client(number))
      this.#numbers.set(number, { number, channel, isClosing: false, publish: undefined })
      return this.#send(number, "channel.open-ok")
    }
    if (numbered.isClosing) {
      if (method === "channel.close") this.#send(number, "channel.close-ok")
      if (method === "channel.close-ok") this.#numbers.delete(number)
      return undefined
    }
    checkNames(received.args)
    switch (received.method) {
      case "channel.open":
        throw Failure.channelError("second 'channel.open' seen")
      case "channel.close":
        session.closeChannel(number)
        this.#numbers.delete(number)
        return this.#send(number, "channel.close-ok")
      case "basic.publish":
        numbered.publish = publishOf(received.args)
        session.publishes()
        return undefined
      default:
        return this.#onOpenChannel(number, numbered.channel, received)
    }
  }

  #onOpenChannel(number: number, channel: Channel, received: Received): void {
    const reply = <M extends ServerMethod>(noWait: boolean, method: M, args: Partial<Args<M>> = {}): void => {
      if (!noWait) this.#send(number, method, args)
    }
    switch (received.method) {
      case "channel.flow":
        if (!received.args.active) throw Failure.notImplemented("active=false")
        return reply(false, "channel.flow-ok", { active: true })
      case "exchange.declare": {
        const { autoDelete, durable, exchange, internal, noWait, passive, type } = received.args
        if (passive) channel.exchangeDeclarePassive(exchange)
        else channel.exchangeDeclare(exchange, type, { autoDelete, durable, internal }, received.args.arguments)
        return reply(noWait, "exchange.declare-ok")
      }
      case "exchange.delete":
        channel.exchangeDelete(received.args.exchange, received.args.ifUnused)
        return reply(received.args.noWait, "exchange.delete-ok")
      case "exchange.bind": {
        const { destination, noWait, routingKey, source } = received.args
        channel.exchangeBind(destination, source, routingKey, received.args.arguments)
        return reply(noWait, "exchange.bind-ok")
      }
      case "exchange.unbind": {
        const { destination, noWait, routingKey, source } = received.args
        channel.exchangeUnbind(destination, source, routingKey, received.args.arguments)
        return reply(noWait, "exchange.unbind-ok")
      }
      case "queue.declare": {
        const { autoDelete, durable, exclusive, noWait, passive, queue } = received.args
        const counts = passive
          ? channel.queueDeclarePassive(queue)
          : channel.queueDeclare(queue, { autoDelete, durable, exclusive }, received.args.arguments)
        return reply(noWait, "queue.declare-ok", counts)
      }
      case "queue.bind": {
        const { exchange, noWait, queue, routingKey } = received.args
        channel.queueBind(queue, exchange, routingKey, received.args.arguments)
        return reply(noWait, "queue.bind-ok")
      }
      case "queue.unbind": {
        const { exchange, queue, routingKey } = received.args
        channel.queueUnbind(queue, exchange, routingKey, received.args.arguments)
        return reply(false, "queue.unbind-ok")
      }
      case "queue.purge":
        return reply(received.args.noWait, "queue.purge-ok", { messageCount: channel.queuePurge(received.args.queue) })
      case "queue.delete": {
        const { ifEmpty, ifUnused, noWait, queue } = received.args
        return reply(noWait, "queue.delete-ok", { messageCount: channel.queueDelete(queue, ifUnused, ifEmpty) })
      }
      case "confirm.select":
        channel.confirmSelect()
        return reply(received.args.noWait, "confirm.select-ok")
      case "tx.select":
        throw Failure.leftOut("transactions")
      case "tx.commit":
      case "tx.rollback":
        throw Failure.preconditionFailed("channel is not transactional")
      case "basic.qos": {
        const { global, prefetchCount, prefetchSize } = received.args
        channel.qos(prefetchSize, prefetchCount, global)
        return reply(false, "basic.qos-ok")
      }
      case "basic.consume": {
        const { consumerTag, exclusive: isExclusive, noAck, noWait, queue } = received.args
        const options = { noAck, isExclusive, args: received.args.arguments }
        return reply(noWait, "basic.consume-ok", { consumerTag: channel.consume(queue, consumerTag, options) })
      }
      case "basic.cancel": {
        const { consumerTag, noWait } = received.args
        channel.cancel(consumerTag)
        return reply(noWait, "basic.cancel-ok", { consumerTag })
      }
      case "basic.get": {
        const got = channel.get(received.args.queue, received.args.noAck)
        if (got === undefined) return reply(false, "basic.get-empty")
        const { body, properties, ...args } = got
        reply(false, "basic.get-ok", args)
        return this.#content(number, properties, body)
      }
      case "basic.ack":
        return channel.ack(received.args.deliveryTag, received.args.multiple)
      case "basic.nack":
        return channel.nack(received.args.deliveryTag, received.args.multiple, received.args.requeue)
      case "basic.reject":
        return channel.reject(received.args.deliveryTag, received.args.requeue)
      case "basic.recover-async":
        return channel.recover(received.args.requeue)
      case "basic.recover":
        channel.recover(received.args.requeue)
        return reply(false, "basic.recover-ok")
      default:
        throw Failure.commandInvalid("unimplemented method")
    }
  }

  // --- Contents --------------------------------------------------------------------------------------------------------

  /** A frame that is not the next one of a message. */
  #notContent({ properties }: Publish): Failure.Failure {
    const of = properties === undefined ? "header" : "body"
    const expected = of === "header" ? "content header for class 60" : "content body"
    return Failure.unexpectedFrame(`expected ${expected}, got non content ${of} frame instead`)
  }

  /** Takes the next frame of a message, if its channel is not closing. */
  #onPublish(number: number, handle: (publish: Publish) => void): void {
    const numbered = this.#numbers.get(number)
    if (numbered?.isClosing === true) return
    const publish = numbered?.publish
    if (publish === undefined) {
      throw Failure.unexpectedFrame("expected method frame, got non method frame instead")
    }
    try {
      handle(publish)
      this.#complete(numbered!, publish)
    } catch (cause) {
      this.#fail(cause, number, "basic.publish")
    }
  }

  #header(number: number, payload: Buffer): void {
    this.#onPublish(number, (publish) => {
      if (publish.properties !== undefined) throw this.#notContent(publish)
      const classId = payload.readUInt16BE(0)
      if (classId !== classBasic) {
        throw Failure.unexpectedFrame(`expected content header for class 60, got one for class ${classId} instead`)
      }
      publish.size = Number(payload.readBigUInt64BE(4))
      publish.properties = new Properties(Buffer.from(payload.subarray(12)))
    })
  }

  #body(number: number, payload: Buffer): void {
    this.#onPublish(number, (publish) => {
      if (publish.properties === undefined) throw this.#notContent(publish)
      publish.chunks.push(payload)
      publish.received += payload.length
      if (publish.received > publish.size && this.#broker.behavior.refusesLongBodies) {
        throw Failure.frameError("content body frame exceeds remaining content size")
      }
    })
  }

  #complete(numbered: Numbered, publish: Publish): void {
    if (publish.received !== publish.size || publish.properties === undefined) return
    numbered.publish = undefined
    const { exchange, immediate, mandatory, routingKey } = publish.args
    if (numbered.channel === undefined) throw Failure.channelError("expected 'channel.open'")
    // The read buffer is not kept for the life of the message.
    const body = Buffer.concat(publish.chunks)
    numbered.channel.publish(exchange, routingKey, { mandatory, immediate }, publish.properties, body)
  }

  // --- Writing ---------------------------------------------------------------------------------------------------------

  #write(bytes: Buffer): void {
    this.#output.push(bytes)
    if (this.#isFlushing) return
    this.#isFlushing = true
    queueMicrotask(() => {
      this.#isFlushing = false
      this.#flush()
    })
  }

  #flush(): void {
    if (this.#output.length === 0 || this.#broker.isStalled) return
    const output = this.#output
    this.#output = []
    if (this.#socket.writable) this.#socket.write(output.length === 1 ? output[0]! : Buffer.concat(output))
  }

  #send<M extends ServerMethod>(number: number, method: M, args: Partial<Args<M>> = {}): void {
    this.#write(Frames.method(number, method, args))
  }

  #content(number: number, properties: Properties, body: Buffer): void {
    for (const frame of Frames.content(number, properties, body, this.#frameMax)) this.#write(frame)
  }

  /** What a channel sends without being asked. */
  #client(number: number): ChannelClient {
    return {
      deliver: (consumerTag, { body, properties, ...args }: Outbound) => {
        this.#send(number, "basic.deliver", { consumerTag, ...args })
        this.#content(number, properties, body)
      },
      returned: (replyCode, replyText, { body, properties, ...args }) => {
        this.#send(number, "basic.return", { replyCode, replyText, ...args })
        this.#content(number, properties, body)
      },
      confirm: (deliveryTag, isAck) => this.#send(number, isAck ? "basic.ack" : "basic.nack", { deliveryTag }),
      cancelled: (consumerTag) => {
        if (this.#can("consumer_cancel_notify")) this.#send(number, "basic.cancel", { consumerTag, noWait: true })
      },
      acceptsCancels: () => this.#can("consumer_cancel_notify"),
      fail: (failure) => this.#fail(failure, number, "")
    }
  }

  blocked(reason: string): void {
    if (this.#can("connection.blocked")) this.#send(0, "connection.blocked", { reason })
  }

  unblocked(): void {
    if (this.#can("connection.blocked")) this.#send(0, "connection.unblocked")
  }

  // --- The end ---------------------------------------------------------------------------------------------------------

  /** Ends the connection after `milliseconds`, unless it gets on before. A client gets no method then, as from RabbitMQ. */
  #expect(milliseconds: number): void {
    const { timers } = this.#broker
    this.#cancelDeadline?.()
    this.#cancelDeadline = timers.at(timers.now() + milliseconds, () => this.cut())
  }

  close(failure: Failure.Failure): void {
    if (this.#stage === "running") this.#fail(failure, 0, "")
    else this.cut()
  }

  cut(): void {
    this.#socket.resetAndDestroy()
    this.#ended()
  }

  #finish(): void {
    this.#flush()
    this.#stage = "ended"
    this.#socket.end()
  }

  #ended(): void {
    this.#stage = "ended"
    this.#output = []
    this.#cancelHeartbeat?.()
    this.#cancelDeadline?.()
    this.#broker.opening.delete(this)
    const session = this.#session
    if (session !== undefined) this.#broker.run(() => session.end())
  }
}
