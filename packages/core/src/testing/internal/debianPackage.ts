import * as Effect from "effect/Effect"
import * as ChildProcess from "node:child_process"
import * as FileSystem from "node:fs"
import { TestBrokerError } from "../TestBrokerError.ts"
import * as Command from "./command.ts"

const policy = "/usr/sbin/policy-rc.d"

/** Whether the distribution's packages can be installed on this machine, or the reason why not. */
export const installable = (): true | string => {
  if (!FileSystem.existsSync("/etc/debian_version") || !FileSystem.existsSync("/usr/bin/apt-get")) {
    return "this is not Debian or Ubuntu"
  }
  return process.getuid?.() === 0 ? true : "installing a package requires root"
}

// Packages start their service when they are installed, which would be an unwanted broker on the default port. If this
// process is killed before it removes the policy, the policy no longer has an effect.
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
  (isOwn) => Effect.sync(() => isOwn && FileSystem.rmSync(policy, { force: true }))
)

const apt = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const { code, stderr, stdout } = yield* Command.run("/usr/bin/apt-get", ["-o", "DPkg::Lock::Timeout=300", ...args], {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    // Longer than the wait for the lock, and long enough for a slow mirror: a killed installation is incomplete.
    timeout: "15 minutes"
  })
  if (code !== 0) {
    return yield* new TestBrokerError({
      reason: "StartFailed",
      message: `apt-get ${args.join(" ")}: ${(stdout + stderr).trim().slice(-2_000)}`
    })
  }
})

type Apt = typeof apt

/**
 * One installation at a time on this machine: `apt-get update` does not wait for the lock of another one, and the end of
 * an installation removes the policy on which another one relies. The lock ends with this process.
 */
const alone = Effect.acquireRelease(
  Effect.callback<ChildProcess.ChildProcess, TestBrokerError>((resume) => {
    const child = ChildProcess.spawn("flock", ["/etc/debian_version", "sh", "-c", "echo locked; exec cat"], {
      stdio: ["pipe", "pipe", "ignore"]
    })
    const failed = (reason: string) =>
      resume(
        Effect.fail(new TestBrokerError({ reason: "StartFailed", message: `flock before an installation: ${reason}` }))
      )
    child.on("error", (error) => failed(error.message))
    child.on("exit", (code) => failed(`ended with code ${code ?? "none"}`))
    child.stdin.on("error", () => {})
    child.stdout.once("data", () => resume(Effect.succeed(child)))
  }),
  (child) => Effect.sync(() => child.stdin?.end())
)

/**
 * Runs an installation without starting services, when no other one runs. It cannot be interrupted, because an
 * incomplete installation must be repaired by hand.
 */
export const installing = (
  use: (apt: Apt) => Effect.Effect<void, TestBrokerError>
): Effect.Effect<void, TestBrokerError> =>
  Effect.uninterruptible(
    Effect.scoped(
      Effect.gen(function* () {
        yield* alone
        yield* withoutServices
        yield* use(apt)
      })
    )
  )

/** Installs packages of the distribution without starting their services: `rabbitmq-server` in about 15 seconds. */
export const install = (...names: ReadonlyArray<string>): Effect.Effect<void, TestBrokerError> =>
  installing((apt) => Effect.andThen(apt("update"), apt("install", "-y", "--no-install-recommends", ...names)))
