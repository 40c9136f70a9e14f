/** What a failure of the library means to an operator: its exit code, and what to do. */
import type { AmqpError } from "@effect-amqp/core"
import { type ExitCode, exitCodes, Failure } from "../failure.ts"

const cures: { readonly [Tag in AmqpError.AmqpErrorReason["_tag"]]?: string } = {
  ConnectFailed: "Check that the broker is running and that the address is right: effect-amqp doctor.",
  ConnectTimeout: "Check the address, and firewalls on the way: effect-amqp doctor.",
  TlsFailed: "Check AMQP_TLS_CA_FILE and the name in the broker's certificate: effect-amqp doctor.",
  AuthenticationFailed:
    "Check AMQP_USERNAME and AMQP_PASSWORD, or AMQP_URL: effect-amqp doctor says where they came from.",
  VirtualHostRefused: "Check AMQP_VHOST, and the user's permissions: rabbitmqctl list_permissions -p VHOST.",
  AccessRefused: "Give the user the permission: rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ.",
  NotFound: "Check the name and the virtual host (AMQP_VHOST): effect-amqp doctor.",
  PublishReturned: "Check the routing key and the bindings. --no-mandatory publishes what no queue takes.",
  PublishTimeout: "The broker may block publishers because of memory or disk: check its alarms.",
  ResourceLocked: "Another connection has the queue exclusively. Stop it, or wait until it is done."
}

const connecting: ReadonlySet<string> = new Set([
  "ConnectFailed",
  "ConnectTimeout",
  "TlsFailed",
  "AuthenticationFailed",
  "VirtualHostRefused"
])

const notPublished: ReadonlySet<string> = new Set(["PublishReturned", "PublishNacked"])

const usageTags: ReadonlySet<string> = new Set(["InvalidConfig", "InvalidArgument", "InvalidTopology"])

const exitCodeOf = ({ _tag }: AmqpError.AmqpErrorReason): ExitCode =>
  connecting.has(_tag)
    ? exitCodes.connection
    : notPublished.has(_tag)
      ? exitCodes.no
      : usageTags.has(_tag)
        ? exitCodes.usage
        : exitCodes.broker

export const cureOf = ({ _tag }: AmqpError.AmqpErrorReason): string | undefined => cures[_tag]

export const failureOf = ({ reason }: AmqpError.AmqpError): Failure =>
  new Failure({ tag: reason._tag, message: reason.message, cure: cureOf(reason), exitCode: exitCodeOf(reason) })
