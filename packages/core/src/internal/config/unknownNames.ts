/** Refuses names that are not settings, and suggests the name that was meant. */
import type { Draft } from "./draft.ts"
import { isKey, settingOf } from "./settings.ts"
import { formatName } from "./formatValue.ts"
import { closestName } from "./suggestion.ts"

/** The names that are known in one place where names are written. */
export interface KnownNames {
  /** What such a name is called, such as "option". */
  readonly noun: string
  /** All accepted names. */
  readonly known: Iterable<string>
  /** The names to list, if several have the same meaning. */
  readonly listed?: Iterable<string>
  /** What precedes a name to say where it is, such as `pool.` or `?`. */
  readonly prefix?: string
  readonly suffix?: string
}

/** Reports an unknown name. Its value is not shown: it may be a password under a misspelled name. */
export const reportUnknownName = (draft: Draft, names: KnownNames, name: string, value?: unknown): void => {
  // The search for the name that was meant takes time.
  if (draft.report.isFull) return draft.report.name("", names.noun, `an unknown ${names.noun}`, "")
  const { known, listed = known, noun, prefix = "", suffix = "" } = names
  const meant = closestName(name, known)
  const keys = meant === undefined ? [] : [meant, `${prefix}${meant}`].filter(isKey)
  if (keys.some((key) => settingOf(key).decoder.secret)) draft.report.addSecret(value)
  const expected =
    meant === undefined ? `one of ${[...listed].join(", ")}` : `${prefix}${meant}${suffix} (rename or remove it)`
  const written = formatName(name)
  draft.report.name(written, `${prefix}${written}${suffix}`, `an unknown ${noun}`, expected)
}
