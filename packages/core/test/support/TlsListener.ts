/** TLS listeners of the broker under test: any number, each with its own certificate and requirements. */
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { createPrivateKey, X509Certificate } from "node:crypto"
import * as Ports from "../../src/testing/internal/ports.ts"
import * as Certificates from "./certificates.ts"

export interface Options {
  /** The broker's certificate. Default: `Certificates.server`. */
  readonly identity?: { readonly cert: string; readonly key: string }
  /**
   * Whether clients are asked for a certificate of `Certificates.ca`, and whether they may connect without one.
   * Default: they are not asked.
   */
  readonly clients?: "not asked" | "may show a certificate" | "must show a certificate"
  /** Default: TLS 1.2 and 1.3. */
  readonly versions?: ReadonlyArray<"tlsv1" | "tlsv1.1" | "tlsv1.2" | "tlsv1.3">
}

const binary = (der: Uint8Array) => `base64:decode(<<"${Buffer.from(der).toString("base64")}">>)`

const derOf = (certificate: string) => binary(new X509Certificate(certificate).raw)

const optionsOf = ({
  clients = "not asked",
  identity = Certificates.server,
  versions = ["tlsv1.2", "tlsv1.3"]
}: Options) =>
  [
    `{cert, ${derOf(identity.cert)}}`,
    `{key, {'PrivateKeyInfo', ${binary(createPrivateKey(identity.key).export({ type: "pkcs8", format: "der" }))}}}`,
    `{cacerts, [${derOf(Certificates.ca)}]}`,
    `{versions, [${versions.map((version) => `'${version}'`).join(",")}]}`,
    `{verify, ${clients === "not asked" ? "verify_none" : "verify_peer"}}`,
    `{fail_if_no_peer_cert, ${clients === "must show a certificate"}}`
  ].join(",")

/** Whether the broker's own ports can be reached: those of a container cannot. */
export const isPossible = Effect.map(TestBroker.TestBroker, ({ processes }) => processes !== undefined)

const listen = Effect.fnUntraced(function* (options: Options) {
  const { evaluate } = yield* TestBroker.TestBroker
  const [port = 0] = yield* Ports.free(1)
  yield* evaluate(`
    {ok, _} = application:ensure_all_started(ssl),
    ok = rabbit_networking:start_ssl_listener({"127.0.0.1", ${port}}, [${optionsOf(options)}], 2).
  `)
  return port
})

/** Starts to listen on 127.0.0.1 and a free port, which it returns, until the broker ends. */
export const make = (options: Options = {}) =>
  // Another process may have taken the port since then.
  Effect.retry(listen(options), { times: 2 })
