/**
 * The same work by several contenders, each in a process of its own, in turns on one broker.
 *
 * Each contender does as many messages a run as take it `seconds`: what is compared is the cost of one. Two runs of each
 * warm up and find out how many that are. In each round another contender begins. Every run is checked: the messages must
 * be in the queue, or all acknowledged.
 */
import type { Broker } from "./broker.ts"
import type { Closed, Ran } from "./contender.ts"
import type { Name } from "./peers/index.ts"
import type { Kind, Setting } from "./peers/peer.ts"
import * as Profile from "./profile.ts"
import { type Command, node, pika, python, type Talk } from "./process.ts"
import * as Progress from "./progress.ts"
import { type Figure, figure, median } from "./statistics.ts"

/** How a run is checked. */
export type Check =
  /** The queue holds as many messages as were to be published. */
  | "published"
  /** The queue was filled before, and is empty afterwards, with nothing requeued. */
  | "consumed"
  /** The contender checks it: it counts what it does, or verifies each reply. */
  | "by itself"

export interface Entry {
  readonly name: Name | "Pika"
  /** What it is called in this contest, if not by its name. */
  readonly label?: string
  /** The root of another checkout that it is taken from, such as that of the commit before. */
  readonly from?: string
  /** What differs for it. */
  readonly setting?: Partial<Setting>
}

export interface Contest {
  readonly id: string
  readonly title: string
  readonly kind: Kind
  /** The first is what the others are compared with. */
  readonly entries: ReadonlyArray<Entry>
  readonly setting?: Partial<Setting>
  readonly check: Check
  /** Messages of the very first run. */
  readonly first: number
  /** Messages of a run, at most. */
  readonly most?: number
  /** Messages of a run, at least: where a run's beginning would weigh too much. */
  readonly least?: number
  /** Through the broker's TLS listener. */
  readonly tls?: boolean
  /** What is measured, where it is not messages. */
  readonly unit?: string
}

export interface Effort {
  readonly rounds: number
  /** Of a run. */
  readonly seconds: number
  /**
   * Of the last run before those that count. A service runs for long: what is measured is to be compiled by then, which
   * depends on how often it has run.
   */
  readonly warmUp: {
    /** At least, about. */
    readonly seconds: number
    /** At least, about, or as many as take ten seconds, if those are fewer. None are wanted with 0. */
    readonly messages: number
  }
}

/** Seconds. No warm-up is made longer than that for the sake of its messages. */
const longestWarmUp = 10

export interface Standing {
  readonly name: string
  readonly messages: number
  readonly perSecond: Figure
  /** Microseconds a message. */
  readonly cpu: Figure
  /** Milliseconds. */
  readonly p50: number | undefined
  readonly p99: number | undefined
  /** Bytes. */
  readonly peak: number
  /** Messages a second and CPU, each round by itself, beside the first contender. */
  readonly ofBase: Figure
  readonly cpuOfBase: Figure
  /** The same beside the fastest peer but the first. */
  readonly ofBest: Figure | undefined
}

export interface Result {
  readonly id: string
  readonly title: string
  readonly unit: string
  readonly rounds: number
  readonly base: string
  readonly best: string | undefined
  readonly standings: ReadonlyArray<Standing>
  readonly failures: ReadonlyArray<{ readonly name: string; readonly message: string }>
}

const deadline = 120_000

/** A contender's process. */
export class Contender {
  readonly label: string
  readonly entry: Entry
  /** Its own: a contender's server would answer the requests of the others. */
  readonly queue: string
  readonly rounds: Array<Ran> = []
  messages = 0
  failure: string | undefined
  peak = 0
  readonly #talk: Talk
  readonly ready: Promise<unknown>

  constructor(entry: Entry, queue: string) {
    this.entry = entry
    this.queue = queue
    this.label = entry.label ?? entry.name
    this.#talk = entry.name === "Pika" ? python(pika!.command, "./peers/blocking.py") : node(entry.from)
    this.ready = this.#answer("start")
    // Whoever waits for it hears of it.
    this.ready.catch(() => undefined)
  }

