/** What a failure of the library means to an operator: its exit code, and what to do. */
import type { AmqpError } from "@effect-amqp/core"
import { type ExitCode, exitCodes, Failure } from "../failure.ts"

const cures: { readonly [Tag in AmqpError.AmqpErrorReason["_tag"]]?: string } = {
  ConnectFailed: "Check that the broker is running and that the address is right.",
  ConnectTimeout: "Check the address, and firewalls on the way.",
  AuthenticationFailed: "Check AMQP_USERNAME and AMQP_PASSWORD, or AMQP_URL.",
  VirtualHostRefused: "Check AMQP_VHOST, and the user's permissions: rabbitmqctl list_permissions -p VHOST.",
  AccessRefused: "Give the user the permission: rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ.",
  NotFound: "AMQP_VHOST or AMQP_URL names the virtual host.",
  PublishReturned: "Check the routing key and the bindings. --no-mandatory publishes what no queue takes.",
  PublishNacked:
    "A queue refused the message, perhaps because it is full (overflow reject-publish). Let it drain first.",
  PublishTimeout: "The broker may block publishers because of memory or disk: rabbitmq-diagnostics alarms.",
  PublishUnknown: "It is not known whether the message has arrived. Look before it is published again.",
  AcquireTimeout: "The broker may block this connection because of memory or disk: rabbitmq-diagnostics alarms.",
  ReplyTimeout: "The broker may block this connection because of memory or disk: rabbitmq-diagnostics alarms.",
  ConnectionClosed: "Check that the broker runs, and run it again. Its log says why it closed the connection.",
  InactivityTimeout: "Another consumer may be the single active one of the queue: stop it.",
  ProtocolError: "Check that the address is that of a RabbitMQ, and its AMQP port: 5672, or 5671 with TLS.",
  ChannelMaxReached: "The user's limit of channels is reached: rabbitmqctl list_user_limits --user USER.",
  ResourceLocked: "Another connection has the queue exclusively. Stop it, or wait until it is done."
}

/** By the code of OpenSSL or Node. The error's message says more. */
const tlsCures: ReadonlyArray<readonly [code: RegExp, cure: string]> = [
  [
    /^(?:UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_)/,
    "Name the authority that signed the broker's certificate in AMQP_TLS_CA_FILE."
  ],
  [/ALTNAME_INVALID$/, "Check the address, or set AMQP_TLS_SERVERNAME to the name in the broker's certificate."],
  [/^CERT_/, "Renew the broker's certificate, or correct this machine's clock."],
  [
    /ALERT_HANDSHAKE_FAILURE$|CERTIFICATE|UNKNOWN_CA$/,
    "Check the client's certificate: AMQP_TLS_CERT_FILE and AMQP_TLS_KEY_FILE."
  ],
  [/WRONG_VERSION_NUMBER$/, "Check the port, or use amqp:// instead of amqps:// (AMQP_TLS=false)."]
]

/** What `effect-amqp doctor` shows more of. */
const checkedByDoctor: ReadonlySet<string> = new Set([
  "ConnectFailed",
  "ConnectTimeout",
  "TlsFailed",
  "AuthenticationFailed",
  "VirtualHostRefused",
  "ProtocolError"
])

const connecting: ReadonlySet<string> = new Set([
  "ConnectFailed",
  "ConnectTimeout",
  "TlsFailed",
  "AuthenticationFailed",
  "VirtualHostRefused"
])

const notPublished: ReadonlySet<string> = new Set(["PublishReturned", "PublishNacked"])

const usageTags: ReadonlySet<string> = new Set(["InvalidConfig", "InvalidArgument", "InvalidTopology"])

/** Whether there was no connection yet: something else than a broker has answered, or it closed at once. */
const isOpening = (reason: AmqpError.AmqpErrorReason): boolean =>
  "operation" in reason && reason.operation === "connection.open"

const exitCodeOf = (reason: AmqpError.AmqpErrorReason): ExitCode => {
  const { _tag } = reason
  return connecting.has(_tag) || (isOpening(reason) && !usageTags.has(_tag))
    ? exitCodes.connection
    : notPublished.has(_tag)
      ? exitCodes.no
      : usageTags.has(_tag)
        ? exitCodes.usage
        : exitCodes.broker
}

export const cureOf = (reason: AmqpError.AmqpErrorReason): string | undefined =>
  reason._tag === "TlsFailed"
    ? (tlsCures.find(([code]) => code.test(reason.code ?? ""))?.[1] ?? "Check the variables AMQP_TLS_*.")
    : cures[reason._tag]

export const failureOf = ({ reason }: AmqpError.AmqpError): Failure => {
  const cure = cureOf(reason)
  return new Failure({
    tag: reason._tag,
    message: reason.message,
    cure:
      cure !== undefined && checkedByDoctor.has(reason._tag)
        ? `${cure} effect-amqp doctor shows the settings and where they came from.`
        : cure,
    exitCode: exitCodeOf(reason)
  })
}
