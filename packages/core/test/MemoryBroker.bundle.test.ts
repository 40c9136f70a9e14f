/** The memory broker is for tests: an application's bundle has nothing of it. */
import { assert, it } from "@effect/vitest"
import { build } from "esbuild"
import { Effect } from "effect"
import { join } from "node:path"

const inputsOf = (entry: string) =>
  Effect.promise(async () => {
    const { metafile } = await build({
      entryPoints: [join(import.meta.dirname, "..", entry)],
      bundle: true,
      write: false,
      metafile: true,
      platform: "node",
      format: "esm",
      packages: "external",
      logLevel: "silent"
    })
    return Object.keys(metafile.inputs).filter((path) => path.includes("src/testing/"))
  })

it.effect("nothing of the testing folder is imported by the entry of applications", () =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* inputsOf("src/index.ts"), [])
    // The check finds it where it is.
    assert.include((yield* inputsOf("src/testing/index.ts")).join(), "internal/memory/model/broker.ts")
  })
)
