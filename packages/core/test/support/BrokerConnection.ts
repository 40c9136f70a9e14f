/**
 * One client's connection as the broker sees it: its socket, its channels, and what the protocol allows next.
 *
 * The state is kept here, from what was received and sent, whatever a script answers. A channel is open from its
 * `open-ok` until its `close-ok` (or the broker's own `close`, or the end of the socket).
 */
import type { Socket } from "node:net"
import type { Consumer, Unsettled } from "./BrokerQueues.ts"
import type { ClientEvent, Content } from "./frames.ts"
import { FrameOrder } from "./FrameOrder.ts"
import { encodeHeartbeat, encodeMessage, FrameReader, PROTOCOL_HEADER } from "./frames.ts"
import type { Args, ClientMethod, Properties, ServerMethod } from "../../src/testing/internal/memory/codec/methods.ts"
import { SocketOutput, reset, type Corruption } from "./SocketOutput.ts"
import { WireError } from "../../src/testing/internal/memory/codec/wire.ts"

/** A client's method, or another event of its connection. */
export type BrokerEvent = ClientMethod | "accept" | "protocol-header" | "heartbeat" | "end"

export type EventArgs<E extends BrokerEvent> = E extends ClientMethod ? Args<E> : Readonly<Record<string, never>>

export interface Received<E extends BrokerEvent = BrokerEvent> {
  readonly connection: BrokerConnection
  /** 0 for methods of the connection. */
  readonly channel: number
  readonly method: E
  readonly args: EventArgs<E>
  /** The content of a `basic.publish`. */
  readonly content: Content | undefined
  /** For a `basic.publish` on a confirm channel: the tag that its ack carries. Otherwise 0. */
  readonly deliveryTag: number
}

/** `Received` as a union, which a `switch` on `method` narrows. */
export type AnyReceived = { readonly [E in BrokerEvent]: Received<E> }[BrokerEvent]

export interface Tune {
  readonly channelMax: number
  readonly frameMax: number
  readonly heartbeat: number
}

export interface BrokerChannel {
  readonly number: number
  readonly connection: BrokerConnection
  /**
   * `opening`: not answered yet. `leaving`: the client asked to close. `closing`: the broker closed, and there is no
   * `close-ok` yet.
   */
  state: "opening" | "open" | "leaving" | "closing" | "closed"
  /** Whether it is among the connection's open channels. */
  counted: boolean
  confirm: boolean
  /** Messages of the transaction under way, if `tx.select` was received. */
  transaction: Array<() => void> | undefined
  published: number
  delivered: number
  prefetch: number
  readonly consumers: Map<string, Consumer>
  readonly unsettled: Map<number, Unsettled>
}

/** What a connection reports to the broker that accepted it. */
export interface Host {
  readonly tune: Tune
  readonly sendsHeartbeats: boolean
  readonly chop: number
  readonly cutAfter: { readonly bytes: number; readonly by: "rst" | "fin" } | undefined
  readonly corruption?: Corruption | undefined
  readonly dispatch: (received: AnyReceived) => void
  readonly released: (channel: BrokerChannel) => void
  readonly changed: () => void
  readonly socketClosed: (connection: BrokerConnection) => void
  readonly protocolError: (message: string) => void
}

const handshake: ReadonlyArray<ClientMethod> = ["connection.start-ok", "connection.tune-ok", "connection.open"]
const alwaysAllowed = new Set<ClientMethod>(["connection.close", "connection.close-ok", "connection.secure-ok"])

export class BrokerConnection {
  readonly id: number
  readonly channels = new Map<number, BrokerChannel>()
  /** The number of channels open now, and the maximum so far. */
  openChannels = 0
  maxOpenChannels = 0
  /** The values of the client's `tune-ok`. */
  tuned: Tune | undefined
  isOpen = true
  /** All frames of the client, and the errors in their order. */
  readonly order = new FrameOrder()

  private readonly socket: Socket
  private readonly host: Host
  private readonly output: SocketOutput
  private readonly reader = new FrameReader()
  private stage = 0
  /** Set once either side has sent `connection.close`: the broker ignores the rest of what the client sends. */
  private closing: "no" | "client" | "broker" = "no"
  /** Set once the client's bytes cannot be read any more. */
  private unreadable = false
  private heartbeats: NodeJS.Timeout | undefined