  #answer<A>(what: string): Promise<A> {
    return new Promise<A>((resolve, reject) => {
      const end = () => {
        clearTimeout(timer)
        this.#talk.events.off("message", onMessage).off("exit", onExit)
      }
      const timer = setTimeout(() => {
        end()
        reject(new Error(`${this.label} did not ${what} in ${deadline / 1000} s`))
      }, deadline)
      const onMessage = (message: { readonly value: A } | { readonly error: string }) => {
        end()
        if ("error" in message) reject(new Error(message.error))
        else resolve(message.value)
      }
      const onExit = (code: number | null, signal: string | null) => {
        end()
        reject(new Error(`${this.label} ended with ${code ?? signal}`))
      }
      this.#talk.events.on("message", onMessage).on("exit", onExit)
    })
  }

  ask<A = undefined>(command: Command): Promise<A> {
    const answer = this.#answer<A>(command._tag)
    this.#talk.send(command)
    return answer
  }

  end() {
    return this.#talk.end()
  }
}

const defaults = { size: 128, width: 1, channels: 16, prefetch: 250, concurrency: 1 }

const settingFor = (contest: Contest, { entry, queue }: Contender, broker: Broker): Setting => ({
  url: contest.tls === true ? broker.tls!.url : broker.url,
  ca: contest.tls === true ? broker.tls!.ca : undefined,
  queue,
  ...defaults,
  ...contest.setting,
  ...entry.setting
})

/** The broker counts what its queue has seen, which may be a moment after the channel has. */
const expectCount = async (broker: Broker, queue: string, expected: number) => {
  const patience = performance.now() + 5000
  let count = await broker.count(queue)
  while (count !== expected && performance.now() < patience) count = await broker.count(queue)
  if (count !== expected) throw new Error(`the queue holds ${count} messages in place of ${expected}`)
}

const turn = async (contest: Contest, contender: Contender, messages: number, broker: Broker): Promise<Ran> => {
  const { check } = contest
  const { queue, size } = settingFor(contest, contender, broker)
  if (check === "consumed") await broker.fill(queue, messages, size)
  const ran = await contender.ask<Ran>({ _tag: "Run", messages, weigh: false })
  await contender.ask({ _tag: "Settle" })
  if (check !== "by itself") await expectCount(broker, queue, check === "published" ? messages : 0)
  if (check === "published") await broker.purge(queue)
  return ran
}

const standing = (contender: Contender, base: Contender, best: Contender | undefined): Standing => {
  const perSecond = (one: Contender) => one.rounds.map(({ elapsed }) => one.messages / elapsed)
  const cpu = (one: Contender) => one.rounds.map((ran) => ran.cpu / one.messages)
  const beside = (mine: ReadonlyArray<number>, theirs: ReadonlyArray<number>) =>
    figure(mine.map((value, round) => value / theirs[round]!))
  const all = <A>(pick: (ran: Ran) => A | undefined) =>
    contender.rounds.map(pick).filter((value) => value !== undefined) as Array<A & number>
  const orNone = (values: ReadonlyArray<number>) => (values.length === 0 ? undefined : median(values))
  return {
    name: contender.label,
    messages: contender.messages,
    perSecond: figure(perSecond(contender)),
    cpu: figure(cpu(contender)),
    p50: orNone(all(({ latency }) => latency?.p50)),
    p99: orNone(all(({ latency }) => latency?.p99)),
    peak: contender.peak,
    ofBase: beside(perSecond(contender), perSecond(base)),
    cpuOfBase: beside(cpu(contender), cpu(base)),
    ofBest: best === undefined || contender === best ? undefined : beside(perSecond(contender), perSecond(best))
  }
}

/** Neither ours, nor Effect, nor amqplib by hand. */
const isPeer = ({ label }: Contender) => !/^(?:effect-amqp|Effect|amqplib$|amqplib,)/.test(label)

