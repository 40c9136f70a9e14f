/** The plan of a run: which process is killed, and when. The same seed gives the same plan. */
import { type Random, randomOf } from "../../core/chaos/random.ts"

export const programNames = ["shop", "relay 1", "relay 2", "consumer 1", "consumer 2", "ordered consumer"] as const
export const targetNames = [...programNames, "broker", "database"] as const

export type ProgramName = (typeof programNames)[number]
export type TargetName = (typeof targetNames)[number]

export interface Kill {
  readonly target: TargetName
  /** The share of the turn's orders that are committed before, 0 to 1: the others are under way. */
  readonly share: number
  /** After that, in milliseconds. */
  readonly delay: number
  /** From the end of the process to its next start, in milliseconds. */
  readonly pause: number
  /** Whether it is killed even if it has not finished its start. */
  readonly early: boolean
}

// A broker takes seconds to start, and while it is away consumers have nothing to do.
const weights: Readonly<Record<TargetName, number>> = {
  shop: 3,
  "relay 1": 4,
  "relay 2": 4,
  "consumer 1": 3,
  "consumer 2": 3,
  "ordered consumer": 3,
  broker: 1,
  database: 2
}

const weighted = targetNames.flatMap((name) => Array<TargetName>(weights[name]).fill(name))

const shuffled = <A>(random: Random, values: ReadonlyArray<A>): Array<A> => {
  const rest = [...values]
  return values.map(() => rest.splice(random.below(rest.length), 1)[0]!)
}

/** Every target is killed once in the first turns, and random ones after that. */
export const planOf = (seed: number, count: number): ReadonlyArray<Kill> => {
  const random = randomOf(seed)
  const first = shuffled(random, targetNames)
  return Array.from({ length: count }, (_, turn) => ({
    target: first[turn] ?? random.one(weighted),
    share: random.below(100) / 100,
    delay: random.between(0, 150),
    pause: random.one([0, 0, random.between(50, 1500)]),
    early: random.below(5) === 0
  }))
}
