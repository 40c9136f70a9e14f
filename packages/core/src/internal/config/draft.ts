/** What was given, before it is known to be right, and what was wrong with it. */
import * as Result from "effect/Result"
import { type AmqpError, fromReason, InvalidConfig } from "../../model/error.ts"
import { exposed, type Form, isUnicode } from "./decoder.ts"
import { type Key, settingOf, type Value } from "./settings.ts"
import { kind, shown } from "./shown.ts"

/** One setting as the user wrote it. */
export interface Given {
  /** Its name, as the user wrote it. */
  readonly setting: string
  readonly value: unknown
  readonly form: Form
  /** Not to be shown, whatever its decoder says of it: it may hold part of a password. */
  readonly quiet?: boolean
}

export type Issue = InvalidConfig["issues"][number]

interface Noted extends Issue {
  /** The user's text that `got` shows, perhaps cut off or escaped. */
  readonly raw?: string
  /** The part of `setting` that the user made up. */
  readonly name?: string
}

const hidden = "<redacted>"

/** How many mistakes are told: nobody mends more at once, and what is given may hold any number. */
const mostMistakes = 100

/** The longest value of one setting, in characters: as long as the largest file of certificates. */
const longestValue = 1024 * 1024

/** Collects every mistake, and every secret, so that none of the first shows any of the second. */
export class Report {
  readonly #noted = new Map<string, Noted>()
  #hasMore = false
  readonly #secrets = new Set<string>()

  /** Remembers a secret in the spellings in which it may turn up elsewhere. */
  keep(value: unknown): void {
    const secret = exposed(value)
    if (secret === undefined || secret === "") return
    this.#secrets.add(secret)
    this.#secrets.add(JSON.stringify(secret).slice(1, -1))
    if (isUnicode(secret)) this.#secrets.add(encodeURIComponent(secret))
  }

  /** A mistake in words of this library. */
  add(setting: string, got: string, wants: string): void {
    this.#note({ setting, got, wants })
  }

  /** A mistake that shows the value, unless a secret is in it. */
  show(setting: string, value: unknown, wants: string, remark = ""): void {
    this.#note({ setting, got: `${shown(value)}${remark}`, wants, raw: String(exposed(value) ?? shown(value)) })
  }

  /** A mistake in something whose `name` the user made up, and which is called `setting`. */
  name(name: string, setting: string, got: string, wants: string): void {
    this.#note({ setting, got, wants, name })
  }

  #note(noted: Noted): void {
    const key = JSON.stringify([noted.setting, noted.got])
    if (this.#noted.has(key)) return
    if (this.isFull) this.#hasMore = true
    else this.#noted.set(key, noted)
  }

  /** How many mistakes there are so far. */
  get size(): number {
    return this.#noted.size
  }

  /** Whether no more mistakes are told. */
  get isFull(): boolean {
    return this.#noted.size >= mostMistakes
  }

  /** Every mistake so far, without secrets. */
  issues(): ReadonlyArray<Issue> {
    const secrets = [...this.#secrets]
    const holdsSecret = (text: string) => secrets.some((secret) => text.includes(secret))
    return Array.from(this.#noted.values(), ({ got, name, raw, setting, wants }) => ({
      setting: name !== undefined && holdsSecret(name) ? setting.replace(name, () => hidden) : setting,
      got: raw !== undefined && holdsSecret(raw) ? hidden : got,
      wants
    }))
  }

  error(): AmqpError {
    const issues = this.issues()
    const lines = issues.map(({ got, setting, wants }) => `${setting}: got ${got}, wants ${wants}`)
    if (this.#hasMore) lines.push("and more")
    const count = issues.length === 1 ? "a mistake" : `${issues.length}${this.#hasMore ? " and more" : ""} mistakes`
    return fromReason(
      new InvalidConfig({ message: `The AMQP configuration has ${count}:\n- ${lines.join("\n- ")}`, issues })
    )
  }
}

/** The settings that were given, by key. */
export class Draft {
  readonly report: Report
  /** What this source calls a setting that is missing. */
  readonly nameOf: (key: Key) => string
  readonly #given = new Map<Key, Given>()
  readonly #read = new Map<Key, unknown>()

  constructor(nameOf: (key: Key) => string, report = new Report()) {
    this.nameOf = nameOf
    this.report = report
  }

  get(key: Key): Given | undefined {
    return this.#given.get(key)
  }

  /** Of several keys, the first that was given. */
  first(keys: Iterable<Key>): Given | undefined {
    for (const key of keys) {
      const given = this.#given.get(key)
      if (given !== undefined) return given
    }
    return undefined
  }

  entries(): Iterable<readonly [Key, Given]> {
    return this.#given.entries()
  }

  /** Adds a setting. The same one twice, under whatever names, is a mistake: neither is known to be meant. */
  give(key: Key, given: Given): void {
    if (settingOf(key).decoder.secret) this.report.keep(given.value)
    const before = this.#given.get(key)
    if (before === undefined) {
      this.#given.set(key, given)
    } else if (before.setting === given.setting) {
      this.report.add(given.setting, "it more than once", "it at most once")
    } else {
      this.report.add(given.setting, `the same setting as ${before.setting} gave`, "one of the two")
    }
  }

  /** Replaces settings by those of another draft. */
  override(other: Draft): void {
    for (const [key, given] of other.entries()) this.#given.set(key, given)
  }

  forget(...keys: ReadonlyArray<Key>): void {
    for (const key of keys) this.#given.delete(key)
  }

  /** The value of a setting: `undefined` if it was not given, or given wrongly, which is reported once. */
  read<K extends Key>(key: K): Value<K> | undefined {
    if (!this.#read.has(key)) this.#read.set(key, this.#decode(key))
    return this.#read.get(key) as Value<K> | undefined
  }

  #decode(key: Key): unknown {
    const given = this.#given.get(key)
    if (given === undefined) return undefined
    const { decoder } = settingOf(key)
    const length = exposed(given.value)?.length ?? 0
    if (length > longestValue) {
      this.report.add(given.setting, `a text of ${length} characters`, `at most ${longestValue} characters`)
      return undefined
    }
    const decoded = decoder.decode(given.value, given.form)
    if (Result.isSuccess(decoded)) return decoded.success
    const quiet = decoder.secret || given.quiet === true
    for (const mistake of decoded.failure) {
      const setting = `${given.setting}${mistake.at ?? ""}`
      if (mistake.named === true)
        this.report.name(mistake.at ?? "", setting, mistake.got ?? kind(mistake.value), mistake.wants)
      else if (mistake.got !== undefined) this.report.add(setting, mistake.got, mistake.wants)
      else if (quiet) this.report.add(setting, kind(given.value), mistake.wants)
      else this.report.show(setting, "value" in mistake ? mistake.value : given.value, mistake.wants)
    }
    return undefined
  }
}
