/** TLS: files, certificates, keys. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConfig } from "@effect-amqp/core"
import { Effect, Redacted } from "effect"
import {
  certificate,
  encryptedKey,
  fromEnvironment,
  issuesOf,
  key,
  otherKey,
  passphrase,
  pemFile,
  refused,
  refusedVariables,
  untyped
} from "./AmqpConfig.fixtures.ts"

const tlsOf = (tls: AmqpConfig.TlsOptions) => Effect.map(AmqpConfig.make({ tls }), (config) => config.tls)

describe("TLS", () => {
  it.effect("is off by default, and on for true and for any object", () =>
    Effect.gen(function* () {
      assert.isUndefined((yield* AmqpConfig.make({ tls: false })).tls)
      const on = { ca: undefined, cert: undefined, key: undefined, passphrase: undefined, servername: undefined }
      const expected = { ...on, verify: true, minVersion: "TLSv1.2", ciphers: undefined, files: undefined }
      assert.deepStrictEqual((yield* AmqpConfig.make({ tls: true })).tls, expected as never)
      assert.deepStrictEqual(yield* tlsOf({}), expected as never)
    })
  )

  it.effect("verifies certificates unless verify is false", () =>
    Effect.gen(function* () {
      assert.isFalse((yield* tlsOf({ verify: false }))?.verify)
      for (const verify of ["false", 0, null, "", Number.NaN]) {
        assert.deepStrictEqual(yield* refused(AmqpConfig.make(untyped({ tls: { verify } }))), ["tls.verify"])
      }
    })
  )

  it.effect("accepts PEM as text, as bytes and as Redacted", () =>
    Effect.gen(function* () {
      const text = yield* tlsOf({ ca: certificate, cert: certificate, key })
      assert.lengthOf(text?.ca ?? [], 1)
      const bytes = yield* tlsOf({
        ca: [Buffer.from(certificate), certificate],
        cert: new TextEncoder().encode(certificate),
        key: Redacted.make(key)
      })
      assert.lengthOf(bytes?.ca ?? [], 2)
      assert.strictEqual(bytes?.cert, text?.cert)
      assert.isTrue(
        text?.key !== undefined && bytes?.key !== undefined && Redacted.value(bytes.key) === Redacted.value(text.key)
      )
    })
  )

  it.effect("reads files, several for authorities, and a key next to its certificate", () =>
    Effect.gen(function* () {
      const caFile = yield* pemFile(`# ours\n${certificate}${certificate}`)
      const both = yield* pemFile(key + certificate)
      const tls = yield* tlsOf({ ca: certificate, caFile: [caFile, caFile], certFile: both })
      assert.lengthOf(tls?.ca ?? [], 5)
      assert.isDefined(tls?.key)
      assert.notInclude(tls?.cert, "PRIVATE")
      const apart = yield* tlsOf({
        certFile: yield* pemFile(certificate),
        keyFile: yield* pemFile(encryptedKey),
        passphrase
      })
      assert.isDefined(apart?.key)
    })
  )

  it.effect("reads files that a URL, Pika's dict in it, or the environment names", () =>
    Effect.gen(function* () {
      const certFile = yield* pemFile(certificate)
      const keyFile = yield* pemFile(encryptedKey)
      const dict = `{'ca_certs':'${certFile}','certfile':'${certFile}','keyfile':'${keyFile}','password':'${passphrase}'}`
      const configs = [
        yield* AmqpConfig.fromUrl(`amqps://u:p@rabbit?ssl_options=${encodeURIComponent(dict)}`),
        yield* AmqpConfig.fromUrl(
          `amqps://u:p@rabbit?cacertfile=${certFile}&certfile=${certFile}&keyfile=${keyFile}&password=${passphrase}`
        ),
        yield* fromEnvironment({
          AMQP_URL: "amqps://u:p@rabbit",
          AMQP_TLS_CA_FILE: certFile,
          AMQP_TLS_CERT: certificate,
          AMQP_TLS_KEY_FILE: keyFile,
          AMQP_TLS_PASSPHRASE: passphrase
        })
      ]
      for (const { tls } of configs) {
        assert.lengthOf(tls?.ca ?? [], 1)
        assert.isTrue(tls?.cert !== undefined && tls.key !== undefined && tls.passphrase !== undefined)
      }
      const override = { tls: { cert: certificate, key } }
      yield* AmqpConfig.fromUrl(`amqps://u:p@rabbit?certfile=/nowhere&keyfile=/nowhere`, override)
    })
  )

  const wrong: ReadonlyArray<readonly [tls: AmqpConfig.TlsOptions, setting: string, got: string]> = [
    [{ ca: "/etc/ssl/ca.pem" }, "tls.ca", "a path"],
    [{ ca: "" }, "tls.ca", "empty"],
    [{ ca: [] }, "tls.ca", "array"],
    [{ ca: certificate.replace("MIIB", "MIIC") }, "tls.ca", "cannot be read"],
    [{ ca: certificate + key }, "tls.ca", "a private key"],
    [{ cert: certificate }, "tls.key", "nothing"],
    [{ key }, "tls.cert", "nothing"],
    [{ passphrase }, "tls.passphrase", "without a key"],
    [{ cert: certificate, key: otherKey }, "tls.key", "another certificate"],
    [{ cert: certificate, key: certificate }, "tls.key", "without a private key"],
    [{ cert: certificate, key: key.replace("MIGH", "MIGG") }, "tls.key", "cannot be read"],
    [{ cert: certificate, key: encryptedKey }, "tls.passphrase", "nothing"],
    [{ cert: certificate, key: encryptedKey, passphrase: "wrong" }, "tls.passphrase", "does not open"],
    [{ cert: certificate, certFile: "/nowhere", key }, "tls.certFile", "both"],
    [{ caFile: "/nowhere/ca.pem" }, "tls.caFile", "ENOENT"],
    [{ caFile: "/" }, "tls.caFile", "not a regular file"],
    [{ caFile: "/dev/zero" }, "tls.caFile", "not a regular file"],
    [{ caFile: "" }, "tls.caFile", "empty"],
    [{ servername: "10.0.0.1" }, "tls.servername", "10.0.0.1"],
    [{ ciphers: "none-such" }, "tls.ciphers", "none-such"],
    [{ minVersion: "TLSv1.1" as "TLSv1.2" }, "tls.minVersion", "TLSv1.1"]
  ]
  for (const [tls, setting, got] of wrong) {
    it.effect(`${JSON.stringify(tls).slice(0, 50)} is refused: ${setting}, ${got}`, () =>
      Effect.map(issuesOf(AmqpConfig.make({ tls })), (issues) => {
        assert.deepStrictEqual(
          issues.map((issue) => issue.setting),
          [setting]
        )
        assert.include(issues[0]?.got, got)
      })
    )
  }

  it.effect("reports every file that cannot be read in one error, together with the other mistakes", () =>
    Effect.gen(function* () {
      const noCertificate = yield* pemFile("hello")
      const settings = yield* refused(
        AmqpConfig.make({
          port: 0,
          tls: { caFile: ["/nowhere", noCertificate], certFile: "/nowhere", keyFile: noCertificate }
        })
      )
      assert.deepStrictEqual(settings, ["port", "tls.caFile", "tls.caFile", "tls.certFile", "tls.keyFile"])
    })
  )

  it.effect("reports a certificate without its key together with any other mistake", () =>
    Effect.map(refused(AmqpConfig.make({ port: 0, tls: { cert: certificate } })), (settings) =>
      assert.deepStrictEqual(settings, ["port", "tls.key"])
    )
  )

  it.effect("has settings that are refused where TLS is off", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* refused(AmqpConfig.fromUrl("amqp://localhost?cacertfile=/x&tls_verify=true")), [
        "?cacertfile=",
        "?tls_verify="
      ])
      assert.deepStrictEqual(yield* refusedVariables({ AMQP_URL: "amqp://localhost", AMQP_TLS_CA_FILE: "/x" }), [
        "AMQP_TLS_CA_FILE"
      ])
    })
  )
})
