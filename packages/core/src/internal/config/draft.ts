/** The settings as they were given, before they are validated, and the mistakes that were found in them. */
import * as Result from "effect/Result"
import { type AmqpError, fromReason, InvalidConfig } from "../../model/error.ts"
import { unredact, type Form, isUnicode } from "./decoder.ts"
import { type Key, settingOf, type Value } from "./settings.ts"
import { describeType, formatValue } from "./formatValue.ts"

/** One setting as the user gave it. */
export interface Given {
  /** The setting's name, as the user wrote it. */
  readonly setting: string
  readonly value: unknown
  readonly form: Form
  /** Whether the value must not be shown although its decoder is not secret: it may contain part of a password. */
  readonly isSensitive?: boolean
}

export type Issue = InvalidConfig["issues"][number]

interface ReportedIssue extends Issue {
  /** The user's text that `got` shows, perhaps truncated or escaped. */
  readonly raw?: string
  /** The part of `setting` that the user chose. */
  readonly name?: string
}

const hidden = "<redacted>"

/** Maximum number of reported mistakes. A longer list does not help the user, and the input may contain any number. */
const maxIssues = 100

/** Maximum length of the value of one setting, in characters: the size of the largest accepted file of certificates. */
const maxValueLength = 1024 * 1024

/** Collects every mistake and every secret, so that no mistake shows a secret. */
export class Report {
  readonly #noted = new Map<string, ReportedIssue>()
  #hasMore = false
  readonly #secrets = new Set<string>()

  /** Remembers a secret in the spellings in which it can appear elsewhere. */
  addSecret(value: unknown): void {
    const secret = unredact(value)
    if (secret === undefined || secret === "") return
    this.#secrets.add(secret)
    this.#secrets.add(JSON.stringify(secret).slice(1, -1))
    if (isUnicode(secret)) this.#secrets.add(encodeURIComponent(secret))
  }

  /** Adds a mistake that is described in the library's own words. */
  add(setting: string, got: string, expected: string): void {
    this.#note({ setting, got, expected })
  }

  /** Adds a mistake that shows the value, unless the value contains a secret. */
  addWithValue(setting: string, value: unknown, expected: string, remark = ""): void {
    this.#note({
      setting,
      got: `${formatValue(value)}${remark}`,
      expected,
      raw: String(unredact(value) ?? formatValue(value))
    })
  }

  /** Adds a mistake in a setting whose `name` the user chose. `setting` contains that name. */
  name(name: string, setting: string, got: string, expected: string): void {
    this.#note({ setting, got, expected, name })
  }

  #note(noted: ReportedIssue): void {
    const key = JSON.stringify([noted.setting, noted.got])
    if (this.#noted.has(key)) return
    if (this.isFull) this.#hasMore = true
    else this.#noted.set(key, noted)
  }

  /** Number of mistakes so far. */
  get size(): number {
    return this.#noted.size
  }

  /** Whether further mistakes are not recorded. */
  get isFull(): boolean {
    return this.#noted.size >= maxIssues
  }

  /** Returns every mistake so far, without secrets. */
  issues(): ReadonlyArray<Issue> {
    const secrets = [...this.#secrets]
    const holdsSecret = (text: string) => secrets.some((secret) => text.includes(secret))
    return Array.from(this.#noted.values(), ({ got, name, raw, setting, expected }) => ({
      setting: name !== undefined && holdsSecret(name) ? setting.replace(name, () => hidden) : setting,
      got: raw !== undefined && holdsSecret(raw) ? hidden : got,
      expected
    }))
  }

  error(): AmqpError {
    const issues = this.issues()
    const lines = issues.map(({ got, setting, expected }) => `${setting}: expected ${expected}, got ${got}`)
    if (this.#hasMore) lines.push("more mistakes, which are not listed")
    const count = issues.length === 1 ? "a mistake" : `${this.#hasMore ? "more than " : ""}${issues.length} mistakes`
    return fromReason(
      new InvalidConfig({ message: `The AMQP configuration has ${count}:\n- ${lines.join("\n- ")}`, issues })
    )
  }
}

/** The settings that were given, by key. */
export class Draft {
  readonly report: Report
  /** Returns this source's name for a setting that is missing. */
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

  /** Returns the setting of the first of these keys that was given. */
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

  /**
   * Adds a setting. A setting that is given twice, under whatever names, is a mistake: which of the two is meant is
   * unknown.
   */
  set(key: Key, given: Given): void {
    if (settingOf(key).decoder.secret) this.report.addSecret(given.value)
    const before = this.#given.get(key)
    if (before === undefined) {
      this.#given.set(key, given)
    } else if (before.setting === given.setting) {
      this.report.add(given.setting, "more than one value", "one value")
    } else {
      const expected = `either ${before.setting} or ${given.setting} (they are the same setting)`
      this.report.add(given.setting, "both", expected)
    }
  }

  /** Replaces settings with those of another draft. */
  override(other: Draft): void {
    for (const [key, given] of other.entries()) this.#given.set(key, given)
  }

  forget(...keys: ReadonlyArray<Key>): void {
    for (const key of keys) this.#given.delete(key)
  }

  /**
   * Returns the value of a setting, or `undefined` if it was not given or is invalid. An invalid value is reported
   * once.
   */
  read<K extends Key>(key: K): Value<K> | undefined {
    if (!this.#read.has(key)) this.#read.set(key, this.#decode(key))
    return this.#read.get(key) as Value<K> | undefined
  }

  #decode(key: Key): unknown {
    const given = this.#given.get(key)
    if (given === undefined) return undefined
    const { decoder } = settingOf(key)
    const length = unredact(given.value)?.length ?? 0
    if (length > maxValueLength) {
      this.report.add(given.setting, `a string of ${length} characters`, `at most ${maxValueLength} characters`)
      return undefined
    }
    const decoded = decoder.decode(given.value, given.form)
    if (Result.isSuccess(decoded)) return decoded.success
    const quiet = decoder.secret || given.isSensitive === true
    for (const mistake of decoded.failure) {
      const setting = `${given.setting}${mistake.at ?? ""}`
      if (mistake.named === true)
        this.report.name(mistake.at ?? "", setting, mistake.got ?? describeType(mistake.value), mistake.expected)
      else if (mistake.got !== undefined) this.report.add(setting, mistake.got, mistake.expected)
      else if (quiet) this.report.add(setting, describeType(given.value), mistake.expected)
      else this.report.addWithValue(setting, "value" in mistake ? mistake.value : given.value, mistake.expected)
    }
    return undefined
  }
}
