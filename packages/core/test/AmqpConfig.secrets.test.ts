/** No secret is printed: not with any mistake, and not by a configuration. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConfig, type AmqpError } from "@effect-amqp/core"
import { Cause, type Config, Effect, Exit, Redacted, Schema } from "effect"
import { inspect } from "node:util"
import {
  certificate,
  encryptedKey,
  fromEnvironment,
  key,
  otherKey,
  passphrase,
  pemFile,
  untyped
} from "./AmqpConfig.fixtures.ts"

type Failing = Effect.Effect<AmqpConfig.AmqpConfig, AmqpError.AmqpError | Config.ConfigError>

/** Everything that a program can print of a value. */
const prints = (value: unknown): string =>
  [
    String(value),
    JSON.stringify(value),
    inspect(value, { depth: 20, showHidden: true, getters: true }),
    value instanceof Error ? `${value.message} ${value.stack}` : ""
  ].join("\n")

const printsOfExit = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.isSuccess(exit)
    ? prints(exit.value)
    : [prints(exit), prints(exit.cause), Cause.pretty(exit.cause), ...Cause.prettyErrors(exit.cause).map(prints)]
        .concat(exit.cause.reasons.map((reason) => prints(reason._tag === "Fail" ? reason.error : reason)))
        .join("\n")

const assertAbsent = (text: string, ...words: ReadonlyArray<string>) => {
  for (const word of words) assert.notInclude(text.toLowerCase(), word.toLowerCase())
}

/** The effect fails, and nothing that it prints contains the words. */
const keepsQuiet = (effect: Failing, ...words: ReadonlyArray<string>) =>
  Effect.map(Effect.exit(effect), (exit) => {
    assert.isTrue(Exit.isFailure(exit))
    assertAbsent(printsOfExit(exit), ...words)
  })

// If the password is cut at any special character, a word remains that no message contains.
const canary = "c4n4ry"
const finch = "f1nch"

