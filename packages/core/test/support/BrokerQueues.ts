/**
 * The queues of a scripted broker, which suffice to answer a get, a consumer and a settlement correctly.
 *
 * A queue exists as soon as it is named. The default exchange routes messages to the queue with the name of the key.
 * All other exchanges route by equal binding keys, whatever their type.
 */
import type { Args, Properties, ServerMethod } from "../../src/testing/internal/memory/codec/methods.ts"

export interface Message {
  readonly exchange: string
  readonly routingKey: string
  readonly properties: Properties
  readonly body: Uint8Array
  readonly redelivered: boolean
}

/** A channel, as the queues know it. */
export interface QueueChannel {
  readonly number: number
  readonly connection: {
    send<M extends ServerMethod>(channel: number, method: M, args: Partial<Args<M>>, content?: Message): void
  }
  delivered: number
  readonly consumers: Map<string, Consumer>
  readonly unsettled: Map<number, Unsettled>
}

export interface Consumer {
  readonly channel: QueueChannel
  readonly consumerTag: string
  readonly queue: string
  readonly noAck: boolean
  readonly prefetch: number
  unsettled: number
}

export interface Unsettled {
  readonly queue: string
  readonly message: Message
  readonly consumer: Consumer | undefined
}

interface Queue {
  readonly messages: Array<Message>
  readonly consumers: Array<Consumer>
}

export class BrokerQueues {
  private readonly queues = new Map<string, Queue>()
  private bindings: ReadonlyArray<{ readonly queue: string; readonly exchange: string; readonly routingKey: string }> =
    []
  private named = 0

  /** The queue's name, chosen by the broker if the client left it empty. */
  declare(name: string): string {
    const given = name === "" ? this.nextName("amq.gen") : name
    this.queue(given)
    return given
  }

  /** A name that the broker chooses. */
  nextName(prefix: string): string {
    return `${prefix}-${++this.named}`
  }

  count(name: string): { readonly messageCount: number; readonly consumerCount: number } {
    const { consumers, messages } = this.queue(name)
    return { messageCount: messages.length, consumerCount: consumers.length }
  }

  bind(queue: string, exchange: string, routingKey: string): void {
    this.unbind(queue, exchange, routingKey)
    this.bindings = [...this.bindings, { queue, exchange, routingKey }]
  }

  unbind(queue: string, exchange: string, routingKey: string): void {
    const same = (b: { queue: string; exchange: string; routingKey: string }) =>
      b.queue === queue && b.exchange === exchange && b.routingKey === routingKey
    this.bindings = this.bindings.filter((binding) => !same(binding))
  }

  purge(name: string): number {
    return this.queue(name).messages.splice(0).length
  }

  /** Deletes a queue. Its consumers get a `basic.cancel`. */
  delete(name: string): number {
    const { consumers, messages } = this.queue(name)
    this.queues.delete(name)
    this.bindings = this.bindings.filter((binding) => binding.queue !== name)
    for (const { channel, consumerTag } of consumers) {
      channel.consumers.delete(consumerTag)
      channel.connection.send(channel.number, "basic.cancel", { consumerTag, noWait: true })
    }
    return messages.length
  }

  /** Routes a message to its queues; false if there are none. */
  route(message: Message): boolean {
    const names =
      message.exchange === ""
        ? [message.routingKey].filter((name) => this.queues.has(name))
        : this.bindings
            .filter((b) => b.exchange === message.exchange && b.routingKey === message.routingKey)
            .map((b) => b.queue)
    for (const name of new Set(names)) this.enqueue(name, message)
    return names.length > 0
  }

  enqueue(name: string, message: Message): void {
    this.queue(name).messages.push(message)
    this.deliver(name)
  }

  get(channel: QueueChannel, name: string, noAck: boolean): { deliveryTag: number; message: Message } | undefined {
    const message = this.queue(name).messages.shift()
    if (message === undefined) return undefined
    const deliveryTag = ++channel.delivered
    if (!noAck) channel.unsettled.set(deliveryTag, { queue: name, message, consumer: undefined })
    return { deliveryTag, message }
  }

  consume(consumer: Consumer): void {
    consumer.channel.consumers.set(consumer.consumerTag, consumer)
    this.queue(consumer.queue).consumers.push(consumer)
    this.deliver(consumer.queue)
  }

  cancel(channel: QueueChannel, consumerTag: string): void {
    const consumer = channel.consumers.get(consumerTag)
    channel.consumers.delete(consumerTag)
    if (consumer === undefined) return
    const { consumers } = this.queue(consumer.queue)
    const at = consumers.indexOf(consumer)
    if (at >= 0) consumers.splice(at, 1)
  }

  /** Settles one delivery, or all up to it; false if there is no delivery with this tag. */
  settle(channel: QueueChannel, deliveryTag: number, multiple: boolean, requeue: boolean): boolean {
    const tags = multiple
      ? [...channel.unsettled.keys()].filter((tag) => deliveryTag === 0 || tag <= deliveryTag)
      : [deliveryTag].filter((tag) => channel.unsettled.has(tag))
    this.release(channel, tags, requeue)
    return tags.length > 0 || (multiple && deliveryTag === 0)
  }

  /** Requeues the deliveries that a channel has not settled. */
  recover(channel: QueueChannel): void {
    this.release(channel, [...channel.unsettled.keys()], true)
  }

  /** Removes a channel: its consumers end, and its unsettled deliveries are ready again. */
  abandon(channel: QueueChannel): void {
    for (const tag of channel.consumers.keys()) this.cancel(channel, tag)
    this.recover(channel)
  }

  private queue(name: string): Queue {
    const known = this.queues.get(name)
    if (known !== undefined) return known
    const queue: Queue = { messages: [], consumers: [] }
    this.queues.set(name, queue)
    return queue
  }

  private release(channel: QueueChannel, tags: ReadonlyArray<number>, requeue: boolean): void {
    const touched = new Set<string>()
    for (const tag of tags.toReversed()) {
      const unsettled = channel.unsettled.get(tag)
      if (unsettled === undefined) continue
      channel.unsettled.delete(tag)
      touched.add(unsettled.queue)
      if (unsettled.consumer !== undefined) unsettled.consumer.unsettled--
      if (requeue) this.queue(unsettled.queue).messages.unshift({ ...unsettled.message, redelivered: true })
    }
    for (const name of touched) this.deliver(name)
  }

  private deliver(name: string): void {
    const { consumers, messages } = this.queue(name)
    const hasRoom = (consumer: Consumer) => consumer.prefetch === 0 || consumer.unsettled < consumer.prefetch
    for (let consumer = consumers.find(hasRoom); consumer !== undefined; consumer = consumers.find(hasRoom)) {
      const message = messages.shift()
      if (message === undefined) return
      // Round robin: the consumer that was served goes to the end of the list.
      consumers.push(...consumers.splice(consumers.indexOf(consumer), 1))
      const { channel, consumerTag, noAck } = consumer
      const deliveryTag = ++channel.delivered
      if (!noAck) {
        consumer.unsettled++
        channel.unsettled.set(deliveryTag, { queue: name, message, consumer })
      }
      const { exchange, redelivered, routingKey } = message
      const args = { consumerTag, deliveryTag, redelivered, exchange, routingKey }
      channel.connection.send(channel.number, "basic.deliver", args, message)
    }
  }
}
