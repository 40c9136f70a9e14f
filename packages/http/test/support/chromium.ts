/**
 * The browser of this machine, for tests of pages: `CHROMIUM_PATH` if it is set, otherwise an installed Chromium or
 * Chrome. Otherwise, as root on Debian or Ubuntu, the distribution's `chromium` is installed.
 */
import { Effect } from "effect"
import * as FileSystem from "node:fs"
import * as Path from "node:path"
import { type Browser, chromium } from "playwright-core"
import * as DebianPackage from "../../../core/src/testing/internal/debianPackage.ts"

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]

const installed = () => {
  const named = process.env["CHROMIUM_PATH"]
  if (named !== undefined && named !== "") return named
  for (const directory of (process.env["PATH"] ?? "").split(Path.delimiter)) {
    for (const name of names) {
      const path = Path.join(directory, name)
      if (FileSystem.existsSync(path)) return path
    }
  }
  return undefined
}

/** The path of the browser, or the reason why there is none. */
export interface Found {
  readonly path?: string
  readonly missing?: string
}

const missing = (why: string): Found => ({
  missing: `No browser to test pages with: ${why}. Install Chromium or Chrome, or set CHROMIUM_PATH.`
})

/** Finds the browser, and installs it if necessary, which takes a minute and is logged. */
export const find: Effect.Effect<Found> = Effect.gen(function* () {
  const path = installed()
  if (path !== undefined) return { path }
  const installable = DebianPackage.installable()
  if (installable !== true) return missing(`there is none on the PATH, and ${installable}`)
  yield* Effect.logInfo("Installing chromium with apt-get, to test pages in a browser")
  yield* DebianPackage.install("chromium")
  const now = installed()
  return now === undefined ? missing("apt-get has installed chromium, and it is not on the PATH") : { path: now }
}).pipe(
  Effect.catch(({ message }) => Effect.succeed(missing(message))),
  Effect.tap((found) => (found.missing === undefined ? Effect.void : Effect.logWarning(found.missing)))
)

/** Launches a browser, which is closed with the scope. */
export const launch = (path: string) =>
  Effect.acquireRelease(
    Effect.promise((): Promise<Browser> =>
      chromium.launch({
        executablePath: path,
        // Chromium has no sandbox for root. It opens only the project's own pages.
        chromiumSandbox: process.getuid?.() !== 0,
        args: ["--disable-gpu", "--disable-dev-shm-usage"],
        timeout: 120_000
      })
    ),
    (browser) => Effect.promise(() => browser.close())
  )
