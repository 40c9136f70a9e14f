/**
 * The methods that declare, bind, purge and delete exchanges and queues, one row per operation of a borrowed channel.
 *
 * A row checks the arguments and describes the method; a lease sends it. Arguments and result have the types of the
 * public interface, so a missing row does not compile. `queueDeclare` is part of the lease, because it depends on the
 * broker's version and may need two methods.
 */
import type * as Effect from "effect/Effect"
import type { Operations, QueueDeclared } from "../../model/channel.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable } from "../../model/message.ts"
import type { KnownQueue, KnownQueues } from "../connection/knownQueues.ts"
import { checkTypeForDelete, checkTypeForPurge } from "../connection/queueTypeChecks.ts"
import type { DriverChannel } from "../driver/driver.ts"
import * as Check from "../wire/declarations.ts"
import type { Channel } from "./channel.ts"

/** A method with a reply. Its arguments have been checked. */
export interface Method<A> {
  readonly operation: string
  /** The names that the broker quotes when it refuses the method. */
  readonly names: ReadonlyArray<string>
  /** The arguments table, which must fit into one frame together with the names. */
  readonly table?: FieldTable | undefined
  /**
   * Returns why the known type of the queue refuses the method. Called when the method is sent, since the queue may be
   * declared between the check of the arguments and that moment.
   */
  readonly refuses?: ((queues: KnownQueues) => InvalidArgument | undefined) | undefined
  readonly send: (driver: DriverChannel, channel: Channel, queues: KnownQueues) => Promise<A>
}

/** A row, applied to the arguments of one call. */
interface Row<Settings, A> {
  readonly operation: string
  /** The names among the arguments. The key decides how a name is checked. */
  readonly names: { readonly [argument: string]: string }
  /** Reads and checks the options. */
  readonly settings?: (operation: string) => Settings | InvalidArgument
  readonly table?: (settings: Settings) => FieldTable
  readonly refuses?: (queues: KnownQueues, settings: Settings) => InvalidArgument | undefined
  readonly send: (driver: DriverChannel, settings: Settings, queues: KnownQueues) => Promise<A>
}

const checkOf = (argument: string) => {
  if (argument === "queue") return (operation: string, value: string) => Check.checkQueue(operation, value)
  const check = argument === "routingKey" ? Check.checkNameOrEmpty : Check.checkName
  return (operation: string, value: string) => check(operation, argument, value)
}

const method = <Settings, A>(row: Row<Settings, A>): Method<A> | InvalidArgument => {
  const { names, operation, refuses, send, table } = row
  const settings = row.settings?.(operation)
  if (Check.isInvalidArgument(settings)) return settings
  for (const [argument, value] of Object.entries(names)) {
    const refused = checkOf(argument)(operation, value)
    if (refused !== undefined) return refused
  }
  const read = settings as Settings
  return {
    operation,
    names: Object.values(names),
    table: table?.(read),
    refuses: refuses && ((queues) => refuses(queues, read)),
    send: (driver, _channel, queues) => send(driver, read, queues)
  }
}

type Name = Exclude<Extract<keyof Operations, `${"exchange" | "queue"}${string}`>, "queueDeclare">

type Success<Of extends Name> = Effect.Success<ReturnType<Operations[Of]>>

const whole = (table: FieldTable) => table

export const methods: {
  readonly [Of in Name]: (...args: Parameters<Operations[Of]>) => Method<Success<Of>> | InvalidArgument
} = {
  exchangeDeclare: (exchange, type, options) =>
    method({
      operation: "exchange.declare",
      names: { exchange, type },
      settings: (operation) => Check.readExchangeDeclare(options, operation),
      table: (settings) => settings.arguments,
      send: (driver, settings) => driver.exchangeDeclare(exchange, type, settings)
    }),
  exchangeDeclarePassive: (exchange) =>
    method({
      operation: "exchange.declare",
      names: { exchange },
      send: (driver) => driver.exchangeDeclarePassive(exchange)
    }),
  exchangeDelete: (exchange, options) =>
    method({
      operation: "exchange.delete",
      names: { exchange },
      settings: (operation) => Check.readFlags(operation, options, { ifUnused: false }),
      send: (driver, flags) => driver.exchangeDelete(exchange, flags)
    }),
  exchangeBind: (destination, source, routingKey, options) =>
    method({
      operation: "exchange.bind",
      names: { destination, source, routingKey },
      settings: (operation) => Check.readBind(operation, options),
      table: whole,
      send: (driver, table) => driver.exchangeBind(destination, source, routingKey, table)
    }),
  exchangeUnbind: (destination, source, routingKey, options) =>
    method({
      operation: "exchange.unbind",
      names: { destination, source, routingKey },
      settings: (operation) => Check.readBind(operation, options),
      table: whole,
      send: (driver, table) => driver.exchangeUnbind(destination, source, routingKey, table)
    }),
  queueDeclarePassive: (queue) =>
    method({
      operation: "queue.declare",
      names: { queue },
      send: (driver) => driver.queueDeclarePassive(queue)
    }),
  queueBind: (queue, exchange, routingKey, options) =>
    method({
      operation: "queue.bind",
      names: { queue, exchange, routingKey },
      settings: (operation) => Check.readBind(operation, options),
      table: whole,
      send: (driver, table) => driver.queueBind(queue, exchange, routingKey, table)
    }),
  queueUnbind: (queue, exchange, routingKey, options) =>
    method({
      operation: "queue.unbind",
      names: { queue, exchange, routingKey },
      settings: (operation) => Check.readBind(operation, options),
      table: whole,
      send: (driver, table) => driver.queueUnbind(queue, exchange, routingKey, table)
    }),
  queuePurge: (queue) =>
    method({
      operation: "queue.purge",
      names: { queue },
      refuses: (queues) => checkTypeForPurge(queues, queue),
      send: (driver) => driver.queuePurge(queue)
    }),
  queueDelete: (queue, options) =>
    method({
      operation: "queue.delete",
      names: { queue },
      settings: (operation) => Check.readFlags(operation, options, { ifEmpty: false, ifUnused: false }),
      refuses: (queues, flags) => checkTypeForDelete(queues, queue, flags),
      send: (driver, flags, queues) =>
        driver.queueDelete(queue, flags).then((reply) => {
          queues.forget(queue)
          return reply
        })
    })
}

/** The method `queue.declare`, for a name and options that have been checked. */
export const declaringQueue = (queue: string, declaration: KnownQueue): Method<QueueDeclared> => ({
  operation: "queue.declare",
  names: [queue],
  table: declaration.arguments,
  send: (driver, _channel, queues) =>
    driver.queueDeclare(queue, declaration).then((declared) => {
      queues.declared(declared.queue, declaration)
      return declared
    })
})
