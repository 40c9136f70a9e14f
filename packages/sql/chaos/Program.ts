/** A program in a process of its own, which is started again whenever it has died. */
import { Effect, Latch, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { environment } from "../../core/test/support/environment.ts"

/** Something that can be killed, and comes back. */
export interface Target {
  readonly name: string
  /** Completes when it does its work. */
  readonly ready: Effect.Effect<void>
  /** Kills it with SIGKILL, waits for its end, and starts it again after a pause in milliseconds. */
  readonly kill9: (pause: number) => Effect.Effect<void>
  /** What it said last, for a run that does not end. */
  readonly lastWords: string
}

export interface ProgramOptions {
  readonly name: string
  /** The file of a bundle, and its arguments. */
  readonly command: ReadonlyArray<string>
  /** The seed is for the process of this number, counted from 0. */
  readonly env: (start: number) => Readonly<Record<string, string>>
  readonly onLine: (line: string) => void
}

/** From the end of a program that was not killed by this one to its next start, in milliseconds. */
const ownPause = 100

export class Program implements Target {
  readonly name: string
  /** Ends that were not caused by this program. */
  ownDeaths = 0
  lastWords = ""
  readonly #options: ProgramOptions
  readonly #running = Latch.makeUnsafe()
  readonly #ready = Latch.makeUnsafe()
  #child: ChildProcess | undefined
  #ended: Promise<void> = Promise.resolve()
  #starts = 0
  #input = ""
  #pause = ownPause
  #isKilled = false
  #isStopping = false
  #timer: NodeJS.Timeout | undefined

  constructor(options: ProgramOptions) {
    this.#options = options
    this.name = options.name
  }

  get ready(): Effect.Effect<void> {
    return this.#ready.await
  }

  /** Writes a line to it, which also the processes after this one get. */
  write(line: string): void {
    this.#input = `${line}\n`
    this.#child?.stdin?.write(this.#input)
  }

  start(): void {
    const child = spawn(process.execPath, this.#options.command, {
      env: { ...environment(), ...this.#options.env(this.#starts++) },
      stdio: ["pipe", "pipe", "pipe"]
    })
    this.#child = child
    this.#running.openUnsafe()
    this.#isKilled = false
    this.#pause = ownPause
    // A process that has just been killed does not read.
    child.stdin.on("error", () => {})
    child.stdin.write(this.#input)
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (line !== "ready") this.#options.onLine(line)
      else if (!this.#isKilled) this.#ready.openUnsafe()
    })
    child.stderr.on("data", (bytes) => {
      this.lastWords = (this.lastWords + String(bytes)).slice(-4000)
    })
    this.#ended = new Promise((resolve) => {
      child.once("close", () => {
        this.#running.closeUnsafe()
        this.#ready.closeUnsafe()
        this.#child = undefined
        if (!this.#isStopping) {
          if (!this.#isKilled) this.ownDeaths++
          this.#timer = setTimeout(() => this.start(), this.#pause)
        }
        resolve()
      })
    })
  }

  kill9(pause: number): Effect.Effect<void> {
    // Between its end and its next start there is nothing to kill.
    return Effect.andThen(
      this.#running.await,
      Effect.promise(() => {
        this.#ready.closeUnsafe()
        this.#pause = pause
        this.#isKilled = true
        this.#child?.kill("SIGKILL")
        return this.#ended
      })
    )
  }

  /** Ends it for good: in order, with SIGTERM, or at once. */
  end(signal: "SIGTERM" | "SIGKILL"): Effect.Effect<void> {
    return Effect.promise(() => {
      this.#isStopping = true
      clearTimeout(this.#timer)
      this.#child?.kill(signal)
      return this.#ended
    })
  }
}

/** Starts a program. It is killed when the scope closes. */
export const start = (options: ProgramOptions): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const program = new Program(options)
      program.start()
      return program
    }),
    (program) => program.end("SIGKILL")
  )
