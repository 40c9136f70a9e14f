// The test files, and what they need.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join, sep } from "node:path"
import { root } from "./dependencies.mjs"

/** Every test file, as a path from the repository's root. */
export const testFiles = () =>
  readdirSync(join(root, "packages"))
    .map((name) => `packages/${name}/test`)
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true }).map((file) => `${folder}/${file.split(sep).join("/")}`)
    )
    .filter((file) => file.endsWith(".test.ts"))

/** Whether a test file needs a real broker. */
export const usesBroker = (file) => /TestBroker|support\/Cluster/.test(readFileSync(join(root, file), "utf8"))
