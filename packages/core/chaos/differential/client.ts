/** Runs a program on a broker, and records what its client sees. */
import {
  BrokerClose,
  type ChannelEvents,
  type ConnectionEvents,
  type DeliveredMessage,
  type DriverChannel,
  type DriverConnection,
  type ReturnedMessage
} from "../../src/internal/driver/driver.ts"
import { Outgoing } from "../../src/internal/wire/properties.ts"
import { bytesOfTable } from "../../src/internal/wire/tableBytes.ts"
import { type Arguments, exchanges, queues, type Step } from "./program.ts"

/** How a program reaches its broker. */
export interface Site {
  readonly connect: () => Promise<DriverConnection>
  /** Lets time pass. */
  readonly wait: () => Promise<void>
  /** Lets the broker and its client work, before they are looked at again. */
  readonly pause: () => Promise<void>
}

interface Delivery {
  readonly tag: number
  readonly queue: number
}

const ignore = () => {}

const sorted = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(sorted)
  if (value instanceof Date) return "time"
  if (typeof value === "bigint") return String(value)
  if (value instanceof Uint8Array) return Buffer.from(value).toString("latin1")
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, each]) => [key, sorted(each)])
  )
}

export class Client {
  readonly #site: Site
  /** The names of the program begin with this. */
  readonly #prefix: string
  #connection: DriverConnection | undefined
  #publisher: DriverChannel | undefined
  #consumer: DriverChannel | undefined
  #observerConnection: DriverConnection | undefined
  #observer: DriverChannel | undefined
  /** Consumers of the channel: the tag, the tag as it was sent, which ends with "!" if nothing is acknowledged, and the queue. */
  #consumers: Array<{ readonly tag: string; readonly sent: string; readonly queue: number }> = []
  #unsettled: Array<Delivery> = []
  #tags = 0
  #published = 0
  #outstanding = new Set<number>()
  #gotTags = new Map<number, number>()
  /** What has been seen, by where it was seen. */
  #seen = new Map<string, Array<string>>()
  #bodies = 0
  #closes = 0

  constructor(site: Site, prefix: string) {
    this.#site = site
    this.#prefix = prefix
  }

