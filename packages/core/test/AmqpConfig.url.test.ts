/** Settings from a URL. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConfig } from "@effect-amqp/core"
import { Effect, Redacted, Schema } from "effect"
import { parseLiteral } from "../src/internal/config/literal.ts"
import { certificate, issuesOf, key, login, millis, refused, untyped } from "./AmqpConfig.fixtures.ts"

// At most 40 characters, which take at most 160 bytes.
const name = Schema.String.check(
  Schema.isMinLength(1),
  Schema.isMaxLength(40),
  Schema.makeFilter((text: string) => !text.includes("\0") && !/\p{Surrogate}/u.test(text))
)

describe("parts", () => {
  it.effect("are read: scheme, user, password, hosts and virtual host", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl("amqp://orders:s3cret@a.example.org:5673,b.example.org,[::1]:5674/shop")
      assert.deepStrictEqual(login(config), ["orders", "s3cret"])
      assert.deepStrictEqual(config.hosts, [
        { host: "a.example.org", port: 5673 },
        { host: "b.example.org", port: 5672 },
        { host: "::1", port: 5674 }
      ])
      assert.strictEqual(config.vhost, "shop")
      assert.isUndefined(config.tls)
    })
  )

  it.effect("of a Redacted URL are read as those of a plain one", () =>
    Effect.gen(function* () {
      const url = "amqp://orders:s3cret@rabbit/shop"
      assert.deepStrictEqual(yield* AmqpConfig.fromUrl(Redacted.make(url)), yield* AmqpConfig.fromUrl(url))
    })
  )

  it.effect("with amqps mean TLS on port 5671, with certificates verified", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl("AMQPS://orders:s3cret@rabbit")
      assert.deepStrictEqual(config.hosts, [{ host: "rabbit", port: 5671 }])
      assert.isTrue(config.tls?.verify)
      assert.strictEqual(config.tls?.minVersion, "TLSv1.2")
    })
  )

  const vhosts: Record<string, string> = {
    "": "/",
    "/": "/",
    "/%2F": "/",
    "/%2f": "/",
    "/shop": "shop",
    "/shop%2Forders": "shop/orders",
    "/a+b": "a+b",
    "/%C3%A9": "é",
    "/%252F": "%2F"
  }
  for (const [path, vhost] of Object.entries(vhosts)) {
    it.effect(`of the path ${JSON.stringify(path)} are the virtual host ${vhost}`, () =>
      Effect.map(AmqpConfig.fromUrl(`amqp://localhost${path}`), (config) => assert.strictEqual(config.vhost, vhost))
    )
  }

  it.effect.prop(
    "that are percent-encoded are decoded exactly: user name, password and virtual host",
    { username: name, password: name, vhost: name },
    Effect.fnUntraced(function* ({ password, username, vhost }) {
      const [user, secret, path] = [username, password, vhost].map(encodeURIComponent)
      const config = yield* AmqpConfig.fromUrl(`amqp://${user}:${secret}@rabbit/${path}`)
      assert.deepStrictEqual([...login(config), config.vhost], [username, password, vhost])
    })
  )

  it.effect.prop(
    "never cause an exception, whatever the text is: the result is a configuration or InvalidConfig",
    { text: Schema.String },
    Effect.fnUntraced(function* ({ text }) {
      for (const url of [text, `amqp://${text}`, `amqp://u:p@h/${text}`, `amqp://u:p@h?${text}=${text}`]) {
        yield* Effect.catchReason(AmqpConfig.fromUrl(url), "AmqpError", "InvalidConfig", () => Effect.void)
      }
    })
  )

  it.effect("of IPv6 addresses include the zone, which is decoded", () =>
    Effect.map(AmqpConfig.fromUrl("amqp://u:p@[fe80::1%25eth0]:5672"), (config) =>
      assert.deepStrictEqual(config.hosts, [{ host: "fe80::1%eth0", port: 5672 }])
    )
  )
})

describe("URLs that must not fall back to localhost or guest", () => {
  const wrong: Record<string, ReadonlyArray<string>> = {
    "": ["url"],
    "   ": ["url"],
    "amqp:": ["url"],
    "amqp:/alice:s3cret@rabbit": ["url"],
    "amqp:alice:s3cret@rabbit": ["url"],
    "alice:s3cret@rabbit": ["url"],
    "rabbit:5672": ["url"],
    "//alice:s3cret@rabbit": ["url"],
    "http://alice:s3cret@rabbit": ["url"],
    "amqpss://alice:s3cret@rabbit": ["url"],
    "amqp://": ["url host"],
    "amqp:///shop": ["url host"],
    "amqp://:5672": ["url host"],
    "amqp://alice:s3cret@": ["url host"],
    "amqp://alice:s3cret@/shop": ["url host"],
    "amqp://alice:s3cret@:5672/shop": ["url host"],
    "amqp://alice:s3cret@a,,b": ["url host[1]"],
    "amqp://alice:s3cret@a,b:": ["url host[1]"],
    "amqp://alice:s3cret@::1": ["url host"],
    "amqp://alice@rabbit": ["url password"],
    "amqp://alice@localhost": ["url password"],
    "amqp://alice:@rabbit": ["url password"],
    "amqp://:s3cret@rabbit": ["url user name"],
    "amqp://:@rabbit": ["url user name", "url password"],
    "amqp://@localhost": ["url user name", "url password"],
    "amqp://rabbit": ["url user name"],
    "amqp://alice:s3cret": ["url"],
    "amqp://alice:s3%cret@rabbit": ["url password"],
    "amqp://alice:%ff@rabbit": ["url password"],
    "amqp://ali%ce:s3cret@rabbit": ["url user name"],
    "amqp://alice:s3@cret@rabbit": ["url"],
    "amqp://alice:s3/cret@rabbit": ["url"],
    "amqp://alice:s3?cret@rabbit": ["url"],
    "amqp://alice:s3#cret@rabbit": ["url"],
    "amqp://alice:s3 cret@rabbit": ["url"],
    "amqp://alice:s3cret@rabbit/shop#x": ["url"],
    "amqp://alice:s3cret@rabbit/a/b": ["url virtual host"],
    "amqp://alice:s3cret@rabbit//": ["url virtual host"],
    "amqp://alice:s3cret@rabbit/%zz": ["url virtual host"],
    "amqp://alice:s3cret@rabbit:0": ["url host"],
    "amqp://alice:s3cret@rabbit:65536": ["url host"],
    "amqp://alice:s3cret@rabbit:-1": ["url host"],
    "amqp://alice:s3cret@rabbit:5e3": ["url host"],
    "amqp://alice:s3cret@rab%62it": ["url host"],
    "amqp://alice:s3cret@[::1": ["url host"],
    "amqp://alice:s3cret@[rabbit]": ["url host"]
  }
  for (const [url, settings] of Object.entries(wrong)) {
    it.effect(`are refused: ${JSON.stringify(url)}`, () =>
      Effect.map(refused(AmqpConfig.fromUrl(url)), (found) =>
        assert.deepStrictEqual([...found].sort(), [...settings].sort())
      )
    )
  }

  for (const url of [undefined, null, 3, new URL("amqp://alice:s3cret@rabbit"), Redacted.make(3)]) {
    it.effect(`are refused: a URL that is ${typeof url}`, () =>
      Effect.map(refused(AmqpConfig.fromUrl(url as never)), (settings) => assert.deepStrictEqual(settings, ["url"]))
    )
  }
})

describe("parameters", () => {
  it.effect("of Pika's URLParameters are all understood, in Pika's syntax", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl(
        "amqp://localhost/%2F?backpressure_detection=t&blocked_connection_timeout=300.5&channel_max=100" +
          "&client_properties={'product': 'shop', u\"x\": None}".replace('u"x"', '"x"') +
          "&connection_attempts=3&frame_max=65536&heartbeat=30&locale=en_US&retry_delay=0.25&socket_timeout=5" +
          "&ssl_options=None&stack_timeout=7.5&tcp_options={'TCP_KEEPIDLE':60,'TCP_KEEPINTVL':5,'TCP_KEEPCNT':3,'TCP_USER_TIMEOUT':1}"
      )
      assert.strictEqual(millis(config.blockedConnectionTimeout), 300_500)
      assert.strictEqual(config.channelMax, 100)
      assert.strictEqual(JSON.stringify(config.clientProperties), '{"product":"shop","x":null}')
      assert.strictEqual(config.connectionAttempts, 3)
      assert.strictEqual(config.frameMax, 65_536)
      assert.strictEqual(millis(config.heartbeat), 30_000)
      assert.strictEqual(config.locale, "en_US")
      assert.strictEqual(millis(config.retryDelay), 250)
      assert.strictEqual(millis(config.socketTimeout), 5000)
      assert.strictEqual(millis(config.connectTimeout), 7500)
      assert.strictEqual(millis(config.tcp.keepAliveDelay), 60_000)
    })
  )

  it.effect("in amqplib's spellings are understood", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl(
        "amqp://localhost?frameMax=8192&channelMax=10&heartbeat=0&locale=en_US&maxFrameSize=0"
      )
      assert.deepStrictEqual([config.frameMax, config.channelMax, millis(config.heartbeat)], [8192, 10, 0])
    })
  )

  it.effect("can be Effect's duration texts, with a space or a plus", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl(
        "amqp://localhost?socketTimeout=2+minutes&closeTimeout=500%20millis&blocked_connection_timeout=never"
      )
      assert.deepStrictEqual([config.socketTimeout, config.closeTimeout].map(millis), [120_000, 500])
      assert.isUndefined(config.blockedConnectionTimeout)
    })
  )

  it.effect("include the settings of the pool, by the names of Flask-Pika", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl("amqp://localhost?pool_size=8&pool_recycle=-1&poolMaxWaiting=3")
      const pool = config.pool === false ? undefined : config.pool
      assert.deepStrictEqual([pool?.max, pool?.recycle, pool?.maxWaiting], [8, undefined, 3])
      assert.isFalse((yield* AmqpConfig.fromUrl("amqp://localhost?pool=false")).pool)
    })
  )

  it.effect("include EXTERNAL, as in RabbitMQ's URIs", () =>
    Effect.gen(function* () {
      const url = "amqps://rabbit/shop?auth_mechanism=external"
      const identity = `tls_cert=${encodeURIComponent(certificate)}&tls_key=${encodeURIComponent(key)}`
      const config = yield* AmqpConfig.fromUrl(`${url}&${identity}`)
      assert.deepStrictEqual(config.credentials, { _tag: "External" })
      assert.deepStrictEqual(yield* refused(AmqpConfig.fromUrl(url)), ["tls.cert"])
    })
  )

  it.effect("switch verification off by its own name only", () =>
    Effect.gen(function* () {
      const url = "amqps://u:p@rabbit"
      assert.isFalse((yield* AmqpConfig.fromUrl(`${url}?tls_verify=false`)).tls?.verify)
      const typos = ["tls_verfy=false", "tls_verify=flase", "verify=verify_none", "verify=false", "tls_verify="]
      const others = ["0", "no", "off", "n", "f", "None"].map((value) => `tls_verify=${value}`)
      const dicts = ["{'cert_reqs':0}", "{'cert_reqs':'CERT_NONE'}", "{'check_hostname':False}", "{'verify':False}"]
      for (const query of [...typos, ...others, ...dicts.map((dict) => `ssl_options=${dict}`)]) {
        assert.lengthOf(yield* refused(AmqpConfig.fromUrl(`${url}?${query}`)), 1)
      }
    })
  )

  it.effect("in ssl_options that state what holds anyway are accepted", () =>
    Effect.gen(function* () {
      const options = "{'cert_reqs':2,'check_hostname':True,'ssl_version':5,'server_hostname':'rabbit.example.org'}"
      const config = yield* AmqpConfig.fromUrl(`amqps://u:p@rabbit?ssl_options=${options}`)
      assert.strictEqual(config.tls?.servername, "rabbit.example.org")
      assert.isTrue(config.tls?.verify)
    })
  )

  const wrong: Record<string, ReadonlyArray<string>> = {
    "heartbeat=": ["?heartbeat="],
    heartbeat: ["?heartbeat="],
    "heartbeat=x": ["?heartbeat="],
    "heartbeat=1.5": ["?heartbeat="],
    "heartbeat=65536": ["?heartbeat="],
    "heartbeat=-1": ["?heartbeat="],
    "heartbeat=NaN": ["?heartbeat="],
    "heartbeat=%ff": ["?heartbeat="],
    "heartbeat=1&heartbeat=1": ["?heartbeat="],
    "frame_max=8192&frameMax=8192": ["?frameMax="],
    "connect_timeout=5&stack_timeout=5": ["?stack_timeout="],
    "tcp_options=None&tcp_options=None": ["?tcp_options="],
    "frame_max=0x2000": ["?frame_max="],
    "frame_max=8192.0": ["?frame_max="],
    "channel_max=0": ["?channel_max="],
    "blocked_connection_timeout=0": ["?blocked_connection_timeout="],
    "backpressure_detection=maybe": ["?backpressure_detection="],
    "maxFrameSize=10": ["?maxFrameSize="],
    "Heartbeat=5": ["?Heartbeat="],
    "hartbeat=5": ["?hartbeat="],
    "foo=5": ["?foo="],
    foo: ["?"],
    "%zz=5": ["?"],
    "connection_timeout=5000": ["?connection_timeout="],
    "username=alice": ["?username="],
    "client_properties=[1]": ["?client_properties="],
    "client_properties={'a': open('/etc/passwd')}": ["?client_properties="],
    "tcp_options={'TCP_NODELAY': 1}": ["?tcp_options= TCP_NODELAY"],
    "tcp_options={'TCP_KEEPCNT': 0}": ["?tcp_options= TCP_KEEPCNT"],
    "tcp_options={'TCP_KEEPIDLE': 'x'}": ["?tcp_options= TCP_KEEPIDLE"],
    "tcp_options=5": ["?tcp_options="],
    "ssl_options={'server_hostname':'x'}": ["?ssl_options= server_hostname"],
    "tls_verify=true": ["?tls_verify="],
    "pool_size=0": ["?pool_size="],
    "pool=false&pool_size=3": ["?pool_size="],
    "client_properties={'connection_name':'a'}&connection_name=b": ["?client_properties=.connection_name"]
  }
  for (const [query, settings] of Object.entries(wrong)) {
    it.effect(`?${query} is refused`, () =>
      Effect.map(refused(AmqpConfig.fromUrl(`amqp://localhost?${query}`)), (found) =>
        assert.deepStrictEqual(found, settings)
      )
    )
  }

  it.effect("with ssl_options=None contradict amqps, as in Pika", () =>
    Effect.map(refused(AmqpConfig.fromUrl("amqps://u:p@rabbit?ssl_options=None")), (settings) =>
      assert.deepStrictEqual(settings, ["?ssl_options="])
    )
  )

  it.effect("for TLS below 1.2, a directory of authorities and unknown fields are refused", () =>
    Effect.gen(function* () {
      const options = "{'ssl_version':3,'ca_path':'/etc/ssl','protocol':4,'cafiel':'x'}"
      const settings = yield* refused(AmqpConfig.fromUrl(`amqps://u:p@rabbit?ssl_options=${options}`))
      assert.deepStrictEqual(settings, [
        "?ssl_options= ssl_version",
        "?ssl_options= ca_path",
        "?ssl_options= protocol",
        "?ssl_options= cafiel"
      ])
    })
  )

  it.effect("with mistakes are all in one error", () =>
    Effect.gen(function* () {
      const issues = yield* issuesOf(
        AmqpConfig.fromUrl("amqp://alice@rabbit:0/a/b?heartbeat=x&frmae_max=1&heartbeat=3&pool_min=20")
      )
      assert.deepStrictEqual(
        issues.map(({ got, setting }) => `${setting} ${got}`),
        [
          "url virtual host a path with more than one /",
          "?frmae_max= an unknown parameter",
          "?heartbeat= more than one value",
          "url host port 0",
          "url password nothing",
          '?heartbeat= "x"',
          "?pool_min= 20"
        ]
      )
      assert.include(issues[1]?.expected, "?frame_max=")
    })
  )
})

describe("overrides", () => {
  it.effect("replace what the URL says, setting by setting", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl("amqp://alice:s3cret@a,b/shop?heartbeat=5&frame_max=8192&pool=false", {
        host: "c",
        vhost: "other",
        heartbeat: "7 seconds",
        pool: { max: 3 }
      })
      assert.deepStrictEqual(config.hosts, [{ host: "c", port: 5672 }])
      assert.deepStrictEqual(login(config), ["alice", "s3cret"])
      assert.deepStrictEqual([config.vhost, millis(config.heartbeat), config.frameMax], ["other", 7000, 8192])
      assert.isTrue(config.pool !== false && config.pool.max === 3)
      assert.isFalse((yield* AmqpConfig.fromUrl("amqp://localhost?pool_size=3", { pool: false })).pool)
    })
  )

  it.effect("complete a URL without its password, or without a login", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl("amqp://alice@rabbit", { password: Redacted.make("s3cret") })
      assert.deepStrictEqual(login(config), ["alice", "s3cret"])
      const { credentials } = yield* AmqpConfig.fromUrl("amqps://alice:s3cret@rabbit", {
        credentials: { _tag: "External" },
        tls: { cert: certificate, key }
      })
      assert.strictEqual(credentials._tag, "External")
    })
  )

  it.effect("never enable or disable TLS against the scheme", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* refused(AmqpConfig.fromUrl("amqps://u:p@rabbit", { tls: false })), ["tls"])
      assert.deepStrictEqual(yield* refused(AmqpConfig.fromUrl("amqp://u:p@rabbit", { tls: { verify: true } })), [
        "tls"
      ])
      const { tls } = yield* AmqpConfig.fromUrl("amqps://u:p@rabbit?tls_servername=a", {
        tls: { minVersion: "TLSv1.3" }
      })
      assert.deepStrictEqual([tls?.servername, tls?.minVersion, tls?.verify], ["a", "TLSv1.3", true])
    })
  )

  it.effect("with mistakes are in one error with the URL's mistakes", () =>
    Effect.map(refused(AmqpConfig.fromUrl("amqp://localhost?foo=1", { pool: { max: 0 } })), (settings) =>
      assert.deepStrictEqual(settings, ["?foo=", "pool.max"])
    )
  )
})

describe("literals", () => {
  const literals: ReadonlyArray<readonly [text: string, value: unknown]> = [
    ["None", null],
    [" True ", true],
    ["{}", {}],
    [
      "{'a': 1, \"b\": [1, -2.5, 3e2,], 'c': ('x',), 'd': (1), 'e': ()}",
      { a: 1, b: [1, -2.5, 300], c: ["x"], d: 1, e: [] }
    ],
    ['{"a": {"b": null, "c": true}}', { a: { b: null, c: true } }],
    ["'it\\'s \\x41\\u00e9\\n'", "it's Aé\n"],
    ["'__proto__'", "__proto__"]
  ]
  for (const [text, value] of literals) {
    it(`${text} is read`, () => {
      assert.strictEqual(JSON.stringify(parseLiteral(text)), JSON.stringify(value))
    })
  }

  const none = (
    "|{|{'a'}|{'a': 1, 'a': 2}|{a: 1}|{1: 2}|[1 2]|'a|'\\q'|'\\ud'|nul|Truex|1x|__import__('os')|1+1|1e999|9007199254740993|" +
    `{'a': 1} x|${"[".repeat(10_000)}|${"{'a':".repeat(10_000)}`
  ).split("|")
  for (const text of none) {
    it(`${text.slice(0, 20)} is not a literal`, () => {
      assert.isUndefined(parseLiteral(text))
    })
  }

  it.prop(
    "include any JSON, which is read as JSON.parse reads it",
    { value: Schema.Record(Schema.String, Schema.Json) },
    ({ value }) => {
      const text = JSON.stringify(value)
      const read = parseLiteral(text)
      // These exceed the depth limit, or contain a number that a double cannot represent.
      if (read !== undefined) assert.strictEqual(JSON.stringify(read), text)
    }
  )

  it("treat a key called __proto__ as any other key", () => {
    const read = parseLiteral("{'__proto__': {'polluted': True}}")
    assert.isTrue(Object.hasOwn(read as object, "__proto__"))
    assert.isUndefined(({} as Record<string, unknown>)["polluted"])
  })
})

describe("A URL among the options", () => {
  it.effect("is read as fromUrl reads it, and the other options override it", () =>
    Effect.gen(function* () {
      const url = "amqps://orders:s3cret@a.example.org:5673/shop?heartbeat=5"
      assert.deepStrictEqual(
        yield* AmqpConfig.make({ url, heartbeat: "7 seconds" }),
        yield* AmqpConfig.fromUrl(url, { heartbeat: "7 seconds" })
      )
    })
  )

  it.effect("is refused with the same mistakes, and beside a URL that is an argument", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* issuesOf(AmqpConfig.make({ url: "http://h" })),
        yield* issuesOf(AmqpConfig.fromUrl("http://h"))
      )
      assert.include(yield* refused(AmqpConfig.make(untyped({ url: 5 }))), "url")
      assert.include(yield* refused(AmqpConfig.make(untyped({ url: undefined }))), "url")
      const both = yield* refused(AmqpConfig.fromUrl("amqp://u:p@a", untyped({ url: "amqp://u:p@b" })))
      assert.deepStrictEqual(both, ["url"])
    })
  )
})
