/** Very long settings. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConfig } from "@effect-amqp/core"
import { Effect, Exit } from "effect"
import { parseLiteral } from "../src/internal/config/literal.ts"
import { certificatesIn, privateKeyIn } from "../src/internal/config/pem.ts"
import { certificate, fromEnvironment, issuesOf, key, refused, untyped } from "./AmqpConfig.fixtures.ts"

const megabyte = 1024 * 1024

const fill = (text: string): string => text.repeat(Math.ceil(megabyte / text.length)).slice(0, megabyte)

/** A limit for a busy machine. Work that grows with the square of the length would take minutes. */
const longest = 3000

const withinTime = <A, E>(what: string, effect: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const before = performance.now()
    const exit = yield* Effect.exit(effect)
    assert.isBelow(performance.now() - before, longest, what)
    return exit
  })

const texts: Record<string, string> = {
  commas: fill(","),
  "hosts with mistakes": fill("a:b,"),
  hosts: fill("a.example.org,"),
  brackets: fill("["),
  colons: fill(":"),
  digits: `${fill("1")}x`,
  "a point and digits": `1.${fill("1")}x`,
  spaces: `${fill(" ")}x`,
  dots: fill("a."),
  dashes: `a${fill("-")}`,
  percents: fill("%"),
  ampersands: fill("&a"),
  assignments: fill("&heartbeat=5"),
  passwords: fill("&tls_passphrase=x&b"),
  escapes: fill("%41"),
  ats: fill("@"),
  arrays: fill("["),
  objects: fill("{'a':"),
  "many keys": `{${fill("'a1':1,")}}`,
  words: fill("ab "),
  "beginnings of certificates": fill("-----BEGIN CERTIFICATE-----\n"),
  "beginnings of keys": fill("-----BEGIN PRIVATE KEY-----\n"),
  "beginnings of keys of many kinds": Array.from(
    { length: 30_000 },
    (_, i) => `-----BEGIN ${[...String(i)].map((digit) => "ABCDEFGHIJ"[Number(digit)]).join("")} PRIVATE KEY-----`
  ).join("\n")
}

describe("a setting of a megabyte", () => {
  for (const [what, text] of Object.entries(texts)) {
    it.effect(`is refused or read within seconds, in every place: ${what}`, () =>
      Effect.gen(function* () {
        for (const url of [text, `amqp://${text}`, `amqp://a:b@${text}`, `amqp://h/${text}`, `amqp://h?${text}`]) {
          assert.isTrue(Exit.isFailure(yield* withinTime(url.slice(0, 20), AmqpConfig.fromUrl(url))))
        }
        for (const parameter of ["heartbeat", "ssl_options", "client_properties", "tls_ca", "tls_key", "pool_size"]) {
          yield* withinTime(parameter, AmqpConfig.fromUrl(`amqps://h?${parameter}=${encodeURIComponent(text)}`))
        }
        for (const name of ["HOST", "HOSTS", "PORT", "HEARTBEAT", "TLS", "TLS_CA", "TLS_KEY", "CLIENT_PROPERTIES"]) {
          const exit = yield* withinTime(name, fromEnvironment({ [`AMQP_${name}`]: text }))
          assert.isTrue(Exit.isFailure(exit), name)
        }
        for (const options of [{ host: text }, { hosts: [text] }, { tls: { ca: text, cert: text, key: text } }]) {
          assert.isTrue(Exit.isFailure(yield* withinTime("options", AmqpConfig.make(options))))
        }
        yield* withinTime("a name", AmqpConfig.make(untyped({ [text]: 1 })))
        yield* withinTime("a duration", AmqpConfig.make(untyped({ heartbeat: text })))
        yield* withinTime(
          "literal and PEM",
          Effect.sync(() => [parseLiteral(text.slice(0, 65_536)), certificatesIn(text), privateKeyIn(text)])
        )
      })
    )
  }

  it.effect("is reported by its length, and its text is not shown", () =>
    Effect.gen(function* () {
      const found = yield* issuesOf(AmqpConfig.fromUrl(`amqp://h/${fill("secret")}`))
      assert.deepInclude(found, {
        setting: "url",
        got: `a string of ${megabyte + 9} characters`,
        expected: "a URL of at most 262144 characters"
      })
      assert.deepStrictEqual(yield* refused(AmqpConfig.make({ vhost: fill("secret") })), ["vhost"])
    })
  )
})

describe("many mistakes", () => {
  it.effect("are listed up to a hundred, and the message says that there are more", () =>
    Effect.gen(function* () {
      const options = Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`hots${i}`, 1]))
      const error = yield* Effect.flip(AmqpConfig.make(untyped(options)))
      assert.match(error.message, /more than 100 mistakes/)
      assert.match(error.message, /- more mistakes, which are not listed$/)
      const hosts = Array.from({ length: 101 }, (_, i) => `host-${i}`)
      assert.deepStrictEqual(yield* refused(AmqpConfig.make({ hosts, username: "a", password: "b" })), ["hosts"])
      yield* AmqpConfig.make({ hosts: hosts.slice(1), username: "a", password: "b" })
    })
  )
})

describe("PEM", () => {
  it("has blocks from a BEGIN line to the next END line, and keys whose END line is of their kind", () => {
    const cut = "-----BEGIN CERTIFICATE-----\n"
    assert.deepStrictEqual(certificatesIn(`x${certificate}y${certificate}${cut}`), [
      certificate.trim(),
      certificate.trim()
    ])
    assert.isUndefined(certificatesIn(cut))
    assert.isUndefined(privateKeyIn("-----BEGIN PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----"))
    assert.isDefined(privateKeyIn(`-----BEGIN RSA PRIVATE KEY-----\n${key}`))
  })
})
