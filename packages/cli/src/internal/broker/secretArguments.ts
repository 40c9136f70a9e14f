/**
 * Refuses secrets in arguments: other users of the machine see them in the list of processes, and the shell keeps them
 * in its history.
 */
import { type Failure, usage } from "../failure.ts"

const reason =
  "Arguments are visible to every user of this machine and stay in the shell's history. Nothing was done, and the secret should be replaced."

const cure =
  "Leave it out, and set AMQP_PASSWORD, or the whole URL as AMQP_URL, in the environment or in a file for --env. In a terminal, a missing password is asked for."

const parameters = /[?&](?:tls_?passphrase|tls_?key|password|passphrase|ssl_options)=/i

/** Why these arguments are refused. The sentence never contains the argument. */
export const secretIn = (args: ReadonlyArray<string>): Failure | undefined => {
  for (const [i, arg] of args.entries()) {
    if (arg === "--") break
    if (/^--?(?:p|pass|passwd|password)(?:=|$)/i.test(arg)) {
      return usage(`${arg.split("=")[0]}: a password is not accepted as an argument. ${reason}`, cure)
    }
    const isOurs = /^--url(?:=|$)/.test(arg) || args[i - 1] === "--url"
    const url = isOurs && arg.startsWith("--url=") ? arg.slice("--url=".length) : arg
    // A URL without `--url` is a mistake on every command but publish, and carries the same secret.
    if (!isOurs && !/^amqps?:\/\//i.test(arg)) continue
    // Up to the last `@`: a password may contain one, or a slash, without its percent-encoding.
    const scheme = url.indexOf("://")
    const authority = scheme === -1 ? url : url.slice(scheme + 3)
    const user = authority.slice(0, Math.max(0, authority.lastIndexOf("@")))
    if (user.includes(":") || parameters.test(url)) {
      return usage(`The URL in the arguments contains a secret. ${reason}`, cure)
    }
  }
  return undefined
}
