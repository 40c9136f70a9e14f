/** The programs as bundles: they start in a fifth of the time that their sources take, and they start hundreds of times. */
import { Effect, type Scope } from "effect"
import { buildSync } from "esbuild"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** The folder of the bundles, which is removed when the scope closes. */
export const bundled = (names: ReadonlyArray<string>): Effect.Effect<string, never, Scope.Scope> =>
  Effect.tap(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-amqp-chaos-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    ),
    (outdir) =>
      Effect.sync(() =>
        buildSync({
          entryPoints: names.map((name) => join(import.meta.dirname, "programs", `${name}.ts`)),
          outdir,
          outExtension: { ".js": ".mjs" },
          bundle: true,
          splitting: true,
          platform: "node",
          format: "esm",
          conditions: ["@effect-amqp/source"],
          banner: {
            js: 'import { createRequire as bannerRequire } from "node:module"; const require = bannerRequire(import.meta.url);'
          },
          logLevel: "error"
        })
      )
  )
