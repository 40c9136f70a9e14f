/** TLS, with a scripted broker behind a TLS server. No mistake disables verification. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, AmqpConfig, AmqpConnection } from "@effect-amqp/core"
import { Effect } from "effect"
import type { TlsOptions } from "node:tls"
import { layerWith } from "./support/amqp.ts"
import * as Certificates from "./support/certificates.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import * as TlsProxy from "./support/TlsProxy.ts"

/** A scripted broker that speaks TLS: its port. */
const tlsBroker = Effect.fnUntraced(function* (options?: TlsOptions) {
  const broker = yield* ScriptedBroker.make()
  return { broker, port: (yield* TlsProxy.make(broker, options)).port }
})

const options = (port: number, tls: AmqpConfig.TlsOptions): AmqpConfig.Options => ({
  host: "localhost",
  port,
  username: "guest",
  password: "guest",
  connectTimeout: "3 seconds",
  tls
})

const works = (port: number, tls: AmqpConfig.TlsOptions, more?: AmqpConfig.Options) =>
  Effect.gen(function* () {
    const config = yield* AmqpConfig.make({ ...options(port, tls), ...more })
    yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("q"))).pipe(
      Effect.provide(layerWith(config), { local: true })
    )
  })

const refused = (port: number, tls: AmqpConfig.TlsOptions) =>
  Effect.gen(function* () {
    const config = yield* AmqpConfig.make(options(port, tls))
    const error = yield* Effect.flip(Effect.scoped(AmqpConnection.make(config)))
    return error.reason
  })

describe("TLS", () => {
  it.live("trusts a server whose certificate the given authority has signed", () =>
    Effect.gen(function* () {
      const { broker, port } = yield* tlsBroker()
      yield* works(port, { ca: Certificates.ca })
      yield* broker.socketsClosed
    })
  )

  it.live("fails with TlsFailed for an unknown authority, without a retry", () =>
    Effect.gen(function* () {
      const { broker, port } = yield* tlsBroker()
      const reason = yield* refused(port, {})
      assert.strictEqual(reason._tag, "TlsFailed")
      assert.isFalse(reason.isRetryable)
      assert.strictEqual(broker.count("connection.start-ok"), 0, "no password was sent")
    })
  )

  it.live("fails with TlsFailed for a certificate of another name", () =>
    Effect.gen(function* () {
      const { port } = yield* tlsBroker()
      const reason = yield* refused(port, { ca: Certificates.ca, servername: "rabbit.example" })
      assert.strictEqual(reason._tag, "TlsFailed")
      assert.deepInclude(reason, { code: "ERR_TLS_CERT_ALTNAME_INVALID" })
    })
  )

  it.live("accepts any certificate with verify: false only", () =>
    Effect.gen(function* () {
      const { port } = yield* tlsBroker()
      yield* works(port, { verify: false })
    })
  )

  it.live("presents a client certificate to a server that requests one, and EXTERNAL needs no password", () =>
    Effect.gen(function* () {
      const { broker, port } = yield* tlsBroker({ requestCert: true, rejectUnauthorized: true, ca: Certificates.ca })
      broker.on("connection.start-ok", (start) => {
        assert.strictEqual(start.args.mechanism, "EXTERNAL")
        start.proceed()
      })
      yield* works(
        port,
        { ca: Certificates.ca, ...Certificates.client },
        { username: undefined, password: undefined, credentials: { _tag: "External" } }
      )
    })
  )

  it.live("fails within the deadline if the client does not have the certificate that the server requires", () =>
    Effect.gen(function* () {
      const { port } = yield* tlsBroker({ requestCert: true, rejectUnauthorized: true, ca: Certificates.ca })
      const reason = yield* refused(port, { ca: Certificates.ca })
      assert.strictEqual(reason._tag, "TlsFailed")
    })
  )

  it.live("fails for a server below TLS 1.2", () =>
    Effect.gen(function* () {
      const { port } = yield* tlsBroker({ minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" })
      const reason = yield* refused(port, { ca: Certificates.ca })
      assert.strictEqual(reason._tag, "TlsFailed")
    })
  )
})
