/** What the page knows, and how its user looks at it. */
import type { Hello, Phase, Sample, Totals } from "../src/internal/dashboard/events.ts"

interface State {
  hello: Pick<Hello, "name" | "window" | "interval" | "max">
  samples: Array<Sample>
  /** Of the connection of pool and publisher. */
  phases: Array<Phase>
  /** Of the consumers' own connection. */
  consumers: Array<Phase>
  totals: Totals | undefined
  /** The moment at which the user has paused the page. */
  frozen: number | undefined
  /** The moment at which the user points. */
  pointed: number | undefined
  /** When the last event came, by this machine's clock. 0: none has come. */
  heardAt: number
  /** The stream is lost. */
  isLost: boolean
}

export const state: State = {
  // Until the server's own has come.
  hello: { name: null, window: 300_000, interval: 1000, max: null },
  samples: [],
  phases: [],
  consumers: [],
  totals: undefined,
  frozen: undefined,
  pointed: undefined,
  heardAt: 0,
  isLost: false
}

/** The kinds of channels, in the order in which samples have them. */
export const kinds = ["regular", "confirm", "transaction"] as const
