/** What a peer has to offer to take part, and what all of them share: how work is spread, and how latencies are kept. */

/** What a workload wants. All contenders of a workload get the same, but for what a contender is there to vary. */
export interface Setting {
  readonly url: string
  /** The certificate that the broker shows, PEM, if the URL is one of TLS. */
  readonly ca?: string | undefined
  /** Declared, durable, empty. */
  readonly queue: string
  /** Of a content, in bytes. */
  readonly size: number
  /** Publishes, requests or borrowers at a time. */
  readonly width: number
  /** Channels of a pool, at most. */
  readonly channels: number
  /** Deliveries that the broker sends ahead. */
  readonly prefetch: number
  /** Handlers at a time. */
  readonly concurrency: number
}

/** A kind of work. A peer that cannot do it leaves it out. */
export type Kind =
  /** Publishes, each completed by its confirm, `width` at a time. */
  | "confirm"
  /** Publishes without confirms; the run ends when the broker has answered a later method of the same channel. */
  | "publish"
  /** `confirm`, each message on a channel that is borrowed from a pool of `channels` for it. */
  | "borrowed"
  /** Takes messages from the full queue and acknowledges each. */
  | "consume"
  /** The same, and each acknowledged after a handler that pauses once, `concurrency` at a time. */
  | "handle"
  /** Requests and replies, JSON, `width` at a time; client and server in one process. */
  | "rpc"
  /** Borrows and returns a channel, one after the other. */
  | "borrow"
  /** The same by `width` borrowers of `channels` channels; each holds it for a pause. */
  | "contend"
  /** Opens channels, which stay open and idle. */
  | "channels"
  /** Serves HTTP; a load process posts, `width` connections. */
  | "http"
  /** Publishes by one fiber for each of `channels` channels, one after the other, with confirms. */
  | "spread"
  /** `concurrency` consumers of one queue. */
  | "consumers"
  /** Publishes with confirms, `width` at a time, and consumes the same messages meanwhile. */
  | "through"

/** Undoes what a run has left open; not measured. */
export type Settle = () => Promise<unknown>

/** Does so many of what is measured. */
export type Run = (messages: number, latencies: Latencies) => Promise<Settle | void>

export interface Prepared {
  readonly run: Run
  readonly close: () => Promise<unknown>
}

export type Prepare = (setting: Setting) => Promise<Prepared>

export type Peer = { readonly [K in Kind]?: Prepare }

/** Milliseconds. The array is there before the run, so keeping one costs every peer the same. */
export class Latencies {
  readonly #samples = new Float64Array(1 << 20)
  #count = 0

  record(milliseconds: number) {
    if (this.#count < this.#samples.length) this.#samples[this.#count++] = milliseconds
  }

  /** Empties it. */
  take(): { readonly p50: number; readonly p99: number } | undefined {
    const sorted = this.#samples.subarray(0, this.#count).sort()
    this.#count = 0
    if (sorted.length === 0) return undefined
    const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
    return { p50: at(0.5), p99: at(0.99) }
  }
}

/** `messages` times `one`, by `width` workers. */
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

/** The same where each takes so little that looking at the clock would show. */
export const shareUntimed = async (messages: number, width: number, one: () => Promise<unknown>) => {
  let left = messages
  const worker = async () => {
    while (left-- > 0) await one()
  }
  await Promise.all(Array.from({ length: Math.min(width, messages) }, worker))
}

/** What a handler that is not done at once waits for. */
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

/** What a request asks for, and how it is answered, in all contests of `rpc`. */
export interface Request {
  readonly id: number
  readonly name: string
}

export const request: Request = { id: 1, name: "x".repeat(80) }

export const answer = ({ id }: Request) => ({ found: id })

/** Fails unless a reply answers `request`. */
export const verify = (reply: unknown) => {
  if ((reply as { readonly found?: unknown }).found !== request.id) throw new Error("that is no answer")
}