  constructor(id: number, socket: Socket, host: Host) {
    this.id = id
    this.socket = socket
    this.host = host
    this.output = new SocketOutput(socket, host)
    this.reader.frameMax = this.order.frameMax = host.tune.frameMax
    socket.on("error", () => {}) // The client may reset the connection: `close` follows.
    socket.on("close", () => this.closed())
  }

  /** Deliveries that the client has not settled. */
  get unsettled(): number {
    return [...this.channels.values()].reduce((sum, { unsettled }) => sum + unsettled.size, 0)
  }

  /** Reports that the connection was accepted, then reads. */
  start(): void {
    this.event("accept")
    this.socket.on("data", (bytes) => this.read(bytes))
    this.socket.on("end", () => this.event("end"))
  }

  /** Sends a method, with content if it carries any, and updates the state. */
  send<M extends ServerMethod>(
    channel: number,
    method: M,
    args: Partial<Args<M>> = {},
    content?: { readonly properties?: Properties; readonly body: Uint8Array }
  ): void {
    const open = this.channels.get(channel)
    if (open !== undefined) this.noteSent(open, method)
    if (method === "channel.close" || method === "channel.close-ok") this.order.brokerSent(channel, method)
    if (method === "connection.close") this.closing = "broker"
    this.write(encodeMessage(channel, method, args, content, this.tuned?.frameMax))
    if (method === "connection.close-ok") this.end()
    this.host.changed()
  }

  /** Sends bytes as they are. */
  write(bytes: Uint8Array): void {
    this.output.write(bytes)
  }

  /** Everything that `sending` sends arrives together. */
  inOneSegment(sending: () => void): void {
    this.socket.cork()
    sending()
    this.socket.uncork()
  }

  /** Closes the connection's write side once all is written: the client sees a FIN. */
  end(): void {
    this.output.end()
  }

  /** Resets the connection: the client sees ECONNRESET. */
  destroy(): void {
    reset(this.socket)
  }

