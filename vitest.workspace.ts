import { defineConfig } from "vitest/config"

// Packages are tested from their sources: this condition is the first of each package's `exports`.
const resolve = { conditions: ["@effect-amqp/source"] }

const project = (name: string) => ({
  resolve,
  ssr: { resolve },
  test: {
    name,
    root: `packages/${name}`,
    include: ["test/**/*.test.ts"],
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
