import * as Effect from "effect/Effect"
import * as FileSystem from "node:fs"
import { TestBrokerError } from "../TestBrokerError.ts"
import * as Command from "./command.ts"

const policy = "/usr/sbin/policy-rc.d"

/** Whether the distribution's packages can be installed here, or the reason why not. */
export const installable = (): true | string => {
  if (!FileSystem.existsSync("/etc/debian_version") || !FileSystem.existsSync("/usr/bin/apt-get")) {
    return "this is not Debian or Ubuntu"
  }
  return process.getuid?.() === 0 ? true : "installing a package takes root"
}

// Packages start their service when installed, which would be a broker that nobody asked for on the default port. Should
// we be killed before we take the policy away, it has no effect any more.
const policyText = `#!/bin/sh
kill -0 ${process.pid} 2>/dev/null && exit 101
rm -f "$0"
exit 0
`

const withoutServices = Effect.acquireRelease(
  Effect.sync(() => {
    if (FileSystem.existsSync(policy)) return false
    FileSystem.writeFileSync(policy, policyText, { mode: 0o755 })
    return true
  }),
  (ours) => Effect.sync(() => ours && FileSystem.rmSync(policy, { force: true }))
)

const apt = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const { code, stderr, stdout } = yield* Command.run("/usr/bin/apt-get", ["-o", "DPkg::Lock::Timeout=300", ...args], {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    // Above the wait for the lock, and long enough for a slow mirror: a killed installation is half of one.
    timeout: "15 minutes"
  })
  if (code !== 0) {
    return yield* new TestBrokerError({
      reason: "StartFailed",
      message: `apt-get ${args.join(" ")}: ${(stdout + stderr).trim().slice(-2_000)}`
    })
  }
})

/**
 * Installs packages of the distribution, without starting their services: `rabbitmq-server` in about 15 seconds. Cannot be
 * interrupted: half an installation has to be repaired by hand.
 */
export const install = (...names: ReadonlyArray<string>): Effect.Effect<void, TestBrokerError> =>
  Effect.uninterruptible(
    Effect.scoped(
      Effect.gen(function* () {
        yield* withoutServices
        yield* apt("update")
        yield* apt("install", "-y", "--no-install-recommends", ...names)
      })
    )
  )
