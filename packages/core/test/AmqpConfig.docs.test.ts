/** `docs/configuration.md` agrees with the code. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { keys, settingOf, urlParameters, variables } from "../src/internal/config/settings.ts"

const page = readFileSync(new URL("../../../docs/configuration.md", import.meta.url), "utf8").replaceAll(/ +/g, " ")

// Text in backquotes is code. A row is found by the option in its first cell.
const rowOf = (option: string): string =>
  page.split("\n").find((line) => line.startsWith(`| \`${option}\` |`)) ?? `no row of ${option}`

describe("docs/configuration.md", () => {
  for (const key of keys.filter((key) => key !== "authMechanism")) {
    it(`has a row of ${key}, with its variable, URL parameters and Pika's name`, () => {
      const { env, pika, url } = settingOf(key)
      const row = rowOf(key)
      assert.include(row, `| \`${key}\` |`)
      if (env !== undefined) assert.include(row, `\`AMQP_${env}\``)
      if (pika !== undefined) assert.include(row, `\`${pika}\``)
      if (url === false || env === undefined) return
      for (const name of [env.toLowerCase(), ...(url ?? [])]) {
        if (!/[A-Z]/.test(name)) assert.include(row, `\`${name}\``)
      }
    })
  }

  it("names no variable that does not exist", () => {
    const known = new Set([...variables.keys(), "AMQP_URL", "AMQP_HSOT", "AMQP_USER"])
    for (const [name] of page.matchAll(/(?<![A-Z_])AMQP_[A-Z_]*[A-Z]\b(?!_)/g)) {
      assert.isTrue(known.has(name), name)
    }
  })

  it("names no URL parameter in its tables that does not exist", () => {
    for (const [, cells] of page.matchAll(/^\| `[\w.]+` \| `AMQP_\w+` \| (`[a-z_]+`(?:, `[a-z_]+`)*) \|/gm)) {
      for (const [, name] of (cells ?? "").matchAll(/`([a-z_]+)`/g)) assert.isTrue(urlParameters.has(name ?? ""), name)
    }
  })
})
