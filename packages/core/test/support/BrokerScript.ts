/** A test's script for a broker: which handler answers a method, and which answers are held. */
import { Effect } from "effect"
import type { AnyReceived, BrokerEvent, Received } from "./BrokerConnection.ts"
import type { Args, Properties, ServerMethod } from "../../src/testing/internal/memory/codec/methods.ts"
import { causeOf } from "../../src/testing/internal/memory/codec/methods.ts"

/** What a handler gets: the received method, and every way to react to it. */
export interface Context<E extends BrokerEvent = BrokerEvent> extends Received<E> {
  /** How many of this method the broker has received, including this one. */
  readonly nth: number
  /**
   * Gives the answer that the broker would have given without a script; none if the channel no longer exists by then.
   */
  readonly proceed: () => void
  /** Holds that answer until `broker.release(method)`. */
  readonly hold: () => void
  /** Sends a method on the same channel. */
  readonly reply: <M extends ServerMethod>(
    method: M,
    args?: Partial<Args<M>>,
    content?: { readonly properties?: Properties; readonly body: Uint8Array }
  ) => void
  readonly closeChannel: (replyCode: number, replyText?: string) => void
  readonly closeConnection: (replyCode: number, replyText?: string) => void
  /** Sends bytes as they are. */
  readonly write: (bytes: Uint8Array) => void
  /** Resets the socket (RST). */
  readonly destroy: () => void
  /** Closes the socket's write side (FIN). */
  readonly end: () => void
}

/** A handler that does nothing never answers. One that returns an Effect answers when the Effect does. */
export type Handler<E extends BrokerEvent> = (context: Context<E>) => void | Effect.Effect<void, unknown>

export type Script = { readonly [E in BrokerEvent]?: Handler<E> }

type AnyHandler = (context: Context) => void | Effect.Effect<void, unknown>

const replyTexts: Readonly<Record<number, string>> = {
  311: "CONTENT_TOO_LARGE",
  320: "CONNECTION_FORCED",
  403: "ACCESS_REFUSED",
  404: "NOT_FOUND",
  405: "RESOURCE_LOCKED",
  406: "PRECONDITION_FAILED",
  501: "FRAME_ERROR",
  504: "CHANNEL_ERROR",
  505: "UNEXPECTED_FRAME",
  506: "RESOURCE_ERROR",
  530: "NOT_ALLOWED",
  541: "INTERNAL_ERROR"
}

/** The arguments of a close, whose text is RabbitMQ's name of the code unless one is given. */
export const closeArgs = (replyCode: number, replyText?: string, cause = "") => ({
  replyCode,
  replyText: replyText ?? `${replyTexts[replyCode] ?? "ERROR"} - scripted`,
  ...causeOf(cause)
})

const listed = <A>(lists: Map<string, Array<A>>, key: string): Array<A> => {
  const list = lists.get(key) ?? []
  lists.set(key, list)
  return list
}

export class BrokerScript {
  private readonly lasting: Map<string, AnyHandler>
  private readonly oneTime = new Map<string, Array<AnyHandler>>()
  private readonly holds = new Map<string, Array<() => void>>()
  private readonly answer: (received: AnyReceived) => void

  constructor(handlers: Script, answer: (received: AnyReceived) => void) {
    this.lasting = new Map(Object.entries(handlers) as Array<[string, AnyHandler]>)
    this.answer = answer
  }

  on<E extends BrokerEvent>(method: E, handler: Handler<E>): void {
    this.lasting.set(method, handler as AnyHandler)
  }

  once<E extends BrokerEvent>(method: E, handler: Handler<E>): void {
    listed(this.oneTime, method).push(handler as AnyHandler)
  }

  off(method: BrokerEvent): void {
    this.lasting.delete(method)
    this.oneTime.delete(method)
  }

  release(method: BrokerEvent, count: number): number {
    const released = listed(this.holds, method).splice(0, count)
    for (const proceed of released) proceed()
    return released.length
  }

  held(method: BrokerEvent): number {
    return this.holds.get(method)?.length ?? 0
  }

  /** Runs the handler, or the default answer, and returns the Effect that is still to be run, if any. */
  handle(received: AnyReceived, nth: number): Effect.Effect<void, unknown> | undefined {
    const context = this.context(received, nth)
    const handler = this.oneTime.get(received.method)?.shift() ?? this.lasting.get(received.method) ?? context.proceed
    const later = handler(context)
    return Effect.isEffect(later) ? later : undefined
  }

  private context(received: AnyReceived, nth: number): Context {
    const { connection, method } = received
    const channel = connection.channels.get(received.channel)
    const isGone = () =>
      channel !== undefined &&
      (connection.channels.get(channel.number) !== channel ||
        (channel.state === "closing" && method !== "channel.close"))
    const proceed = () => {
      if (!isGone()) this.answer(received)
    }
    return {
      ...received,
      nth,
      proceed,
      hold: () => void listed(this.holds, method).push(proceed),
      reply: (reply, args, content) => connection.send(received.channel, reply, args, content),
      closeChannel: (code, text) => connection.send(received.channel, "channel.close", closeArgs(code, text, method)),
      closeConnection: (code, text) => connection.send(0, "connection.close", closeArgs(code, text, method)),
      write: (bytes) => connection.write(bytes),
      destroy: () => connection.destroy(),
      end: () => connection.end()
    }
  }
}

/** Refuses the login as RabbitMQ does. For `connection.start-ok`. */
export const refuseLogin = (context: Context<"connection.start-ok">): void =>
  context.closeConnection(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.")

/** Answers that the virtual host does not exist, as RabbitMQ does. For `connection.open`. */
export const unknownVhost = (context: Context<"connection.open">): void =>
  context.closeConnection(530, `NOT_ALLOWED - vhost ${context.args.virtualHost} not found`)