  #record(where: string, what: string): void {
    this.#seen.set(where, [...(this.#seen.get(where) ?? []), this.#plain(what)])
  }

  #plain(text: string): string {
    return text
      .replaceAll(this.#prefix, "")
      .replaceAll(/vhost '[^']*'/g, "vhost")
      .replaceAll(/amq\.gen-[\w-]+/g, "amq.gen")
  }

  #name(kind: "q" | "x", index: number): string {
    return `${this.#prefix}${kind}${index}`
  }

  /** Arguments that name queues and exchanges of the program. */
  #args(args: Arguments): object {
    const named = Object.entries(args).map(([key, value]) => {
      const isName = key.startsWith("x-dead-letter") && /^[qx]\d$/.test(String(value))
      return [key, isName ? `${this.#prefix}${String(value)}` : value]
    })
    return Object.fromEntries(named) as object
  }

  // --- Connections -----------------------------------------------------------------------------------------------------

  async #connectionOf(isObserver: boolean): Promise<DriverConnection> {
    const connection = await this.#site.connect()
    const events: ConnectionEvents = {
      blocked: ignore,
      unblocked: ignore,
      secretUpdated: ignore,
      ended: (cause) => {
        if (isObserver) return
        this.#connection = undefined
        if (cause instanceof BrokerClose) this.#record("connection", `closed ${cause.code} ${cause.message}`)
      }
    }
    connection.watch(events)
    return connection
  }

  #open(connection: DriverConnection, role: "publisher" | "consumer" | "observer"): Promise<DriverChannel> {
    return new Promise((resolve, reject) => {
      const events: ChannelEvents = {
        opened: () => resolve(channel),
        notOpened: reject,
        delivered: (message) => this.#delivered(message),
        returned: (message) => this.#returned(message),
        confirmed: (tag, multiple, isAck) => this.#confirmed(tag, multiple, isAck),
        flow: ignore,
        cancelled: (tag) => {
          this.#record("consumers", `cancelled ${tag}`)
          this.#consumers = this.#consumers.filter((consumer) => consumer.sent !== tag)
        },
        oversized: () => false,
        undecodable: () => false,
        drained: ignore,
        closed: (end) => {
          if (role === "observer") this.#observer = undefined
          if (role === "publisher") this.#publisherEnded()
          if (role === "consumer") this.#consumerEnded()
          // The reason of a request's failure is its own outcome.
          if (end instanceof BrokerClose && role !== "observer") this.#record(role, `closed ${end.code} ${end.message}`)
          reject(new Error("closed"))
        },
        gone: ignore
      }
      const channel = connection.openChannel(events)
    })
  }

  #publisherEnded(): void {
    this.#publisher = undefined
    this.#published = 0
    this.#outstanding.clear()
  }

  #consumerEnded(): void {
    this.#consumer = undefined
    this.#consumers = []
    this.#unsettled = []
    this.#gotTags.clear()
  }

  async #live(): Promise<DriverConnection> {
    return (this.#connection ??= await this.#connectionOf(false))
  }

  async #publishing(): Promise<DriverChannel> {
    if (this.#publisher !== undefined) return this.#publisher
    const channel = await this.#open(await this.#live(), "publisher")
    await channel.select("confirm")
    return (this.#publisher = channel)
  }

  async #consuming(): Promise<DriverChannel> {
    return (this.#consumer ??= await this.#open(await this.#live(), "consumer"))
  }

  async #observing(): Promise<DriverChannel> {
    this.#observerConnection ??= await this.#connectionOf(true)
    return (this.#observer ??= await this.#open(this.#observerConnection, "observer"))
  }

  // --- What arrives ----------------------------------------------------------------------------------------------------

  #shown({
    content,
    exchange,
    properties,
    routingKey
  }: Pick<DeliveredMessage, "content" | "exchange" | "properties" | "routingKey">): string {
    const { expiration, headers, persistent } = properties
    return `${content.toString()} ${exchange}>${routingKey} ${JSON.stringify(sorted({ expiration, headers, persistent }))}`
  }

  #delivered(message: DeliveredMessage): void {
    const consumer = this.#consumers.find(({ tag }) => tag === message.consumerTag.replace(/!$/, ""))
    const queue = consumer?.queue ?? -1
    if (!message.consumerTag.endsWith("!")) this.#unsettled.push({ tag: message.deliveryTag, queue })
    this.#record(`deliveries of q${queue}`, `${message.redelivered ? "again " : ""}${this.#shown(message)}`)
  }

  #returned(message: ReturnedMessage): void {
    this.#record("returns", `${message.replyCode} ${message.replyText} ${this.#shown(message)}`)
  }

  #confirmed(tag: number, multiple: boolean, isAck: boolean): void {
    const tags = multiple ? [...this.#outstanding].filter((each) => tag === 0 || each <= tag) : [tag]
    for (const each of tags) {
      this.#outstanding.delete(each)
      this.#record("confirms", `${this.#closes}.${each} ${isAck ? "ack" : "nack"}`)
    }
  }

  // --- Steps -----------------------------------------------------------------------------------------------------------

  /** Runs a step, and returns how it ended. */
  async run(step: Step): Promise<string> {
    try {
      return this.#plain(String((await this.#step(step)) ?? "ok"))
    } catch (cause) {
      if (cause instanceof BrokerClose) return this.#plain(`${cause.code} ${cause.message}`)
      return cause instanceof Error ? cause.name : String(cause)
    }
  }

  async #step(step: Step): Promise<unknown> {
    switch (step.do) {
      case "declareQueue": {
        const { autoDelete, durable, exclusive } = step
        const options = { autoDelete, durable, exclusive, arguments: this.#args(step.args) as never }
        const counts = await (await this.#publishing()).queueDeclare(this.#name("q", step.queue), options)
        return `${counts.queue} ${counts.messageCount} ${counts.consumerCount}`
      }
      case "declareExchange": {
        const { alternate, autoDelete, internal, type } = step
        const args = alternate === undefined ? {} : { "alternate-exchange": this.#name("x", alternate) }
        const options = { autoDelete, internal, durable: true, arguments: args }
        return (await this.#publishing()).exchangeDeclare(this.#name("x", step.exchange), type, options)
      }
      case "bindQueue":
      case "unbindQueue": {
        const channel = await this.#publishing()
        const name = [this.#name("q", step.to), this.#name("x", step.exchange)] as const
        const args = step.args as never
        return step.do === "bindQueue"
          ? channel.queueBind(...name, step.key, args)
          : channel.queueUnbind(...name, step.key, args)
      }
      case "bindExchange": {
        const name = [this.#name("x", step.to), this.#name("x", step.exchange)] as const
        return (await this.#publishing()).exchangeBind(...name, step.key, step.args as never)
      }
      case "publish":
        return this.#publish(step)
      case "consume":
        return this.#consume(step)
      case "cancel": {
        const consumer = this.#consumers[step.index]
        if (consumer === undefined) return "no consumer"
        this.#consumers = this.#consumers.filter((other) => other !== consumer)
        return (await this.#consuming()).cancel(consumer.sent)
      }
      case "get": {
        const channel = await this.#consuming()
        const got = await channel.get(this.#name("q", step.queue), step.noAck)
        if (got === undefined) return "empty"
        if (!step.noAck) this.#unsettled.push({ tag: got.deliveryTag, queue: step.queue })
        return `got ${got.redelivered ? "again " : ""}${this.#shown(got)}, ${got.messageCount} left`
      }
      case "settle": {
        // Which of two queues delivers first depends on the moment, so a delivery is chosen by its queue.
        const inOrder = this.#unsettled.toSorted((one, other) => one.queue - other.queue || one.tag - other.tag)
        const delivery = inOrder[step.index % Math.max(1, inOrder.length)]
        if (delivery === undefined) return "nothing to settle"
        const isOneQueue = inOrder.every(({ queue }) => queue === delivery.queue)
        const multiple = step.multiple && step.how !== "reject" && isOneQueue
        this.#unsettled = this.#unsettled.filter(({ tag }) => (multiple ? tag > delivery.tag : tag !== delivery.tag))
        const channel = await this.#consuming()
        if (step.how === "ack") return channel.ack(delivery.tag, multiple)
        if (step.how === "nack") return channel.nack(delivery.tag, multiple, step.requeue)
        return channel.reject(delivery.tag, step.requeue)
      }
      case "unknownTag":
        return (await this.#consuming()).ack(9999, false)
      case "recover":
        this.#unsettled = []
        return (await this.#consuming()).recover()
      case "closeChannel": {
        const channel = this.#consumer
        this.#consumerEnded()
        channel?.close()
        return undefined
      }
      case "cut": {
        const connection = this.#connection
        this.#connection = undefined
        this.#publisherEnded()
        this.#consumerEnded()
        this.#closes++
        connection?.destroy(new Error("cut"))
        return undefined
      }
      case "wait":
        return this.#site.wait()
      case "purge":
        return (await this.#publishing()).queuePurge(this.#name("q", step.queue))
      case "deleteQueue": {
        const { ifEmpty, ifUnused } = step
        return (await this.#publishing()).queueDelete(this.#name("q", step.queue), { ifEmpty, ifUnused })
      }
      case "deleteExchange":
        return (await this.#publishing()).exchangeDelete(this.#name("x", step.exchange), { ifUnused: step.ifUnused })
    }
  }

  async #publish(step: Extract<Step, { readonly do: "publish" }>): Promise<void> {
    const channel = await this.#publishing()
    const { exchange, expiration, headers, mandatory, persistent } = step
    for (let copy = 0; copy < step.copies; copy++) {
      const outgoing = Object.assign(new Outgoing(), {
        exchange: exchange === undefined ? "" : this.#name("x", exchange),
        routingKey: exchange === undefined ? this.#name("q", step.queue) : step.key,
        content: Buffer.from(`m${this.#bodies++}`),
        table: bytesOfTable(headers),
        mandatory,
        persistent,
        expiration: expiration === undefined ? undefined : String(expiration)
      })
      this.#outstanding.add(++this.#published)
      channel.publish(outgoing)
      // A quorum queue that is full reports that with a confirm, and takes what was sent before.
      for (let pauses = 0; this.#outstanding.size > 0 && this.#publisher === channel && pauses < 500; pauses++) {
        await this.#site.pause()
      }
      if (this.#publisher !== channel) return
    }
  }

  async #consume({
    args,
    exclusive,
    noAck,
    prefetch,
    queue
  }: Extract<Step, { readonly do: "consume" }>): Promise<unknown> {
    // Which of several consumers gets a message depends on the moment.
    if (this.#consumers.some((consumer) => consumer.queue === queue)) return "has a consumer"
    const channel = await this.#consuming()
    await channel.qos(prefetch, false)
    const tag = `c${this.#tags++}${noAck ? "!" : ""}`
    this.#consumers.push({ tag: tag.replace(/!$/, ""), sent: tag, queue })
    return channel.consume(this.#name("q", queue), tag, { noAck, exclusive, arguments: args as never })
  }

  // --- Looking ---------------------------------------------------------------------------------------------------------

  /** All that the client sees now: what has arrived, and the counts of all queues. */
  async look(): Promise<string> {
    const counts: Array<string> = []
    for (let index = 0; index < queues; index++) {
      const channel = await this.#observing()
      counts.push(
        await channel.queueDeclarePassive(this.#name("q", index)).then(
          ({ consumerCount, messageCount }) => `${messageCount} ready, ${consumerCount} consumers`,
          (cause: unknown) => (cause instanceof BrokerClose ? String(cause.code) : "lost")
        )
      )
    }
    const seen = [...this.#seen]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      // Confirms of one channel may overtake each other.
      .map(([where, what]) => `${where}: ${(where === "confirms" ? what.toSorted() : what).join("; ")}`)
    return [...counts.map((count, index) => `q${index}: ${count}`), ...seen].join("\n")
  }

  /** Removes what the program has declared, and ends. */
  async end(): Promise<void> {
    const channel = await this.#observing()
    this.#connection?.destroy(new Error("the program is over"))
    for (let index = 0; index < queues; index++) {
      await channel.queueDelete(this.#name("q", index), { ifEmpty: false, ifUnused: false }).catch(ignore)
    }
    const again = await this.#observing()
    for (let index = 0; index < exchanges; index++) {
      await again.exchangeDelete(this.#name("x", index), { ifUnused: false }).catch(ignore)
    }
    this.#observerConnection?.destroy(new Error("the program is over"))
  }
}
