/** Failures in words, by their tags: what has happened, and what to do. The messages of errors may name users. */

export interface Cause {
  readonly why: string
  readonly todo: string
}

/** Why there is no connection. */
export const connectionCauses: Readonly<Record<string, Cause>> = {
  ConnectFailed: {
    why: "the broker cannot be reached",
    todo: "Check that the broker runs, and that its host and port are right and reachable from here."
  },
  ConnectTimeout: {
    why: "the broker does not answer",
    todo: "Check that the broker runs and is not overloaded, and that no firewall drops the packets."
  },
  TlsFailed: { why: "TLS failed", todo: "Check the certificates, their dates and the server’s name." },
  AuthenticationFailed: {
    why: "the broker refuses the credentials",
    todo: "Correct user and password, or renew the token."
  },
  VirtualHostRefused: {
    why: "the broker refuses the virtual host",
    todo: "Create the virtual host, or permit it to the user."
  },
  ConnectionClosed: {
    why: "the connection was closed or lost",
    todo: "If it lasts, look at the broker’s log and the network."
  },
  ProtocolError: {
    why: "the broker reported a protocol error",
    todo: "Look at the service’s log, and report the error."
  },
  BrokerError: { why: "the broker reported an error of its own", todo: "Look at the broker’s log." },
  AccessRefused: { why: "the broker refuses access", todo: "Check the user’s permissions." }
}

/** Why a consumer has ended, or does not run. */
export const consumerCauses: Readonly<Record<string, Cause>> = {
  ConsumerCancelled: { why: "its queue was deleted", todo: "Declare the queue." },
  NotFound: { why: "its queue does not exist", todo: "Declare the queue." },
  AccessRefused: {
    why: "it has no permission, or another consumer has the queue exclusively",
    todo: "Check the user’s permissions and the other consumers of the queue."
  },
  ResourceLocked: {
    why: "another connection has the queue exclusively",
    todo: "End the other connection, or declare the queue without `exclusive`."
  },
  PreconditionFailed: {
    why: "the broker refuses its settings",
    todo: "Compare the consumer’s options with the queue, and handlers with the consumer timeout."
  },
  InvalidArgument: { why: "one of its options is invalid", todo: "Correct the option that the log names." },
  MessageTooLarge: {
    why: "a message is larger than `maxMessageSize`",
    todo: "Remove the message from the queue, or raise the limit."
  },
  StreamStopped: {
    why: "a message of the stream was not handled",
    todo: "Correct the handler, or let it skip such messages."
  },
  ChannelClosed: { why: "its channel was closed", todo: "Look at the service’s log." },
  NoConnection: { why: "there is no connection", todo: "See the connection." }
}

const unknown = (tag: string): Cause => ({
  why: tag === "" ? "for an unknown reason" : tag.slice(0, 100),
  todo: "Look at the service’s log."
})

const at = (causes: Readonly<Record<string, Cause>>, tag: string) =>
  Object.hasOwn(causes, tag) ? causes[tag] : undefined

/** The documentation has Markdown. */
const plain = ({ todo, why }: Cause): Cause => ({ why: why.replaceAll("`", ""), todo: todo.replaceAll("`", "") })

export const causeOf = (tag: string): Cause => plain(at(connectionCauses, tag) ?? unknown(tag))

export const endOf = (tag: string): Cause => plain(at(consumerCauses, tag) ?? at(connectionCauses, tag) ?? unknown(tag))
