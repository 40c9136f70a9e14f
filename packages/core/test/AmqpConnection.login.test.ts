/** TLS and logins on a real broker: who is accepted, who is not, and that no typo disables verification. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConfig, AmqpConnection } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { ConfigProvider, Effect, Exit, References, Schedule, type Scope } from "effect"
import { connect as connectTls } from "node:tls"
import type { TestContext } from "vitest"
import { layerWith, untilState } from "./support/amqp.ts"
import * as Certificates from "./support/certificates.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { PROTOCOL_HEADER } from "./support/frames.ts"
import { noneTo } from "./support/sockets.ts"
import * as TlsListener from "./support/TlsListener.ts"
import * as Users from "./support/users.ts"
import { erlang } from "./support/versions.ts"

const { ca } = Certificates

/**
 * Options for a port on this machine. A retry would take an hour, so a test in which something is retried does not end
 * in time.
 */
const optionsFor = Effect.fnUntraced(function* (port: number, more: AmqpConfig.Options) {
  const { vhost } = yield* TestBroker.TestBroker
  const login = more.credentials === undefined ? { username: "guest", password: "guest" } : undefined
  return { host: "localhost", port, vhost, ...login, connectionAttempts: 100, retryDelay: "1 hour", ...more } as const
})

const configFor = (port: number, more: AmqpConfig.Options) => Effect.flatMap(optionsFor(port, more), AmqpConfig.make)

/**
 * What the broker knows of its only connection, as soon as it lists no other one: a connection that has been closed
 * stays listed for a moment.
 */
const seen = Effect.gen(function* () {
  const { evaluate, vhost } = yield* TestBroker.TestBroker
  return yield* evaluate(`
    Keys = [vhost, user, ssl, ssl_protocol, auth_mechanism, peer_cert_subject],
    % Distinct, since on a busy machine the broker lists one connection twice now and then.
    [Info] = lists:usort([C || C <- rabbit_networking:connection_info_all(Keys), proplists:get_value(vhost, C) =:= <<"${vhost}">>]),
    iolist_to_binary(io_lib:format("~s ~s ~p ~p ~s", [proplists:get_value(K, Info) || K <-
      [user, auth_mechanism, ssl, ssl_protocol, peer_cert_subject]])).
  `)
}).pipe(Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 100 }))

/** Connects, uses a channel, and returns what the broker saw. */
const entering = Effect.fnUntraced(function* (port: number, more: AmqpConfig.Options) {
  const { awaitCensus } = yield* TestBroker.TestBroker
  const config = yield* configFor(port, more)
  const who = yield* Effect.andThen(
    AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })),
    seen
  ).pipe(
    Effect.scoped,
    Effect.provide(layerWith(config), { local: true }),
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )
  yield* awaitCensus({ connections: 0 })
  return who
}, Effect.timeout("10 seconds"))

/** Connects once without success and leaves no socket: returns the reason. */
const refused = Effect.fnUntraced(
  function* (port: number, more: AmqpConfig.Options) {
    const proxy = yield* FaultProxy.make(port)
    const config = yield* configFor(proxy.port, more)
    const { reason } = yield* Effect.flip(Effect.scoped(AmqpConnection.make(config)))
    assert.isFalse(reason.isRetryable)
    assert.strictEqual(proxy.stats.accepted, 1)
    yield* noneTo(proxy.port)
    return reason
  },
  Effect.scoped,
  Effect.timeout("8 seconds")
)

const plugins = ["rabbitmq_auth_mechanism_ssl"]
const config = [
  "auth_mechanisms.1 = PLAIN",
  "auth_mechanisms.2 = EXTERNAL",
  "ssl_cert_login_from = common_name",
  "ssl_options.verify = verify_peer"
]

