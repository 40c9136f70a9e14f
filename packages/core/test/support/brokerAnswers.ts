/** The answers of a broker without a script: the shortest correct reply to each method. */
import type { AnyReceived, BrokerChannel, Received, Tune } from "./BrokerConnection.ts"
import type { BrokerQueues, Message } from "./BrokerQueues.ts"
import type { FieldTable } from "../../src/testing/internal/memory/codec/fieldTable.ts"
import type { Args, ServerMethod } from "../../src/testing/internal/memory/codec/methods.ts"
import { causeOf } from "../../src/testing/internal/memory/codec/methods.ts"

export interface Answering {
  readonly queues: BrokerQueues
  readonly tune: Tune
  readonly serverProperties: FieldTable
}

export const defaultServerProperties: FieldTable = {
  product: "scripted broker",
  version: "0-9-1",
  capabilities: {
    publisher_confirms: true,
    exchange_exchange_bindings: true,
    "basic.nack": true,
    consumer_cancel_notify: true,
    "connection.blocked": true,
    authentication_failure_close: true,
    per_consumer_qos: true,
    direct_reply_to: true
  }
}

export const answer = (received: AnyReceived, broker: Answering): void => {
  const { connection } = received
  const reply = <M extends ServerMethod>(method: M, args: Partial<Args<M>> = {}): void =>
    connection.send(received.channel, method, args)
  const replyUnless = <M extends ServerMethod>(noWait: boolean, method: M, args: Partial<Args<M>> = {}): void => {
    if (!noWait) reply(method, args)
  }
  switch (received.method) {
    case "accept":
    case "heartbeat":
    case "connection.tune-ok":
      return
    case "end":
    case "connection.close-ok":
      return connection.end()
    case "protocol-header": {
      const { serverProperties } = broker
      const mechanisms = "PLAIN AMQPLAIN EXTERNAL"
      return reply("connection.start", { versionMinor: 9, serverProperties, mechanisms, locales: "en_US" })
    }
    case "connection.start-ok":
    case "connection.secure-ok":
      return reply("connection.tune", broker.tune)
    case "connection.open":
      return reply("connection.open-ok")
    case "connection.update-secret":
      return reply("connection.update-secret-ok")
    case "connection.close":
      return reply("connection.close-ok")
    case "channel.open":
      return reply("channel.open-ok")
    case "channel.close":
      return reply("channel.close-ok")
    case "channel.flow":
      return reply("channel.flow-ok", { active: received.args.active })
    case "exchange.declare":
      return replyUnless(received.args.noWait, "exchange.declare-ok")
    case "exchange.delete":
      return replyUnless(received.args.noWait, "exchange.delete-ok")
    case "exchange.bind":
      return replyUnless(received.args.noWait, "exchange.bind-ok")
    case "exchange.unbind":
      return replyUnless(received.args.noWait, "exchange.unbind-ok")
    case "queue.declare": {
      const queue = broker.queues.declare(received.args.queue)
      return replyUnless(received.args.noWait, "queue.declare-ok", { queue, ...broker.queues.count(queue) })
    }
    case "queue.bind": {
      const { exchange, noWait, queue, routingKey } = received.args
      broker.queues.bind(queue, exchange, routingKey)
      return replyUnless(noWait, "queue.bind-ok")
    }
    case "queue.unbind": {
      const { exchange, queue, routingKey } = received.args
      broker.queues.unbind(queue, exchange, routingKey)
      return reply("queue.unbind-ok")
    }
    case "queue.purge": {
      const messageCount = broker.queues.purge(received.args.queue)
      return replyUnless(received.args.noWait, "queue.purge-ok", { messageCount })
    }
    case "queue.delete": {
      const messageCount = broker.queues.delete(received.args.queue)
      return replyUnless(received.args.noWait, "queue.delete-ok", { messageCount })
    }
    default:
      return answerOnChannel(received, broker.queues)
  }
}

