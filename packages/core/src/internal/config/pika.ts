/** Pika's own words: the dicts in its URLs, and the records of Flask-Pika. */
import type { Draft } from "./draft.ts"
import { parseLiteral } from "./literal.ts"
import { refuseName } from "./names.ts"
import { readFields } from "./options.ts"
import { type Key, pikaParameters } from "./settings.ts"
import { kind } from "./shown.ts"

type Fields = Readonly<Record<string, unknown>>

const isRecord = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

// Python's `ssl` module and Pika call these so.
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
  readonly wants: string
}

const verification = "verification is switched off by tls.verify (tls_verify=false) alone"

/** Fields of `ssl_options` that may only say what holds anyway. Constants are those of Python's `ssl`. */
const sslRules: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ["cert_reqs", { allows: [1, 2, "CERT_OPTIONAL", "CERT_REQUIRED"], wants: `2 (CERT_REQUIRED); ${verification}` }],
  ["check_hostname", { allows: [true], wants: `True; ${verification}` }],
  // PROTOCOL_TLS, PROTOCOL_TLSv1_2, PROTOCOL_TLS_CLIENT: what they have in common with this library is TLS 1.2 and up.
  ["ssl_version", { allows: [2, 5, 16], wants: "2, 5 or 16: TLS 1.2 or later" }],
  ["protocol", { allows: [2, 5, 16], wants: "2, 5 or 16: TLS 1.2 or later" }],
  ["server_side", { allows: [false], wants: "False" }],
  ["do_handshake_on_connect", { allows: [true], wants: "True" }],
  ["suppress_ragged_eofs", { allows: [true, false], wants: "True or False" }],
  ["ca_path", { allows: [], wants: "a file (ca_certs): Node reads no directory of certificates" }],
  ["capath", { allows: [], wants: "a file (ca_certs): Node reads no directory of certificates" }]
])

const readDict = (draft: Draft, setting: string, value: unknown): Fields | undefined => {
  const dict = typeof value === "string" ? parseLiteral(value) : value
  if (dict === null) return undefined
  if (isRecord(dict)) return dict
  // The text may hold the passphrase of a key.
  draft.report.add(setting, kind(value), "a Python dict or JSON object, or None")
  return undefined
}

/** `ssl_options`. In a URL it goes with amqps; in a record of Flask-Pika it switches TLS on, as in Pika. */
export const readSslOptions = (draft: Draft, setting: string, value: unknown): void => {
  const options = readDict(draft, setting, value)
  if (options === undefined) return
  const prefix = `${setting} `
  const rest: Record<string, unknown> = Object.create(null)
  for (const [name, field] of Object.entries(options)) {
    const rule = sslRules.get(name)
    if (rule === undefined) rest[name] = field
    else if (field !== null && !rule.allows.includes(field)) draft.report.show(prefix + name, field, rule.wants)
  }
  readFields(draft, rest, sslFields, "text", prefix)
}

// Node sets neither: its heartbeats and timeouts do what these are for.
const tcpWithoutEffect = ["TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"]

/** `tcp_options`. Pika switches keep-alive on for whoever sets any of them. */
export const readTcpOptions = (draft: Draft, setting: string, value: unknown): void => {
  const options = readDict(draft, setting, value)
  if (options === undefined) return
  const wants = "a whole number above 0"
  for (const [name, field] of Object.entries(options)) {
    const label = `${setting} ${name}`
    if (name === "TCP_KEEPIDLE") {
      draft.give("tcp.keepAliveDelay", { setting: label, value: field, form: "pika" })
      draft.give("tcp.keepAlive", { setting: label, value: true, form: "plain" })
    } else if (!tcpWithoutEffect.includes(name)) {
      refuseName(
        draft,
        { noun: "option", known: ["TCP_KEEPIDLE", ...tcpWithoutEffect], prefix: `${setting} ` },
        name,
        field
      )
    } else if (typeof field !== "number" || !Number.isSafeInteger(field) || field < 1) {
      draft.report.show(label, field, wants)
    }
  }
}

/** What Flask-Pika requires is not for the defaults to fill in. */
const require = (draft: Draft, record: Fields, ...required: ReadonlyArray<readonly [string, Key]>): void => {
  for (const [name, key] of required) {
    if ((record[name] ?? undefined) === undefined) draft.give(key, { setting: name, value: undefined, form: "pika" })
  }
}

/** Flask-Pika's two records: `FLASK_PIKA_PARAMS`, which it hands to Pika's ConnectionParameters, and the pool's. */
export const readFlaskPika = (draft: Draft, parameters: unknown, pool: unknown): void => {
  if (isRecord(parameters)) {
    const { ssl_options: ssl, tcp_options: tcp, ...fields } = parameters
    readFields(draft, fields, pikaParameters, "pika")
    require(draft, fields, ["username", "username"], ["password", "password"])
    if (ssl !== undefined && ssl !== null) {
      draft.give("tls", { setting: "ssl_options", value: true, form: "plain" })
      readSslOptions(draft, "ssl_options", ssl)
    }
    if (tcp !== undefined) readTcpOptions(draft, "tcp_options", tcp)
  } else {
    draft.report.add("parameters", kind(parameters), "an object of host, port, virtual_host, username and password")
  }
  if (pool === undefined || pool === null) return draft.give("pool", { setting: "pool", value: false, form: "plain" })
  const fields = new Map<string, Key>([
    ["pool_size", "pool.max"],
    ["pool_recycle", "pool.recycle"]
  ])
  if (!isRecord(pool))
    return draft.report.add("pool", kind(pool), "an object of pool_size and pool_recycle, or nothing")
  readFields(draft, pool, fields, "pika")
  require(draft, pool, ...fields)
}
