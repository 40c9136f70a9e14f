/** The broker of a run, and what the contests do with it apart from the contenders: declare, fill, count, purge. */
import { TestBroker } from "@effect-amqp/core/testing"
import amqplib from "amqplib"
import { Effect, Exit, Layer, Scope } from "effect"
import { execFileSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A TLS listener, and its certificate. */
interface Tls {
  readonly url: string
  readonly ca: string
}

export interface Broker {
  readonly url: string
  /** Present if OpenSSL can make a certificate and the benchmark has started the broker. */
  readonly tls: Tls | undefined
  /** Its product and version. */
  readonly product: string
  readonly declare: (queue: string) => Promise<void>
  /** Publishes this many transient messages, of `size` bytes each. */
  readonly fill: (queue: string, messages: number, size: number) => Promise<void>
  readonly count: (queue: string) => Promise<number>
  readonly purge: (queue: string) => Promise<void>
  readonly remove: (queue: string) => Promise<void>
  readonly close: () => Promise<void>
}

const freePort = async () => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, "close")
  return port
}

/** A certificate for this run, and the configuration of a listener with it. */
const certified = async (directory: string) => {
  const at = (name: string) => join(directory, name)
  try {
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"].concat(
        ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        ["-keyout", at("key.pem"), "-out", at("cert.pem")]
      ),
      { stdio: "ignore" }
    )
  } catch {
    return undefined
  }
  const port = await freePort()
  const config = [
    `listeners.ssl.1 = 127.0.0.1:${port}`,
    `ssl_options.cacertfile = ${at("cert.pem")}`,
    `ssl_options.certfile = ${at("cert.pem")}`,
    `ssl_options.keyfile = ${at("key.pem")}`,
    "ssl_options.verify = verify_none",
    "ssl_options.fail_if_no_peer_cert = false"
  ]
  return { port, config, ca: readFileSync(at("cert.pem"), "utf8") }
}

// amqplib's types do not contain the server properties.
const productOf = ({ connection }: amqplib.ChannelModel) => {
  const { serverProperties } = connection as unknown as {
    readonly serverProperties: { readonly product: string; readonly version: string }
  }
  return `${serverProperties.product} ${serverProperties.version}`
}

export const start = async (): Promise<Broker> => {
  const directory = mkdtempSync(join(tmpdir(), "effect-amqp-bench-"))
  const certificate = await certified(directory)
  const scope = Scope.makeUnsafe()
  const broker = await Effect.runPromise(
    Layer.buildWithScope(TestBroker.layerPrivate({ config: certificate?.config }), scope).pipe(
      Effect.flatMap((context) => Effect.provide(TestBroker.TestBroker, context))
    )
  )
  const connection = await amqplib.connect(broker.url, { noDelay: true })
  const channel = await connection.createConfirmChannel()
  return {
    url: broker.url,
    tls:
      certificate === undefined || broker.processes === undefined
        ? undefined
        : {
            url: Object.assign(new URL(broker.url.replace(/^amqp:/, "amqps:")), {
              hostname: "localhost",
              port: String(certificate.port)
            }).href,
            ca: certificate.ca
          },
    product: productOf(connection),
    declare: async (queue) => void (await channel.assertQueue(queue)),
    fill: async (queue, messages, size) => {
      const content = Buffer.alloc(size, "x")
      for (let i = 0; i < messages; i++) {
        if (!channel.publish("", queue, content, { persistent: false })) await once(channel, "drain")
      }
      await channel.waitForConfirms()
    },
    count: async (queue) => (await channel.checkQueue(queue)).messageCount,
    purge: async (queue) => void (await channel.purgeQueue(queue)),
    remove: async (queue) => void (await channel.deleteQueue(queue)),
    close: async () => {
      await connection.close()
      await Effect.runPromise(Scope.close(scope, Exit.void))
      rmSync(directory, { recursive: true, force: true })
    }
  }
}
