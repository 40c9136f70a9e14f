import { join } from "node:path"
import { defineConfig } from "vitest/config"

// Packages are tested from their sources: this condition is the first of each package's `exports`.
const resolve = { conditions: ["@effect-amqp/source"] }

// `npm run test:untouched`: nothing of amqplib is touched, whatever is tested.
const setupFiles =
  process.env["EFFECT_AMQP_UNTOUCHED"] === undefined
    ? []
    : [join(import.meta.dirname, "packages/core/test/support/untouchedAmqplib.ts")]

const project = (name: string) => ({
  resolve,
  ssr: { resolve },
  test: {
    name,
    root: `packages/${name}`,
    include: ["test/**/*.test.ts"],
    setupFiles,
    testTimeout: 30_000,
    hookTimeout: 120_000
  }
})

export default defineConfig({
  test: {
    // One broker for the whole run, started when the first test wants one.
    globalSetup: ["packages/core/src/testing/vitest.ts"],
    projects: [project("core"), project("http"), project("examples")]
  }
})
