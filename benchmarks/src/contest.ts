/** The same work done in several ways, in turns, and what each costs beside the first. */
import { Console, Effect, type Scope } from "effect"
import { median, spread, table } from "./report.ts"

export interface Contest<R> {
  readonly title: string
  /** In one turn. */
  readonly messages: number
  /** The first is what the others are compared with. What the scope closes, and what it waits for, is not measured. */
  readonly ways: Record<string, Effect.Effect<unknown, unknown, R | Scope.Scope>>
  /** Before and after each turn, not measured. */
  readonly before?: Effect.Effect<unknown, unknown, R>
  readonly after?: Effect.Effect<unknown, unknown, R>
}

interface Cost {
  /** Of time and of this process's CPU, a message. */
  readonly elapsed: number
  readonly cpu: number
}

/** In microseconds. */
const measure = <R>(messages: number, work: Effect.Effect<unknown, unknown, R>) =>
  Effect.gen(function* () {
    // Nobody pays for what the one before has left behind.
    globalThis.gc?.()
    const cpu = process.cpuUsage()
    const start = performance.now()
    yield* work
    const elapsed = (performance.now() - start) * 1000
    const { system, user } = process.cpuUsage(cpu)
    return { elapsed: elapsed / messages, cpu: (system + user) / messages }
  })

/** Runs all ways so many times, after once for warming up, and prints a table. */
export const run = Effect.fnUntraced(function* <R>(contest: Contest<R>, rounds: number) {
  const { after = Effect.void, before = Effect.void, messages, title, ways } = contest
  const names = Object.keys(ways)
  const costs = new Map(names.map((name) => [name, [] as Array<Cost>]))
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      // Each time another one begins.
      const name = names[(turn + round) % names.length]!
      yield* before
      const cost = yield* Effect.scoped(measure(messages, ways[name]!))
      yield* after
      if (round > 0) costs.get(name)!.push(cost)
    }
  }
  const base = costs.get(names[0]!)!
  // Of each round by itself: what slows the machine down for a while slows all of them.
  const times = (values: ReadonlyArray<number>) => `${median(values).toFixed(2)} ${spread(values)}`
  yield* Console.log(`\n${title}: ${rounds} rounds of ${messages} messages\n`)
  yield* Console.log(
    table(
      ["", "messages/s", "spread", `of ${names[0]}`, "CPU µs/message", "spread", `of ${names[0]}`],
      Array.from(costs, ([name, all]) => {
        const perSecond = all.map(({ elapsed }) => 1e6 / elapsed)
        const cpu = all.map((cost) => cost.cpu)
        return [
          name,
          median(perSecond).toFixed(0),
          spread(perSecond),
          times(all.map(({ elapsed }, round) => base[round]!.elapsed / elapsed)),
          median(cpu).toFixed(1),
          spread(cpu),
          times(cpu.map((value, round) => value / base[round]!.cpu))
        ]
      })
    )
  )
})