/** The methods that use a channel's own state. A channel that is closed, or closing, gets no answer. */
const answerOnChannel = (received: AnyReceived, queues: BrokerQueues): void => {
  const { connection } = received
  const channel = connection.channels.get(received.channel)
  if (channel === undefined) return
  const reply = <M extends ServerMethod>(method: M, args: Partial<Args<M>> = {}): void =>
    connection.send(channel.number, method, args)
  switch (received.method) {
    case "confirm.select":
      channel.confirm = true
      return received.args.noWait ? undefined : reply("confirm.select-ok")
    case "tx.select":
      channel.transaction = []
      return reply("tx.select-ok")
    case "tx.commit":
      for (const publish of channel.transaction?.splice(0) ?? []) publish()
      return reply("tx.commit-ok")
    case "tx.rollback":
      channel.transaction?.splice(0)
      return reply("tx.rollback-ok")
    case "basic.qos":
      channel.prefetch = received.args.prefetchCount
      return reply("basic.qos-ok")
    case "basic.publish":
      return publish(received, channel, queues)
    case "basic.get":
      return get(received, channel, queues)
    case "basic.consume":
      return consume(received, channel, queues)
    case "basic.cancel":
      queues.cancel(channel, received.args.consumerTag)
      return received.args.noWait ? undefined : reply("basic.cancel-ok", { consumerTag: received.args.consumerTag })
    case "basic.ack":
      return settle(received, channel, queues, received.args.multiple, false)
    case "basic.nack":
      return settle(received, channel, queues, received.args.multiple, received.args.requeue)
    case "basic.reject":
      return settle(received, channel, queues, false, received.args.requeue)
    case "basic.recover":
      queues.recover(channel)
      return reply("basic.recover-ok")
    case "basic.recover-async":
      return queues.recover(channel)
    default:
      return
  }
}

const publish = (received: Received<"basic.publish">, channel: BrokerChannel, queues: BrokerQueues): void => {
  const { args, connection, content, deliveryTag } = received
  if (content === undefined) return
  const { exchange, mandatory, routingKey } = args
  const message: Message = { exchange, routingKey, redelivered: false, ...content }
  const route = () => {
    if (queues.route(message) || !mandatory) return
    const reason = { replyCode: 312, replyText: "NO_ROUTE", exchange, routingKey }
    connection.send(channel.number, "basic.return", reason, content)
  }
  if (channel.transaction === undefined) route()
  else channel.transaction.push(route)
  if (deliveryTag > 0) connection.send(channel.number, "basic.ack", { deliveryTag })
}

const get = (received: Received<"basic.get">, channel: BrokerChannel, queues: BrokerQueues): void => {
  const { noAck, queue } = received.args
  const got = queues.get(channel, queue, noAck)
  if (got === undefined) return channel.connection.send(channel.number, "basic.get-empty")
  const { exchange, redelivered, routingKey } = got.message
  const { messageCount } = queues.count(queue)
  const args = { deliveryTag: got.deliveryTag, redelivered, exchange, routingKey, messageCount }
  return channel.connection.send(channel.number, "basic.get-ok", args, got.message)
}

const consume = (received: Received<"basic.consume">, channel: BrokerChannel, queues: BrokerQueues): void => {
  const { noAck, noWait, queue } = received.args
  const consumerTag = received.args.consumerTag === "" ? queues.nextName("amq.ctag") : received.args.consumerTag
  if (!noWait) channel.connection.send(channel.number, "basic.consume-ok", { consumerTag })
  queues.consume({ channel, consumerTag, queue, noAck, prefetch: channel.prefetch, unsettled: 0 })
}

const settle = (
  received: Received<"basic.ack" | "basic.nack" | "basic.reject">,
  channel: BrokerChannel,
  queues: BrokerQueues,
  multiple: boolean,
  requeue: boolean
): void => {
  const { deliveryTag } = received.args
  if (queues.settle(channel, deliveryTag, multiple, requeue)) return
  const replyText = `PRECONDITION_FAILED - unknown delivery tag ${deliveryTag}`
  channel.connection.send(channel.number, "channel.close", { replyCode: 406, replyText, ...causeOf(received.method) })
}
