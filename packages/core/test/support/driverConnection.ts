/** The driver alone on a broker: connections and channels that record their events. */
import { Effect, type Scope } from "effect"
import type {
  ChannelEnd,
  ChannelEvents,
  DeliveredMessage,
  DriverChannel,
  DriverConnection,
  ReturnedMessage
} from "../../src/internal/driver/driver.ts"
import * as Driver from "../../src/internal/driver/driver.ts"
import { Outgoing } from "../../src/internal/wire/properties.ts"
import { configOf, type Overrides } from "./amqp.ts"
import { until } from "./polling.ts"

/** A channel, and all its events. */
export class DrivenChannel implements ChannelEvents {
  isOpened = false
  readonly deliveries: Array<DeliveredMessage> = []
  readonly returns: Array<ReturnedMessage> = []
  /** The tags of acks, and those of nacks as negative numbers. */
  readonly confirms: Array<number> = []
  readonly flows: Array<boolean> = []
  readonly cancels: Array<string> = []
  readonly refusals: Array<unknown> = []
  /** The causes with which it was closed, one for each report. */
  readonly ends: Array<ChannelEnd | undefined> = []
  goings = 0
  /** Called after `isOpened`. */
  onOpened: (() => void) | undefined = undefined
  /** Called when there is capacity again. */
  onDrained: (() => void) | undefined = undefined
  readonly channel: DriverChannel

  constructor(connection: DriverConnection) {
    this.channel = connection.openChannel(this)
  }

  readonly opened = () => {
    this.isOpened = true
    this.onOpened?.()
  }
  readonly notOpened = (cause: unknown) => void this.refusals.push(cause)
  readonly delivered = (message: DeliveredMessage) => void this.deliveries.push(message)
  readonly returned = (message: ReturnedMessage) => void this.returns.push(message)
  readonly confirmed = (tag: number, _multiple: boolean, isAck: boolean) => void this.confirms.push(isAck ? tag : -tag)
  readonly flow = (active: boolean) => void this.flows.push(active)
  readonly cancelled = (tag: string) => void this.cancels.push(tag)
  readonly oversized = () => false
  readonly undecodable = () => false
  readonly drained = () => this.onDrained?.()
  readonly closed = (end: ChannelEnd | undefined) => void this.ends.push(end)
  readonly gone = () => void this.goings++

  get untilGone(): Effect.Effect<unknown> {
    return until(
      Effect.sync(() => this.goings),
      (goings) => goings > 0,
      "how often the channel was gone"
    )
  }
}

/** A connection, and the causes with which it ended, one for each report. */
export interface Driven {
  readonly connection: DriverConnection
  readonly ends: ReadonlyArray<unknown>
  /** A channel that is opening. */
  readonly opening: () => DrivenChannel
  /** A channel that is open. */
  readonly open: Effect.Effect<DrivenChannel>
}

/** A connection of the driver that ends with the scope. */
export const driving = (url: string, overrides: Overrides = {}): Effect.Effect<Driven, unknown, Scope.Scope> => {
  const config = configOf(url, overrides)
  const opening = Effect.callback<DriverConnection, unknown>((resume) => {
    const attempt = Driver.open(
      { config, host: config.hosts[0]!, socketOptions: {} },
      (connection) => resume(Effect.succeed(connection)),
      (cause) => resume(Effect.fail(cause))
    )
    return Effect.sync(() => attempt.abort())
  })
  return Effect.acquireRelease(opening, (connection) =>
    Effect.sync(() => connection.destroy(new Error("the test is over")))
  ).pipe(
    Effect.map((connection) => {
      const ends: Array<unknown> = []
      connection.watch({
        blocked: () => {},
        unblocked: () => {},
        secretUpdated: () => {},
        ended: (cause) => void ends.push(cause)
      })
      const opening = () => new DrivenChannel(connection)
      const open = Effect.suspend(() => {
        const driven = opening()
        return Effect.as(
          until(
            Effect.sync(() => driven.isOpened),
            (isOpened) => isOpened,
            "whether the channel has opened"
          ),
          driven
        )
      })
      return { connection, ends, opening, open }
    })
  )
}

/** A message for a queue. */
export const messageOf = (content: Uint8Array | string, routingKey = "q"): Outgoing =>
  Object.assign(new Outgoing(), { routingKey, content: Buffer.from(content) })

/** More than the operating system buffers for a peer that does not read, in bytes. */
export const moreThanFits = 2 ** 20 * 12

/** Waits for the next turn of the event loop, or for this many. */
export const turns = (count = 1): Effect.Effect<void> =>
  Effect.promise(async () => {
    for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
  })

/**
 * After this many turns the operating system has buffered what it can, between a peer that writes and one that does not
 * read.
 */
export const untilStuck: Effect.Effect<void> = turns(100)

/** The outcomes of promises: `pending`, `answered`, or the name of the error. */
export class Outcomes {
  readonly #outcomes: Array<string> = []

  /** Records the outcome of a function that throws, too. */
  of(call: () => unknown): void {
    const index = this.#outcomes.push("pending") - 1
    const settle = (outcome: string) => {
      this.#outcomes[index] = outcome
    }
    const failed = (cause: unknown) => settle(cause instanceof Error ? cause.name : String(cause))
    try {
      const result = call()
      if (result instanceof Promise) result.then(() => settle("answered"), failed)
      else settle("sent")
    } catch (cause) {
      failed(cause)
    }
  }

  get all(): ReadonlyArray<string> {
    return this.#outcomes
  }

  get untilSettled(): Effect.Effect<unknown> {
    return until(
      Effect.sync(() => this.#outcomes),
      (outcomes) => !outcomes.includes("pending"),
      "the outcomes"
    )
  }
}
