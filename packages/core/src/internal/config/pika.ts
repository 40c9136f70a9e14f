/** Pika's spellings: the dicts in its URLs, and the records of Flask-Pika. */
import type { Draft } from "./draft.ts"
import { parseLiteral } from "./literal.ts"
import { reportUnknownName } from "./unknownNames.ts"
import { readFields } from "./options.ts"
import { type Key, pikaParameters } from "./settings.ts"
import { describeType } from "./formatValue.ts"

type Fields = Readonly<Record<string, unknown>>

const isRecord = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

// These are the names in Python's `ssl` module and in Pika.
const sslFields: ReadonlyMap<string, Key> = new Map<string, Key>([
  ["ca_certs", "tls.caFile"],
  ["cafile", "tls.caFile"],
  ["ca_data", "tls.ca"],
  ["cadata", "tls.ca"],
  ["certfile", "tls.certFile"],
  ["keyfile", "tls.keyFile"],
  ["password", "tls.passphrase"],
  ["server_hostname", "tls.servername"],
  ["ciphers", "tls.ciphers"]
])

interface Rule {
  readonly allows: ReadonlyArray<unknown>
  readonly expected: string
}

const verification = "(only tls.verify, or tls_verify=false, switches verification off)"

/**
 * Fields of `ssl_options` that are accepted only with values that change nothing. The constants are those of Python's
 * `ssl`.
 */
const sslRules: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ["cert_reqs", { allows: [1, 2, "CERT_OPTIONAL", "CERT_REQUIRED"], expected: `2, CERT_REQUIRED ${verification}` }],
  ["check_hostname", { allows: [true], expected: `True ${verification}` }],
  // PROTOCOL_TLS, PROTOCOL_TLSv1_2, PROTOCOL_TLS_CLIENT: the versions that they share with this library are TLS 1.2 and
  // later.
  ["ssl_version", { allows: [2, 5, 16], expected: "2, 5 or 16: TLS 1.2 or later" }],
  ["protocol", { allows: [2, 5, 16], expected: "2, 5 or 16: TLS 1.2 or later" }],
  ["server_side", { allows: [false], expected: "False" }],
  ["do_handshake_on_connect", { allows: [true], expected: "True" }],
  ["suppress_ragged_eofs", { allows: [true, false], expected: "True or False" }],
  ["ca_path", { allows: [], expected: "a file (ca_certs), because Node cannot read a directory of certificates" }],
  ["capath", { allows: [], expected: "a file (ca_certs), because Node cannot read a directory of certificates" }]
])

const readDict = (draft: Draft, setting: string, value: unknown): Fields | undefined => {
  const dict = typeof value === "string" ? parseLiteral(value) : value
  if (dict === null) return undefined
  if (isRecord(dict)) return dict
  // The text may contain the passphrase of a key.
  draft.report.add(setting, describeType(value), "a Python dict or JSON object, or None")
  return undefined
}

/** Reads `ssl_options`. In a URL it requires amqps. In a record of Flask-Pika it switches TLS on, as in Pika. */
export const readSslOptions = (draft: Draft, setting: string, value: unknown): void => {
  const options = readDict(draft, setting, value)
  if (options === undefined) return
  const prefix = `${setting} `
  const rest: Record<string, unknown> = Object.create(null)
  for (const [name, field] of Object.entries(options)) {
    const rule = sslRules.get(name)
    if (rule === undefined) rest[name] = field
    else if (field !== null && !rule.allows.includes(field))
      draft.report.addWithValue(prefix + name, field, rule.expected)
  }
  readFields(draft, rest, sslFields, "text", prefix)
}

// Node cannot set these. The library's heartbeats and timeouts serve the same purpose.
const ignoredTcpOptions = ["TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"]

/** Reads `tcp_options`. Pika switches keep-alive on if any of them is set. */
export const readTcpOptions = (draft: Draft, setting: string, value: unknown): void => {
  const options = readDict(draft, setting, value)
  if (options === undefined) return
  const expected = "an integer above 0"
  for (const [name, field] of Object.entries(options)) {
    const label = `${setting} ${name}`
    if (name === "TCP_KEEPIDLE") {
      draft.set("tcp.keepAliveDelay", { setting: label, value: field, form: "pika" })
      draft.set("tcp.keepAlive", { setting: label, value: true, form: "plain" })
    } else if (!ignoredTcpOptions.includes(name)) {
      reportUnknownName(
        draft,
        { noun: "option", known: ["TCP_KEEPIDLE", ...ignoredTcpOptions], prefix: `${setting} ` },
        name,
        field
      )
    } else if (typeof field !== "number" || !Number.isSafeInteger(field) || field < 1) {
      draft.report.addWithValue(label, field, expected)
    }
  }
}

/** Marks missing fields that Flask-Pika requires as given, so that no default fills them in. */
const requireFields = (draft: Draft, record: Fields, ...required: ReadonlyArray<readonly [string, Key]>): void => {
  for (const [name, key] of required) {
    if ((record[name] ?? undefined) === undefined) draft.set(key, { setting: name, value: undefined, form: "pika" })
  }
}

/**
 * Reads Flask-Pika's two records: `FLASK_PIKA_PARAMS`, which it passes to Pika's ConnectionParameters, and the pool's.
 */
export const readFlaskPika = (draft: Draft, parameters: unknown, pool: unknown): void => {
  if (isRecord(parameters)) {
    const { ssl_options: ssl, tcp_options: tcp, ...fields } = parameters
    readFields(draft, fields, pikaParameters, "pika")
    requireFields(draft, fields, ["username", "username"], ["password", "password"])
    if (ssl !== undefined && ssl !== null) {
      draft.set("tls", { setting: "ssl_options", value: true, form: "plain" })
      readSslOptions(draft, "ssl_options", ssl)
    }
    if (tcp !== undefined) readTcpOptions(draft, "tcp_options", tcp)
  } else {
    draft.report.add(
      "parameters",
      describeType(parameters),
      "an object with host, port, virtual_host, username and password"
    )
  }
  if (pool === undefined || pool === null) return draft.set("pool", { setting: "pool", value: false, form: "plain" })
  const fields = new Map<string, Key>([
    ["pool_size", "pool.max"],
    ["pool_recycle", "pool.recycle"]
  ])
  if (!isRecord(pool))
    return draft.report.add("pool", describeType(pool), "an object with pool_size and pool_recycle, or nothing")
  readFields(draft, pool, fields, "pika")
  requireFields(draft, pool, ...fields)
}
