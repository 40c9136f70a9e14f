/** What a peer implements, and what all of them share: how work is distributed, and how latencies are recorded. */

/**
 * The parameters of a workload. All contenders of a workload get the same, except for what a contender is there to
 * vary.
 */
export interface Setting {
  readonly url: string
  /** The broker's certificate, PEM, if the URL uses TLS. */
  readonly ca?: string | undefined
  /** A declared, durable, empty queue. */
  readonly queue: string
  /** Size of a content, in bytes. */
  readonly size: number
  /** Number of concurrent publishes, requests or borrowers. */
  readonly width: number
  /** Maximum number of channels in a pool. */
  readonly channels: number
  /** Prefetch count of a consumer. */
  readonly prefetch: number
  /** Number of concurrent handlers. */
  readonly concurrency: number
}

/** A kind of work. A peer that does not support it leaves it out. */
export type Kind =
  /** Publishes, each completed by its confirm, `width` at a time. */
  | "confirm"
  /** Publishes without confirms. The run ends when the broker has answered a later method of the same channel. */
  | "publish"
  /** `confirm`, with each message on a channel that is borrowed for it from a pool of `channels`. */
  | "borrowed"
  /** Consumes the messages of the full queue and acknowledges each. */
  | "consume"
  /** The same, with each acknowledged after a handler that pauses once, `concurrency` at a time. */
  | "handle"
  /** Requests and replies, JSON, `width` at a time. Client and server are in one process. */
  | "rpc"
  /** Borrows and returns a channel, one borrow after the other. */
  | "borrow"
  /** The same, by `width` borrowers of `channels` channels. Each holds the channel for a pause. */
  | "contend"
  /** Opens channels, which stay open and idle. */
  | "channels"
  /** Serves HTTP. A load process posts on `width` connections. */
  | "http"
  /** Publishes with confirms, by one fiber for each of `channels` channels, one message after the other. */
  | "spread"
  /** `concurrency` consumers of one queue. */
  | "consumers"
  /** Publishes with confirms, `width` at a time, and consumes the same messages at the same time. */
  | "through"

/** Closes what a run has left open. This is not measured. */
export type Settle = () => Promise<unknown>

/** Does the measured work this many times. */
export type Run = (messages: number, latencies: Latencies) => Promise<Settle | void>

export interface Prepared {
  readonly run: Run
  readonly close: () => Promise<unknown>
}

export type Prepare = (setting: Setting) => Promise<Prepared>

export type Peer = { readonly [K in Kind]?: Prepare }

/** In milliseconds. The array is allocated before the run, so recording a value costs every peer the same. */
export class Latencies {
  readonly #samples = new Float64Array(1 << 20)
  #count = 0

  record(milliseconds: number) {
    if (this.#count < this.#samples.length) this.#samples[this.#count++] = milliseconds
  }

  /** Removes all values. */
  take(): { readonly p50: number; readonly p99: number } | undefined {
    const sorted = this.#samples.subarray(0, this.#count).sort()
    this.#count = 0
    if (sorted.length === 0) return undefined
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
    return { p50: at(0.5), p99: at(0.99) }
  }
}

/** Runs `one` `messages` times, by `width` workers. */
export const share = async (messages: number, width: number, latencies: Latencies, one: () => Promise<unknown>) => {
  let left = messages
  const worker = async () => {
    while (left-- > 0) {
      const start = performance.now()
      await one()
      latencies.record(performance.now() - start)
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, messages) }, worker))
}

/** The same for work so short that reading the clock would affect the figures. */
export const shareUntimed = async (messages: number, width: number, one: () => Promise<unknown>) => {
  let left = messages
  const worker = async () => {
    while (left-- > 0) await one()
  }
  await Promise.all(Array.from({ length: Math.min(width, messages) }, worker))
}

/** The pause of a handler that does not complete at once. */
export const pause = () => new Promise<void>((resolve) => setImmediate(resolve))

/** `channels`: opens them one after the other, and keeps them until it closes. */
export const keepOpen = <Channel>(
  open: () => Promise<Channel>,
  close: (kept: ReadonlyArray<Channel>) => Promise<unknown>
): Prepared => {
  const kept: Array<Channel> = []
  return {
    run: async (count) => {
      for (let i = 0; i < count; i++) kept.push(await open())
    },
    close: () => close(kept)
  }
}

/** Counts down, and completes at zero. */
export const countdown = (from: number) => {
  let left = from
  let complete: () => void
  let fail: (error: unknown) => void
  const done = new Promise<void>((resolve, reject) => {
    complete = resolve
    fail = reject
  })
  return {
    done,
    one: () => {
      if (--left === 0) complete()
    },
    fail: (error: unknown) => fail(error)
  }
}

/** The request and the reply in all contests of `rpc`. */
export interface Request {
  readonly id: number
  readonly name: string
}

export const request: Request = { id: 1, name: "x".repeat(80) }

export const answer = ({ id }: Request) => ({ found: id })

/** Fails unless a reply answers `request`. */
export const verify = (reply: unknown) => {
  if ((reply as { readonly found?: unknown }).found !== request.id)
    throw new Error("expected the reply to the request, got another one")
}