layer(TestBroker.layerPrivate({ plugins, config }), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  const test = (title: string, run: () => Effect.Effect<void, unknown, TestBroker.TestBroker | Scope.Scope>) =>
    it.effect(title, (context: TestContext) =>
      Effect.flatMap(TlsListener.isPossible, (possible) =>
        possible ? run() : Effect.sync(() => context.skip("the broker's ports cannot be reached"))
      )
    )

  for (const version of ["tlsv1.2", "tlsv1.3"] as const) {
    const versions = [version]

    describe(`over ${version}`, () => {
      test("a password is accepted without a client certificate, where none is requested and where none is required", () =>
        Effect.gen(function* () {
          for (const clients of ["not asked", "may show a certificate"] as const) {
            const port = yield* TlsListener.make({ versions, clients })
            assert.strictEqual(yield* entering(port, { tls: { ca } }), `guest PLAIN true '${version}' `)
          }
        }))

      test("a password is accepted with a client certificate, which the broker has seen", () =>
        Effect.gen(function* () {
          for (const clients of ["may show a certificate", "must show a certificate"] as const) {
            const port = yield* TlsListener.make({ versions, clients })
            const who = yield* entering(port, { tls: { ca, ...Certificates.client } })
            assert.strictEqual(who, `guest PLAIN true '${version}' CN=orders`)
          }
        }))

      for (const [what, identity, code] of [
        ["signed by an unknown authority", Certificates.rogueServer, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
        ["that has expired", Certificates.expired, "CERT_HAS_EXPIRED"],
        ["for another host", Certificates.otherHost, "ERR_TLS_CERT_ALTNAME_INVALID"],
        ["signed by itself", Certificates.selfSigned, "DEPTH_ZERO_SELF_SIGNED_CERT"]
      ] as const) {
        test(`a broker's certificate ${what} is TlsFailed, without a retry`, () =>
          Effect.gen(function* () {
            const port = yield* TlsListener.make({ versions, identity })
            assert.deepInclude(yield* refused(port, { tls: { ca } }), { _tag: "TlsFailed", code })
          }))
      }

      const required = version === "tlsv1.3" ? "TLSV13_ALERT_CERTIFICATE_REQUIRED" : "SSL/TLS_ALERT_HANDSHAKE_FAILURE"
      for (const [what, identity, code, says] of [
        ["that is missing", undefined, required, "give cert and key"],
        [
          "signed by an unknown authority",
          Certificates.rogueClient,
          "TLSV1_ALERT_UNKNOWN_CA",
          "refuses the client's certificate"
        ],
        [
          "that has expired",
          Certificates.expiredClient,
          "SSL/TLS_ALERT_CERTIFICATE_EXPIRED",
          "refuses the client's certificate"
        ]
      ] as const) {
        test(`a client's certificate ${what} is TlsFailed, without a retry, and the error says what to do`, () =>
          Effect.gen(function* () {
            const port = yield* TlsListener.make({ versions, clients: "must show a certificate" })
            const reason = yield* refused(port, { tls: { ca, ...identity } })
            assert.deepInclude(reason, { _tag: "TlsFailed", code: `ERR_SSL_${code}` })
            assert.include(reason.message, says)
            assert.notMatch(reason.message, /error:|\n/, "OpenSSL's own words are not for people")
          }))
      }
    })
  }

  describe("TLS", () => {
    for (const version of ["tlsv1", "tlsv1.1"] as const) {
      test(`${version} is not used, although the broker supports it`, () =>
        Effect.gen(function* () {
          const port = yield* TlsListener.make({ versions: [version] })
          const reason = yield* refused(port, { tls: { ca } })
          // Erlang 27 continues with the version it has, so the client is the first to notice.
          const code = (yield* erlang) < 27 ? "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION" : "ERR_SSL_UNSUPPORTED_PROTOCOL"
          assert.deepInclude(reason, { _tag: "TlsFailed", code })
          assert.include(reason.message, "minVersion")
          const spoken = yield* Effect.callback<string | null>((resume) => {
            const options = { ca, minVersion: "TLSv1", ciphers: "DEFAULT@SECLEVEL=0" } as const
            const socket = connectTls({ host: "localhost", port, ...options }, () =>
              resume(Effect.succeed(socket.getProtocol()))
            )
            socket.on("error", (error) => resume(Effect.die(error)))
            return Effect.sync(() => socket.destroy())
          }).pipe(Effect.timeout("5 seconds"))
          assert.include(["TLSv1", "TLSv1.1"], spoken)
        }))
    }

    test("to a port without TLS is TlsFailed, and says so; without TLS to a TLS port only AMQP's protocol header is sent", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const reason = yield* refused(Number(new URL(url).port), { tls: { ca } })
        assert.deepInclude(reason, { _tag: "TlsFailed", code: "ERR_SSL_WRONG_VERSION_NUMBER" })
        assert.include(reason.message, "5671")
        const proxy = yield* FaultProxy.make(yield* TlsListener.make())
        const config = yield* configFor(proxy.port, { tls: false, connectionAttempts: 1 })
        const error = yield* Effect.flip(Effect.scoped(AmqpConnection.make(config)))
        assert.include(["ConnectionClosed", "ProtocolError"], error.reason._tag)
        assert.strictEqual(proxy.stats.up.bytes, PROTOCOL_HEADER.length)
      }))

    test("is used again for the reconnect of a lost connection", () =>
      Effect.gen(function* () {
        const { awaitCensus, killConnections } = yield* TestBroker.TestBroker
        const port = yield* TlsListener.make({ clients: "must show a certificate" })
        const config = yield* configFor(port, { tls: { ca, ...Certificates.client } })
        yield* Effect.gen(function* () {
          yield* untilState((state) => state._tag === "Open")
          for (const generation of [2, 3]) {
            yield* killConnections
            yield* untilState((state) => state._tag === "Open" && state.generation === generation)
            assert.strictEqual(yield* seen, "guest PLAIN true 'tlsv1.3' CN=orders")
          }
          yield* AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true }))
        }).pipe(
          Effect.scoped,
          Effect.provide(layerWith(config), { local: true }),
          Effect.provideService(References.MinimumLogLevel, "Error")
        )
        yield* awaitCensus({ connections: 0 })
      }))

    for (const [what, listener, code] of [
      [
        "requires a certificate that the client does not have",
        { clients: "must show a certificate" },
        "CERTIFICATE_REQUIRED"
      ],
      ["cannot be trusted", { identity: Certificates.rogueServer }, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"]
    ] as const) {
      test(`is required again: a reconnect to a broker that ${what} is retried until the broker is as before`, () =>
        Effect.gen(function* () {
          let port = yield* TlsListener.make()
          // The port behind the broker's address, which the test changes.
          const proxy = yield* FaultProxy.make({
            host: "127.0.0.1",
            get port() {
              return port
            }
          })
          const config = yield* configFor(proxy.port, { tls: { ca } })
          yield* Effect.gen(function* () {
            yield* untilState((state) => state._tag === "Open")
            const before = port
            port = yield* TlsListener.make(listener)
            proxy.rst()
            const refused = yield* untilState(
              (state) => state._tag === "Reconnecting" && state.reason._tag === "TlsFailed"
            )
            if (refused._tag === "Reconnecting" && refused.reason._tag === "TlsFailed") {
              assert.include(refused.reason.code, code)
            }
            port = before
            yield* untilState((state) => state._tag === "Open" && state.generation === 2)
            yield* AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true }))
          }).pipe(
            Effect.scoped,
            Effect.provide(layerWith(config), { local: true }),
            Effect.provideService(References.MinimumLogLevel, "None")
          )
        }))
    }
  })

  describe("verification", () => {
    const untyped = (value: unknown) => value as AmqpConfig.Options
    const objects: ReadonlyArray<unknown> = [
      {},
      { verify: undefined },
      { rejectUnauthorized: false },
      { verfiy: false },
      { Verify: false },
      { verify: "false" },
      { verify: 0 },
      { verify: null },
      { verify: "" },
      { verify: Number.NaN },
      { checkServerIdentity: () => undefined },
      { ca: [] },
      { ca: "" },
      { ca: undefined, servername: "" },
      { minVersion: "TLSv1" }
    ]
    const parameters = [
      "",
      "verify=false",
      "verify=verify_none",
      "rejectUnauthorized=false",
      "tls_verfiy=false",
      "tls_verify=",
      "tls_verify=0",
      "tls_verify=None",
      "tls_verify=flase",
      "TLS_VERIFY=false",
      "ssl_options=None",
      "ssl_options={'cert_reqs':'CERT_NONE'}",
      "ssl_options={'verify':false}",
      "ssl_options={'check_hostname':False}"
    ]
    const variables: ReadonlyArray<Record<string, string>> = [
      {},
      { AMQP_TLS_VERIFIY: "false" },
      { AMQP_TLS_VERFY: "false" },
      { AMQP_TLS_REJECT_UNAUTHORIZED: "false" },
      { AMQP_TLS_VERIFY: "" },
      { AMQP_TLS_VERIFY: "0" },
      { AMQP_TLS_VERIFY: "no" },
      { AMQP_TLS_VERIFY: "flase" },
      { AMQP_VERIFY: "false" },
      { AMQP_REJECT_UNAUTHORIZED: "0" },
      { NODE_TLS_REJECT_UNAUTHORIZED: "0" }
    ]

    /** Settings may be refused. Settings that are accepted must not let the client connect. */
    const verified = Effect.fnUntraced(function* (name: string, read: Effect.Effect<AmqpConfig.AmqpConfig, unknown>) {
      const config = yield* Effect.exit(read)
      if (Exit.isFailure(config)) return "refused"
      const connected = yield* Effect.exit(Effect.scoped(AmqpConnection.make(config.value)))
      assert.isTrue(Exit.isFailure(connected), `${name} gets in`)
      const { reason } = yield* Effect.flip(Effect.scoped(AmqpConnection.make(config.value)))
      assert.strictEqual(reason._tag, "TlsFailed", name)
      return "verified"
    })

    test("is not disabled by any mistake in an option, a URL or the environment: either the setting or the broker is refused", () =>
      Effect.gen(function* () {
        const port = yield* TlsListener.make({ identity: Certificates.rogueServer })
        const url = (query: string) => `amqps://guest:guest@localhost:${port}/?${query.replaceAll("'", "%27")}`
        const outcomes: Array<string> = []
        for (const tls of objects) {
          const options = yield* optionsFor(port, untyped({ tls }))
          outcomes.push(yield* verified(JSON.stringify(tls), AmqpConfig.make(options)))
        }
        for (const query of parameters) outcomes.push(yield* verified(query, AmqpConfig.fromUrl(url(query))))
        for (const tls of ["yes", 1]) {
          const options = yield* optionsFor(port, untyped({ tls }))
          outcomes.push(yield* verified(`tls: ${tls}`, AmqpConfig.make(options)))
        }
        for (const more of variables) {
          const env = { AMQP_URL: `amqps://guest:guest@localhost:${port}`, ...more }
          const read = Effect.provideService(
            Effect.gen(function* () {
              return yield* AmqpConfig.config
            }),
            ConfigProvider.ConfigProvider,
            ConfigProvider.fromEnv({ env })
          )
          outcomes.push(yield* verified(JSON.stringify(more), read))
        }
        assert.isAbove(outcomes.filter((outcome) => outcome === "refused").length, 25)
        assert.isAbove(outcomes.filter((outcome) => outcome === "verified").length, 3)
        // Verification can be disabled on purpose, which shows that the broker above accepts the login.
        const who = yield* entering(port, { tls: { verify: false } })
        assert.include(who, "guest PLAIN true")
      }))

    test("is not disabled by NODE_TLS_REJECT_UNAUTHORIZED=0 of the process", () =>
      Effect.gen(function* () {
        const port = yield* TlsListener.make({ identity: Certificates.rogueServer })
        const name = "NODE_TLS_REJECT_UNAUTHORIZED"
        const before = process.env[name]
        yield* Effect.acquireUseRelease(
          Effect.sync(() => {
            process.env[name] = "0"
          }),
          () => Effect.map(refused(port, { tls: {} }), (reason) => assert.strictEqual(reason._tag, "TlsFailed")),
          () =>
            Effect.sync(() => {
              if (before === undefined) delete process.env[name]
              else process.env[name] = before
            })
        )
      }))
  })

  describe("EXTERNAL", () => {
    const external = { credentials: { _tag: "External" } } as const
    const tls = { ca, ...Certificates.client }

    test("logs in as the common name of the client's certificate, or as its alternative name", () =>
      Effect.gen(function* () {
        const { evaluate } = yield* TestBroker.TestBroker
        const port = yield* TlsListener.make({ clients: "must show a certificate" })
        yield* Users.make("secret", "orders")
        assert.strictEqual(yield* entering(port, { ...external, tls }), "orders EXTERNAL true 'tlsv1.3' CN=orders")
        yield* Users.make("secret", "orders.example")
        yield* evaluate(`
          application:set_env(rabbit, ssl_cert_login_from, subject_alternative_name),
          application:set_env(rabbit, ssl_cert_login_san_type, dns),
          application:set_env(rabbit, ssl_cert_login_san_index, 0).
        `)
        const who = yield* Effect.ensuring(
          entering(port, { ...external, tls }),
          Effect.ignore(evaluate("application:set_env(rabbit, ssl_cert_login_from, common_name)."))
        )
        assert.strictEqual(who, "orders.example EXTERNAL true 'tlsv1.3' CN=orders")
      }))

    test("is AuthenticationFailed without such a user or where the broker does not offer it; without a certificate it is not tried", () =>
      Effect.gen(function* () {
        const { evaluate } = yield* TestBroker.TestBroker
        const port = yield* TlsListener.make({ clients: "may show a certificate" })
        assert.strictEqual((yield* refused(port, { ...external, tls }))._tag, "AuthenticationFailed")
        const { reason: without } = yield* Effect.flip(configFor(port, { ...external, tls: { ca } }))
        assert.strictEqual(without._tag, "InvalidConfig")
        const mechanisms = (names: string) => evaluate(`application:set_env(rabbit, auth_mechanisms, [${names}]).`)
        const reason = yield* Effect.acquireUseRelease(
          mechanisms("'PLAIN'"),
          () => refused(port, { ...external, tls }),
          () => Effect.ignore(mechanisms("'PLAIN', 'EXTERNAL'"))
        )
        assert.strictEqual(reason._tag, "AuthenticationFailed")
        assert.include(reason.message, "EXTERNAL")
      }))

    test("a wrong password over TLS is AuthenticationFailed, with a valid client certificate too", () =>
      Effect.gen(function* () {
        const port = yield* TlsListener.make({ clients: "may show a certificate" })
        for (const own of [tls, { ca }]) {
          const reason = yield* refused(port, { tls: own, password: "wrong" })
          assert.deepInclude(reason, { _tag: "AuthenticationFailed", replyCode: 403 })
        }
      }))
  })
})