export const hold = async (contest: Contest, effort: Effort, broker: Broker): Promise<Result> => {
  const contenders = contest.entries.map((entry, index) => new Contender(entry, `${contest.id}-${index}`))
  /** Does it for all who have not failed; who fails takes no further part. */
  const each = async (all: ReadonlyArray<Contender>, f: (contender: Contender) => Promise<unknown>) => {
    for (const contender of all) {
      if (contender.failure !== undefined) continue
      try {
        await f(contender)
      } catch (error) {
        contender.failure = error instanceof Error ? error.message : String(error)
        Progress.line(`${contest.id}: ${contender.label} FAILED: ${contender.failure}`)
        await broker.purge(contender.queue)
      }
    }
  }
  /** So many of a contender's that those at the beginning and at the end, with fewer in flight, do not count for much. */
  const within = (contender: Contender, messages: number) => {
    const least = Math.max(contest.least ?? contest.first / 4, 4 * settingFor(contest, contender, broker).width)
    return Math.round(Math.min(Math.max(messages, least), contest.most ?? Infinity))
  }
  try {
    for (const { queue } of contenders) await broker.declare(queue)
    await each(contenders, ({ ready }) => ready)
    await each(contenders, (contender) =>
      contender.ask({
        _tag: "Prepare",
        name: contender.entry.name,
        kind: contest.kind,
        setting: settingFor(contest, contender, broker),
        // Another checkout keeps its profiles to itself.
        profile:
          Profile.isWanted && contender.entry.from === undefined
            ? Profile.fileName(`${contender.queue}-${contender.label}`)
            : undefined
      })
    )
    for (let warmUp = 0; warmUp < 2; warmUp++) {
      await each(contenders, async (contender) => {
        Progress.show(`${contest.id}: warming up ${contender.label}`)
        const messages = contender.messages || within(contender, contest.first)
        const { elapsed } = await turn(contest, contender, messages, broker)
        const perSecond = messages / elapsed
        const wanted =
          warmUp === 0
            ? Math.max(perSecond * effort.warmUp.seconds, Math.min(effort.warmUp.messages, perSecond * longestWarmUp))
            : perSecond * effort.seconds
        contender.messages = within(contender, wanted)
      })
    }
    for (let round = 0; round < effort.rounds; round++) {
      const from = round % contenders.length
      await each([...contenders.slice(from), ...contenders.slice(0, from)], async (contender) => {
        Progress.show(`${contest.id}: round ${round + 1} of ${effort.rounds}, ${contender.label}`)
        contender.rounds.push(await turn(contest, contender, contender.messages, broker))
      })
    }
    await each(contenders, async (contender) => {
      contender.peak = (await contender.ask<Closed>({ _tag: "Close" })).peak
    })
  } finally {
    await Promise.all(contenders.map((contender) => contender.end()))
    for (const { queue } of contenders) await broker.remove(queue)
  }
  if (Profile.isWanted) {
    for (const { label, queue } of contenders.filter(
      ({ entry }) => entry.name !== "Pika" && entry.from === undefined
    )) {
      Progress.line(`\n${contest.id}, ${label}: where its time went`)
      for (const [share, where] of Profile.top(`${queue}-${label}`, 15)) {
        Progress.line(`${(share * 100).toFixed(1).padStart(6)} %  ${where}`)
      }
    }
  }
  const finished = contenders.filter(({ failure }) => failure === undefined)
  const [base] = contenders
  const speed = (contender: Contender) => contender.messages / median(contender.rounds.map(({ elapsed }) => elapsed))
  const [best] = finished
    .filter((contender) => contender !== base && isPeer(contender))
    .sort((a, b) => speed(b) - speed(a))
  return {
    id: contest.id,
    title: contest.title,
    unit: contest.unit ?? "messages",
    rounds: effort.rounds,
    base: base!.label,
    best: best?.label,
    standings: base!.failure === undefined ? finished.map((contender) => standing(contender, base!, best)) : [],
    failures: contenders.flatMap(({ failure, label }) =>
      failure === undefined ? [] : [{ name: label, message: failure }]
    )
  }
}
