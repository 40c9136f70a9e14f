/**
 * Runs the same work with several contenders, each in a separate process, in turns on one broker.
 *
 * A run has as many messages as the contender processes in `seconds`, and the cost of one message is compared. Two runs
 * of each contender warm it up and determine that number. Each round starts with another contender. Every run is checked:
 * the messages must be in the queue, or all acknowledged.
 */
import type { Broker } from "./broker.ts"
import type { Closed, RunResult } from "./contender.ts"
import type { Name } from "./peers/index.ts"
import type { Kind, Setting } from "./peers/peer.ts"
import * as Profile from "./profile.ts"
import { type Command, node, pika, python, type ProcessChannel } from "./process.ts"
import * as Progress from "./progress.ts"
import { type Figure, figure, median } from "./statistics.ts"

/** How a run is checked. */
export type Check =
  /** The queue holds as many messages as were to be published. */
  | "published"
  /** The queue was filled before, and is empty afterwards, with nothing requeued. */
  | "consumed"
  /** The contender checks its own work: it counts what it does, or verifies each reply. */
  | "contender"

export interface Entry {
  readonly name: Name | "Pika"
  /** Its name in this contest, if not `name`. */
  readonly label?: string
  /** The root of another checkout that it is loaded from, such as that of the previous commit. */
  readonly from?: string
  /** The settings that differ for it. */
  readonly setting?: Partial<Setting>
}

export interface Contest {
  readonly id: string
  readonly title: string
  readonly kind: Kind
  /** The others are compared with the first one. */
  readonly entries: ReadonlyArray<Entry>
  readonly setting?: Partial<Setting>
  readonly check: Check
  /** Messages of the very first run. */
  readonly first: number
  /** Maximum number of messages per run. */
  readonly most?: number
  /** Minimum number of messages per run, for workloads in which the beginning of a run would weigh too much. */
  readonly least?: number
  /** Whether it uses the broker's TLS listener. */
  readonly tls?: boolean
  /** The unit of the rate. Default: messages. */
  readonly unit?: string
}

export interface Effort {
  readonly rounds: number
  /** Duration of a run, in seconds. */
  readonly seconds: number
  /**
   * The last run before those that count. A service runs for long, so V8 has to have compiled what is measured, which
   * depends on how often it has run.
   */
  readonly warmUp: {
    /** Minimum duration, approximately. */
    readonly seconds: number
    /**
     * Minimum number of messages, approximately, or as many as take ten seconds, if those are fewer. 0 sets no minimum.
     */
    readonly messages: number
  }
}

/** In seconds. No warm-up is made longer than this for the sake of its messages. */
const longestWarmUp = 10

export interface Standing {
  readonly name: string
  readonly messages: number
  readonly perSecond: Figure
  /** In microseconds per message. */
  readonly cpu: Figure
  /** In milliseconds. */
  readonly p50: number | undefined
  readonly p99: number | undefined
  /** In bytes. */
  readonly peak: number
  /** Rate and CPU relative to the first contender, computed per round. */
  readonly ofBase: Figure
  readonly cpuOfBase: Figure
  /** The rate relative to the fastest peer other than the first contender. */
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
  /** Each contender has its own queue: a contender's server would otherwise answer the requests of the others. */
  readonly queue: string
  readonly rounds: Array<RunResult> = []
  messages = 0
  failure: string | undefined
  peak = 0
  readonly #talk: ProcessChannel
  readonly ready: Promise<unknown>

  constructor(entry: Entry, queue: string) {
    this.entry = entry
    this.queue = queue
    this.label = entry.label ?? entry.name
    this.#talk = entry.name === "Pika" ? python(pika!.command, "./peers/blocking.py") : node(entry.from)
    this.ready = this.#answer("start")
    // The caller that awaits it gets the error. This prevents an unhandled rejection.
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
        reject(new Error(`${this.label}: no answer to ${what} within ${deadline / 1000} s`))
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

/** The broker counts what its queue has processed, which may be a moment after the channel has. */
const expectCount = async (broker: Broker, queue: string, expected: number) => {
  const patience = performance.now() + 5000
  let count = await broker.count(queue)
  while (count !== expected && performance.now() < patience) count = await broker.count(queue)
  if (count !== expected) throw new Error(`the queue: expected ${expected} messages, got ${count}`)
}

const turn = async (contest: Contest, contender: Contender, messages: number, broker: Broker): Promise<RunResult> => {
  const { check } = contest
  const { queue, size } = settingFor(contest, contender, broker)
  if (check === "consumed") await broker.fill(queue, messages, size)
  const ran = await contender.ask<RunResult>({ _tag: "Run", messages, weigh: false })
  await contender.ask({ _tag: "Settle" })
  if (check !== "contender") await expectCount(broker, queue, check === "published" ? messages : 0)
  if (check === "published") await broker.purge(queue)
  return ran
}

const standing = (contender: Contender, base: Contender, best: Contender | undefined): Standing => {
  const perSecond = (one: Contender) => one.rounds.map(({ elapsed }) => one.messages / elapsed)
  const cpu = (one: Contender) => one.rounds.map((ran) => ran.cpu / one.messages)
  const ratioOf = (mine: ReadonlyArray<number>, theirs: ReadonlyArray<number>) =>
    figure(mine.map((value, round) => value / theirs[round]!))
  const all = <A>(pick: (ran: RunResult) => A | undefined) =>
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
    ofBase: ratioOf(perSecond(contender), perSecond(base)),
    cpuOfBase: ratioOf(cpu(contender), cpu(base)),
    ofBest: best === undefined || contender === best ? undefined : ratioOf(perSecond(contender), perSecond(best))
  }
}

/** Whether it is neither effect-amqp, nor Effect, nor amqplib used directly. */
const isPeer = ({ label }: Contender) => !/^(?:effect-amqp|Effect|amqplib$|amqplib,|Fastify \+ amqplib)/.test(label)

export const hold = async (contest: Contest, effort: Effort, broker: Broker): Promise<Result> => {
  const contenders = contest.entries.map((entry, index) => new Contender(entry, `${contest.id}-${index}`))
  /** Runs `f` for all contenders that have not failed. A contender that fails takes no further part. */
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
  /** Bounds the messages of a run, so that its beginning and its end, with fewer in flight, do not weigh much. */
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
        // A contender from another checkout would write its profiles there.
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
      Progress.line(`\n${contest.id}, ${label}: self time per function`)
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
