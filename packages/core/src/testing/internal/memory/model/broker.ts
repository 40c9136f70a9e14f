/** The broker: virtual hosts, connections, and what a test makes it do. */
import { connectionForced, Failure } from "../failure.ts"
import type { Timers } from "../timers.ts"
import { type Behavior, behaviors, type Version } from "../version.ts"
import type { Publication } from "./channel.ts"
import type { Queue } from "./queue.ts"
import type { Session, SessionBroker, SessionClient } from "./session.ts"
import { replyQueue, VirtualHost, type VirtualHostBroker } from "./virtualHost.ts"

/**
 * What a memory broker does with confirms: it sends them, withholds them until that ends, or answers each publish with a
 * nack.
 *
 * **When to use**
 *
 * Use with `confirms` of a `MemoryBroker` to test what an application does when a publish has no confirm, or is refused.
 *
 * @category models
 * @since 0.1.0
 */
export type Confirms = "send" | "withhold" | "nack"

/** A process id in Erlang's external term format, which is a part of the address of direct replies. */
const processId = Buffer.concat([
  Buffer.from([131, 88, 119, 13]),
  Buffer.from("memory@memory"),
  Buffer.from([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1])
]).toString("base64")

/** The user of RabbitMQ, who may connect from the same machine only. */
const guest = { guest: "guest" }

export interface BrokerOptions {
  readonly version: Version
  /** Passwords by the names of users. They may do everything. Default: `guest`. */
  readonly users?: Readonly<Record<string, string>> | undefined
  /** Whether publications are kept for a test that reads them. */
  readonly keepsPublications: boolean
}

export class Broker implements VirtualHostBroker, SessionBroker {
  readonly version: Version
  readonly behavior: Behavior
  readonly timers: Timers
  readonly users: ReadonlyMap<string, string>
  readonly vhosts = new Map<string, VirtualHost>()
  readonly sessions = new Set<Session>()
  /** Connections whose handshake is not over. */
  readonly opening = new Set<SessionClient>()
  readonly publications: Array<Publication> = []
  /** Grows with all that clients and broker do. */
  activity = 0
  /** Called at the end of each turn. */
  readonly watchers = new Set<() => void>()
  /** Why publishers are blocked, during an alarm. */
  alarm: string | undefined
  isStalled = false
  /** Whether new connections are refused. */
  isRefusing = false
  #confirms: Confirms = "send"
  #withheld: Array<() => void> = []
  readonly #keepsPublications: boolean
  readonly #awake = new Set<Queue>()
  #turn = 0
  #depth = 0
  #names = 0

  constructor(timers: Timers, { keepsPublications, users = guest, version }: BrokerOptions) {
    this.version = version
    this.behavior = behaviors[version]
    this.users = new Map(Object.entries(users))
    this.#keepsPublications = keepsPublications
    this.timers = { now: timers.now, at: (due, action) => timers.at(due, () => this.run(action)) }
    this.vhosts.set("/", new VirtualHost(this, "/"))
  }

  /** Logs a user in. Throws a `Failure`. */
  logIn(user: string, password: string): void {
    const expected = this.users.get(user)
    if (expected === password) return
    const problem =
      expected === undefined
        ? ` MemoryBroker has the users ${[...this.users.keys()].join(", ")}, who may do everything.`
        : ""
    throw new Failure(
      "connection",
      403,
      `ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.${problem}`
    )
  }

  // --- Turns -----------------------------------------------------------------------------------------------------------

  /** Runs an action, then lets the queues deliver until they rest. */
  run<A>(action: () => A): A {
    this.#depth++
    try {
      return action()
    } finally {
      if (--this.#depth === 0) this.#rest()
    }
  }

  #rest(): void {
    this.#depth++
    while (this.#awake.size > 0) {
      const queues = [...this.#awake]
      this.#awake.clear()
      for (const queue of queues) queue.settle()
    }
    this.#turn++
    this.activity++
    this.#depth--
    for (const watcher of Array.from(this.watchers)) watcher()
  }

  readonly turn = (): number => this.#turn

  readonly wake = (queue: Queue): void => {
    this.#awake.add(queue)
  }

  readonly nextName = (prefix: string): string => `${prefix}-${this.#unique()}`

  readonly nextReplyName = (): string => `${replyQueue}.${processId}.${this.#unique()}`

  /** As long as RabbitMQ's, and the same in each run. */
  #unique(): string {
    return Buffer.from(`memory-${String(++this.#names).padStart(9, "0")}`).toString("base64url")
  }

  // --- Publishing ------------------------------------------------------------------------------------------------------

  published(publication: Publication): void {
    if (this.#keepsPublications) this.publications.push(publication)
  }

  confirm(isAck: boolean, send: (isAck: boolean) => void): void {
    switch (this.#confirms) {
      case "send":
        return send(isAck)
      case "nack":
        return send(false)
      case "withhold":
        this.#withheld.push(() => send(isAck))
    }
  }

  /** Changes what happens to confirms. Those that were withheld are sent when they are no longer withheld. */
  setConfirms(confirms: Confirms): void {
    this.#confirms = confirms
    if (confirms !== "withhold") for (const send of this.#withheld.splice(0)) send()
  }

  // --- Faults ----------------------------------------------------------------------------------------------------------

  raiseAlarm(reason: string): void {
    this.alarm ??= reason
  }

  clearAlarm(): void {
    this.alarm = undefined
    for (const session of this.sessions) session.unblock()
  }

  setStalled(isStalled: boolean): void {
    if (this.isStalled === isStalled) return
    this.isStalled = isStalled
    for (const client of this.opening) client.heldChanged()
    for (const { client } of this.sessions) client.heldChanged()
  }

  #sessionsOf(vhost: string | undefined): ReadonlyArray<Session> {
    return [...this.sessions].filter((session) => vhost === undefined || session.vhost.name === vhost)
  }

  /** Cuts all connections, and returns their number. */
  cut(vhost?: string): number {
    const sessions = this.#sessionsOf(vhost)
    if (vhost === undefined) for (const client of this.opening) client.cut()
    for (const { client } of sessions) client.cut()
    return sessions.length
  }

  /** Closes all connections, and returns their number. */
  close(reason: string, vhost?: string): number {
    const sessions = this.#sessionsOf(vhost)
    for (const { client } of sessions) client.close(connectionForced(reason))
    return sessions.length
  }

  /** Cancels the consumers of a queue, and returns their number. */
  cancelConsumers(vhost: string, name: string): number {
    const queue = this.vhosts.get(vhost)?.queues.get(name)
    if (queue === undefined) return 0
    const count = queue.consumers.length
    for (const session of this.#sessionsOf(vhost)) {
      for (const channel of session.channels.values()) channel.cancelConsumersOf(queue)
    }
    return count
  }

  restart(keepsDurable: boolean): void {
    this.close("broker forced connection closure with reason 'shutdown'")
    this.#withheld = []
    this.isStalled = false
    this.alarm = undefined
    for (const vhost of this.vhosts.values()) vhost.restart(keepsDurable)
  }

  deleteVhost(name: string): void {
    const vhost = this.vhosts.get(name)
    if (vhost === undefined) return
    this.close(`vhost '${name}' is deleted`, name)
    for (const queue of vhost.queues.values()) vhost.removeQueue(queue)
    this.vhosts.delete(name)
  }

  addVhost(name: string): void {
    if (!this.vhosts.has(name)) this.vhosts.set(name, new VirtualHost(this, name))
  }
}