  /** Stops reading until `resume`: the client's writes fill the TCP window, then its own buffers. */
  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }

  stopHeartbeats(): void {
    clearInterval(this.heartbeats)
  }

  private read(bytes: Buffer): void {
    this.order.take(bytes)
    if (this.unreadable) return
    try {
      this.reader.push(bytes, (event) => this.receive(event))
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      if (this.unreadable) return
      this.protocolError(501, `FRAME_ERROR - ${error.message}`)
      this.unreadable = true
      this.end()
    }
  }

  private receive(event: ClientEvent): void {
    switch (event.event) {
      case "protocol-header":
        if (event.bytes.equals(PROTOCOL_HEADER)) return this.event("protocol-header")
        this.host.protocolError(`connection ${this.id}: protocol header ${event.bytes.toString("latin1")}`)
        this.unreadable = true
        this.write(PROTOCOL_HEADER)
        return this.end()
      case "heartbeat":
        return this.event("heartbeat")
      case "method": {
        if (this.closing !== "no" && event.method !== "connection.close" && event.method !== "connection.close-ok")
          return
        const refusal = this.refusal(event.channel, event.method)
        if (refusal !== undefined) return this.protocolError(504, refusal)
        return this.accept(event.channel, event.method, event.args, event.content)
      }
    }
  }

  /** Why the protocol does not allow this method now, if it does not. */
  private refusal(number: number, method: ClientMethod): string | undefined {
    const onConnection = method.startsWith("connection.")
    if (onConnection !== (number === 0)) return `${method} on channel ${number}`
    if (this.stage < handshake.length && !alwaysAllowed.has(method) && method !== handshake[this.stage]) {
      return `${method} where ${handshake[this.stage]} was expected`
    }
    if (onConnection)
      return this.stage === handshake.length && handshake.includes(method) ? `second ${method}` : undefined
    const { channelMax } = this.tuned ?? this.host.tune
    if (channelMax > 0 && number > channelMax) return `channel ${number}, channel-max is ${channelMax}`
    const state = this.channels.get(number)?.state ?? "closed"
    if (method === "channel.open") return state === "closed" ? undefined : `channel.open on a channel that is ${state}`
    if (method === "channel.close-ok") return state === "closing" ? undefined : `close-ok on a channel that is ${state}`
    if (state === "open" || state === "closing") return undefined
    return state === "opening" && method === "channel.close" ? undefined : `${method} on a channel that is ${state}`
  }

  private accept(number: number, method: ClientMethod, args: Received["args"], content: Content | undefined): void {
    if (method === handshake[this.stage]) this.stage++
    if (method === "connection.tune-ok") this.settleTune(args as Args<"connection.tune-ok">)
    if (method === "connection.close" && this.closing === "no") this.closing = "client"
    if (method === "channel.open") this.channels.set(number, this.makeChannel(number))
    const channel = this.channels.get(number)
    let deliveryTag = 0
    if (channel !== undefined) {
      if (channel.state === "closing" && method !== "channel.close-ok" && method !== "channel.close") return
      if (method === "channel.close" && channel.state !== "closing") this.transition(channel, "leaving")
      if (method === "channel.close-ok") this.transition(channel, "closed")
      if (method === "basic.publish" && channel.confirm) deliveryTag = ++channel.published
    }
    this.dispatch({ connection: this, channel: number, method, args, content, deliveryTag } as AnyReceived)
  }

  private settleTune(args: Args<"connection.tune-ok">): void {
    const { channelMax, frameMax } = this.host.tune
    const above = (limit: number, value: number) => limit > 0 && (value === 0 || value > limit)
    if (above(channelMax, args.channelMax)) this.host.protocolError(`tune-ok raises channel-max to ${args.channelMax}`)
    if (above(frameMax, args.frameMax)) this.host.protocolError(`tune-ok raises frame-max to ${args.frameMax}`)
    this.tuned = args
    this.reader.frameMax = this.order.frameMax = args.frameMax
    if (args.heartbeat > 0 && this.host.sendsHeartbeats) {
      this.heartbeats = setInterval(() => this.write(encodeHeartbeat()), args.heartbeat * 500)
      this.heartbeats.unref()
    }
  }

  private makeChannel(number: number): BrokerChannel {
    return {
      number,
      connection: this,
      state: "opening",
      counted: false,
      confirm: false,
      transaction: undefined,
      published: 0,
      delivered: 0,
      prefetch: 0,
      consumers: new Map(),
      unsettled: new Map()
    }
  }

  private noteSent(channel: BrokerChannel, method: ServerMethod): void {
    if (method === "channel.open-ok" && channel.state === "opening") this.transition(channel, "open")
    if (method === "confirm.select-ok") channel.confirm = true
    if (method === "channel.close") this.transition(channel, "closing")
    if (method === "channel.close-ok" && channel.state === "leaving") this.transition(channel, "closed")
  }

  private transition(channel: BrokerChannel, next: BrokerChannel["state"]): void {
    channel.state = next
    if (next === "open") this.count(channel, true)
    if (next === "closing" || next === "closed") {
      this.count(channel, false)
      if (next === "closing") this.reader.drop(channel.number)
      else this.reader.forget(channel.number)
      this.host.released(channel)
    }
    if (next === "closed") this.channels.delete(channel.number)
  }

  private count(channel: BrokerChannel, open: boolean): void {
    if (channel.counted === open) return
    channel.counted = open
    this.openChannels += open ? 1 : -1
    this.maxOpenChannels = Math.max(this.maxOpenChannels, this.openChannels)
  }

  private event(method: "accept" | "protocol-header" | "heartbeat" | "end"): void {
    this.dispatch({ connection: this, channel: 0, method, args: {}, content: undefined, deliveryTag: 0 })
  }

  private dispatch(received: AnyReceived): void {
    this.host.dispatch(received)
  }

  private protocolError(replyCode: number, message: string): void {
    this.host.protocolError(`connection ${this.id}: ${message}`)
    this.send(0, "connection.close", { replyCode, replyText: message.slice(0, 255) })
  }

  private closed(): void {
    this.isOpen = false
    this.stopHeartbeats()
    for (const channel of this.channels.values()) this.transition(channel, "closed")
    this.host.socketClosed(this)
  }
}
