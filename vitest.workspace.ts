import { join } from "node:path"
import { defineConfig } from "vitest/config"

// Packages are tested from their sources: this condition is the first of each package's `exports`.
const resolve = { conditions: ["@effect-amqp/source"] }

// `npm run test:untouched`: nothing of amqplib is touched, whatever is tested.
const setupFiles =
  process.env["EFFECT_AMQP_UNTOUCHED"] === undefined
    ? []
    : [join(import.meta.dirname, "packages/core/test/support/untouchedAmqplib.ts")]

// A test that waits for an event bounds that wait itself. This only ends a test that hangs: on two cores that run the
// suite on two brokers at once, tests of 5 seconds take 30. Coverage makes code with many small functions several times
// slower.
const testTimeout = process.argv.includes("--coverage") ? 180_000 : 90_000

const project = (name: string) => ({
  resolve,
  ssr: { resolve },
  test: {
    name,
    root: `packages/${name}`,
    include: ["test/**/*.test.ts"],
    setupFiles,
    testTimeout,
    hookTimeout: 120_000
  }
})

export default defineConfig({
  test: {
    // `npm run coverage`. Nothing depends on a figure.
    coverage: {
      provider: "v8",
      include: ["packages/*/src/**/*.ts"],
      exclude: ["**/*.generated.ts", "packages/examples/**"],
      reporter: ["text", "html", "json-summary"],
      reportsDirectory: "coverage",
      // A bound that fails under this load hides no figure.
      reportOnFailure: true
    },
    // One broker for the whole run, started when the first test wants one.
    globalSetup: ["packages/core/src/testing/vitest.ts"],
    projects: [
      project("core"),
      project("http"),
      project("sql"),
      project("cli"),
      project("platform"),
      project("examples")
    ]
  }
})