describe("a failing configuration prints no password", () => {
  const login = { username: "alice", password: canary }
  const elsewhere: Record<string, unknown> = {
    "a bad port": { ...login, port: 0 },
    "an unknown option": { ...login, foo: 1 },
    "the password as host": { ...login, host: `${canary}!` },
    "the password in hosts": { ...login, hosts: [`${canary}!`, `a:${canary}`, { host: `${canary}!` }] },
    "a URL as host": { host: `amqp://alice:${canary}@rabbit` },
    "a URL as virtual host": { ...login, port: 0, vhost: `amqp://alice:${canary}@rabbit` },
    "the password as heartbeat": { ...login, heartbeat: canary },
    "a Redacted as heartbeat": { ...login, heartbeat: Redacted.make(canary) },
    "the password, escaped, as heartbeat": {
      username: "alice",
      password: `${canary} "${finch}`,
      heartbeat: `${canary}%20%22${finch}`,
      retryDelay: `${canary} \\"${finch}`
    },
    "the password as a number elsewhere": { username: "a", password: "912873645", port: 912_873_645 },
    "the password as locale, too long": { ...login, locale: `${"x".repeat(50)}${canary}${"x".repeat(250)}` },
    "the password as the name of an option": { ...login, [canary]: 1 },
    "the password as the name of a field": { ...login, pool: { [canary]: 1 }, tls: { [canary]: 1 } },
    "the password as the name of a client property": { ...login, clientProperties: { [canary]: () => 1 } },
    "the password as a client property": { ...login, clientProperties: { x: () => canary, y: canary } },
    "the password as a path": { ...login, tls: { caFile: `/nowhere/${canary}` } },
    "the password as ciphers": { ...login, tls: { ciphers: canary } },
    "the password as a server name": { ...login, tls: { servername: `${canary}!` } },
    "the password as PEM": { ...login, tls: { ca: canary, cert: canary, key: canary } },
    "a misspelt password": { username: "alice", pasword: canary },
    "a misspelt password, and again": { username: "alice", pasword: canary, host: `${canary}!` },
    "a password without a user": { password: canary },
    "a password for EXTERNAL": { credentials: { _tag: "External", password: canary } },
    "a password twice": { ...login, credentials: { _tag: "Plain", username: "a", password: canary } },
    "a wrong tag": { credentials: { _tag: canary, password: canary } },
    "a misspelt field of credentials": {
      host: `${canary}!`,
      credentials: { _tag: "Plain", username: "a", passwrd: canary }
    },
    "credentials that are a text": { credentials: canary },
    "a password that is an array": { username: "alice", password: [canary] },
    "a password that is an object": { username: "alice", password: { [canary]: canary } },
    "a password that is bytes": { username: "alice", password: Buffer.from(canary) },
    "a password that is a function": { username: "alice", password: () => canary },
    "a password that is an error": { username: "alice", password: new Error(canary) },
    "a password with NUL": { username: "alice", password: `${canary}\0${finch}` },
    "a password with half a character": { username: "alice", password: `${canary}\ud800${finch}` },
    "a Redacted of an object": { username: "alice", password: Redacted.make({ canary }) },
    "a Redacted with a label": { username: "alice", password: Redacted.make("", { label: "x" }), foo: canary },
    "a passphrase that opens nothing": { tls: { cert: certificate, key: encryptedKey, passphrase: canary } },
    "a passphrase without a key": { tls: { passphrase: canary } },
    "options that are a URL": `amqp://alice:${canary}@rabbit`
  }
  for (const [name, options] of Object.entries(elsewhere)) {
    it.effect(name, () => keepsQuiet(AmqpConfig.make(untyped(options)), canary, finch, "912873645"))
  }

  it.effect("a private key is not printed either", () =>
    Effect.gen(function* () {
      const words = [key, otherKey, encryptedKey].map((pem) => pem.split("\n")[1] ?? "")
      for (const tls of [
        { cert: certificate, key: otherKey },
        { cert: key, key },
        { ca: key, key: otherKey },
        { ca: certificate + key },
        { key },
        { cert: certificate, key: encryptedKey, passphrase: "wrong" },
        { cert: certificate, key: encryptedKey },
        { keyFile: key, certFile: key, servername: key }
      ]) {
        yield* keepsQuiet(AmqpConfig.make({ tls }), ...words)
      }
    })
  )
})

describe("a failing URL prints no part of its password", () => {
  const tails = ["@rabbit/shop?heartbeat=x&foo=1&pool_size=0", "@rabbit", "@", "", "@rabbit:0/a/b", "@a b"]
  for (const special of ["", ..."@/:#?%&=+ !$'()*,;[]{}|\\^`<>\"~é\u0001\ud800", "%zz", "%2F", "://"]) {
    it.effect(`with ${JSON.stringify(special)} in it, unescaped, wherever the URL goes wrong`, () =>
      Effect.gen(function* () {
        for (const start of [
          "amqp://alice:",
          "amqps://alice:",
          "amqp:/alice:",
          "amqp:alice:",
          "alice:",
          "http://a:",
          "://"
        ]) {
          for (const tail of tails) {
            for (const url of [
              `${start}${canary}${special}${finch}${tail}`,
              `${start}${canary}${special}${finch}9${tail}`
            ]) {
              for (const read of [
                AmqpConfig.fromUrl(url),
                AmqpConfig.fromUrl(Redacted.make(url), untyped({ foo: 1 })),
                fromEnvironment({ AMQP_URL: url, AMQP_POOL_SIZE: "0" })
              ]) {
                const exit = yield* Effect.exit(read as Failing)
                // A URL that is valid as it stands is accepted, even if another one was meant.
                if (Exit.isFailure(exit)) assertAbsent(printsOfExit(exit), canary, finch)
              }
            }
          }
        }
      })
    )
  }

  it.effect.prop(
    "whatever its text is, escaped, in a URL with mistakes that repeat it",
    { middle: Schema.String.check(Schema.isMaxLength(10)) },
    Effect.fnUntraced(function* ({ middle }) {
      if (/\p{Surrogate}/u.test(middle)) return
      const password = encodeURIComponent(`${canary}${middle}${finch}`)
      const repeated = `heartbeat=${password}&${password}=1&${password}&locale=${password.repeat(9)}&foo=${password}`
      const url = `amqp://alice:${password}@rabbit:0/${password}/?${repeated}`
      const exit = yield* Effect.exit(AmqpConfig.fromUrl(url))
      assert.isTrue(Exit.isFailure(exit))
      assertAbsent(printsOfExit(exit), canary, finch)
    })
  )

  const queries = [
    `ssl_options={'password':'${canary}','keyfile':'/nowhere/${canary}','foo':'${canary}'}`,
    `ssl_options={'password':'${canary}'`,
    `ssl_options={'passwd':'${canary}'}`,
    `ssl_options='${canary}'`,
    `password=${canary}`,
    `tls_passphrase=${canary}&tls_key=${canary}`,
    `client_properties={'a':'${canary}'`
  ]
  for (const query of queries) {
    it.effect(`a passphrase in ?${query.replaceAll(canary, "...")}`, () =>
      keepsQuiet(AmqpConfig.fromUrl(`amqps://alice:s3cret@rabbit?${query}`), canary)
    )
  }
})

