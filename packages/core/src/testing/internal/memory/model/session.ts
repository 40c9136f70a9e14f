/** One connection of a client, as the broker has it, whatever it is made of: its channels and its end. */
import type { Failure } from "../failure.ts"
import { Channel, type ChannelBroker, type ChannelClient } from "./channel.ts"
import type { VirtualHost } from "./virtualHost.ts"

/** What a connection's client learns without having asked. */
export interface SessionClient {
  readonly blocked: (reason: string) => void
  readonly unblocked: () => void
  /** The broker closes the connection. */
  readonly close: (failure: Failure) => void
  /** The connection is cut, without a word. */
  readonly cut: () => void
  /** `isHeld` has changed. */
  readonly heldChanged: () => void
}

/** What a connection needs of its broker. */
export interface SessionBroker extends ChannelBroker {
  readonly sessions: Set<Session>
  /** Why publishers are blocked, during an alarm. */
  readonly alarm: string | undefined
  readonly isStalled: boolean
}

export class Session {
  readonly channels = new Map<number, Channel>()
  readonly vhost: VirtualHost
  readonly user: string
  readonly client: SessionClient
  readonly #broker: SessionBroker
  #isBlocked = false
  hasEnded = false

  constructor(broker: SessionBroker, vhost: VirtualHost, user: string, client: SessionClient) {
    this.#broker = broker
    this.vhost = vhost
    this.user = user
    this.client = client
    broker.sessions.add(this)
  }

  /** Whether nothing is read from the client: it is blocked, or the broker stalls. */
  get isHeld(): boolean {
    return this.#isBlocked || this.#broker.isStalled
  }

  openChannel(number: number, client: ChannelClient): Channel {
    const channel = new Channel(this.#broker, this.vhost, { connection: this, user: this.user, number }, client)
    this.channels.set(number, channel)
    return channel
  }

  closeChannel(number: number): void {
    this.channels.get(number)?.end()
    this.channels.delete(number)
  }

  /**
   * The client begins to publish. Returns whether that blocks it: during an alarm, the message is read when the alarm is
   * over, like all that comes after it.
   */
  publishes(): boolean {
    const { alarm } = this.#broker
    if (alarm === undefined || this.#isBlocked) return false
    this.#isBlocked = true
    this.client.blocked(alarm)
    this.client.heldChanged()
    return true
  }

  /** The alarm is over. */
  unblock(): void {
    if (!this.#isBlocked) return
    this.#isBlocked = false
    this.client.unblocked()
    this.client.heldChanged()
  }

  /** Ends the connection, whoever ends it. */
  end(): void {
    if (this.hasEnded) return
    this.hasEnded = true
    this.#broker.sessions.delete(this)
    for (const number of this.channels.keys()) this.closeChannel(number)
    this.vhost.connectionEnded(this)
  }
}
