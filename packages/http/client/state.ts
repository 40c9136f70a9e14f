/** The state of the page: the data that it has received, what it shows of that, and the user's settings. */
import type { Hello, Instance, Phase, Sample, Table, Totals } from "../src/internal/dashboard/events.ts"

/** What the server has sent. */
export interface Data {
  hello: Omit<Hello, "phases" | "consumers" | "instance">
  /** The process that has sent the last event. */
  instance: Instance | undefined
  /** When processes have started, as far as the page knows. */
  starts: Array<number>
  /** Samples at the low resolution. */
  coarse: Array<Sample>
  /** Samples at the high resolution. */
  samples: Array<Sample>
  /** Phases of the connection of pool and publisher. */
  phases: Array<Phase>
  /** Phases of the consumers' own connection. */
  consumers: Array<Phase>
  totals: Totals | undefined
  table: Table | undefined
}

export const received: Data = {
  // These values apply until the server's `hello` arrives.
  hello: {
    name: null,
    window: 300_000,
    interval: 1000,
    coarseWindow: 3_600_000,
    coarseInterval: 10_000,
    queueCounts: null,
    max: null
  },
  instance: undefined,
  starts: [],
  coarse: [],
  samples: [],
  phases: [],
  consumers: [],
  totals: undefined,
  table: undefined
}

interface State {
  /** What the page shows: what it has received, or while it is frozen a copy of that. */
  data: Data
  /** Whether the user has frozen the page. */
  isFrozen: boolean
  /** Whether the plots show the last hour instead of the last minutes. */
  isHour: boolean
  /** Whether times are those of this machine's zone instead of UTC. */
  isLocal: boolean
  /** The moment that the user points at. */
  pointed: number | undefined
  /** The drawing whose values the next drawing announces. */
  speaking: Element | undefined
}

export const state: State = {
  data: received,
  isFrozen: false,
  isHour: false,
  isLocal: false,
  pointed: undefined,
  speaking: undefined
}

export const freeze = (): void => {
  const { coarse, consumers, phases, samples, starts } = received
  state.data = {
    ...received,
    starts: [...starts],
    coarse: [...coarse],
    samples: [...samples],
    phases: [...phases],
    consumers: [...consumers]
  }
  state.isFrozen = true
}

export const resume = (): void => {
  state.data = received
  state.isFrozen = false
}

/** The kinds of channels, in the order of the samples. */
export const kinds = ["regular", "confirm", "transaction"] as const