describe("a failing environment prints no password", () => {
  const environments: ReadonlyArray<Record<string, string>> = [
    { AMQP_PASSWORD: canary },
    { AMQP_USERNAME: "alice", AMQP_PASSWORD: canary, AMQP_HEARTBEAT: canary, AMQP_HOST: `${canary}!` },
    { AMQP_URL: `amqp://alice:${canary}@rabbit`, AMQP_PASSWORD: canary },
    { AMQP_URL: canary },
    { AMQP_PASSWROD: canary, AMQP_POOL_PASSWORD: canary, [`AMQP_POOL_${canary}`]: "x", AMQP_PASSWORD: canary },
    { AMQP_TLS_PASSPHRASE: canary, AMQP_TLS_KEY: canary },
    { AMQP_USERNAME: "alice", AMQP_PASSWORD: canary, AMQP_PASSWORD_FILE: canary, AMQP_POOL_SIZE: canary }
  ]
  for (const [i, env] of environments.entries()) {
    it.effect(`${i}: ${Object.keys(env).join(", ").replaceAll(canary, "...")}`, () =>
      keepsQuiet(fromEnvironment(env), canary)
    )
  }
})

describe("Flask-Pika's records print no password", () => {
  const records: ReadonlyArray<Record<string, unknown>> = [
    { username: "alice", password: canary, port: 0 },
    { username: "alice", password: [canary] },
    { username: "alice", pasword: canary },
    { username: "alice", password: canary, ssl_options: { password: canary, foo: canary } },
    { username: canary, password: canary, host: `${canary}!`, [canary]: 1 }
  ]
  for (const [i, record] of records.entries()) {
    it.effect(`${i}: ${Object.keys(record).join(", ").replaceAll(canary, "...")}`, () =>
      keepsQuiet(AmqpConfig.fromFlaskPika(record as never), canary)
    )
  }
})

describe("a configuration", () => {
  it.effect("is printed without password, key and passphrase, and returns them on request", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.make({
        username: "alice",
        password: canary,
        tls: { cert: certificate, key: encryptedKey, passphrase }
      })
      const { credentials, tls } = config
      const body = encryptedKey.split("\n")[1] ?? ""
      assertAbsent(prints(config), canary, passphrase, body)
      assertAbsent(prints([config.credentials, config.tls]), canary, passphrase, body)
      assert.include(prints(config), "<redacted>")
      assert.isTrue(credentials._tag === "Plain" && Redacted.value(credentials.password) === canary)
      assert.isTrue(tls?.passphrase !== undefined && Redacted.value(tls.passphrase) === passphrase)
      assert.isTrue(tls?.key !== undefined && Redacted.value(tls.key).includes(body))
    })
  )

  it.effect("from a certificate file that also contains the key keeps the key separate", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.make({ tls: { certFile: yield* pemFile(certificate + key) } })
      assertAbsent(prints(config), key.split("\n")[1] ?? "")
      assert.isDefined(config.tls?.key)
    })
  )
})
