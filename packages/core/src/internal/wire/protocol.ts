/** Numbers of AMQP 0-9-1, sections 1.4 and 2.3 (https://www.rabbitmq.com/amqp-0-9-1-reference). */

export const methodFrame = 1
export const headerFrame = 2
export const bodyFrame = 3
export const frameEnd = 0xce
/** Size of a frame's header, in bytes: type, channel and size. */
export const frameHeaderSize = 7
/** Size of a frame without its payload, in bytes: the header, and the end. */
export const frameOverhead = frameHeaderSize + 1

/** A method as it is on the wire: the number of its class, and its own. */
export const method = (classId: number, methodId: number) => (classId << 16) | methodId

export const heartbeatFrame = 8

export const connectionStart = method(10, 10)
export const connectionSecure = method(10, 20)
export const connectionTune = method(10, 30)
export const connectionOpenOk = method(10, 41)
export const connectionClose = method(10, 50)
export const connectionCloseOk = method(10, 51)
export const connectionBlocked = method(10, 60)
export const connectionUnblocked = method(10, 61)
export const connectionUpdateSecretOk = method(10, 71)

export const channelOpenOk = method(20, 11)
export const channelFlow = method(20, 20)
export const channelFlowOk = method(20, 21)
export const channelClose = method(20, 40)
export const channelCloseOk = method(20, 41)

export const exchangeDeclareOk = method(40, 11)
export const exchangeDeleteOk = method(40, 21)
export const exchangeBindOk = method(40, 31)
export const exchangeUnbindOk = method(40, 51)
export const queueDeclareOk = method(50, 11)
export const queueBindOk = method(50, 21)
export const queuePurgeOk = method(50, 31)
export const queueDeleteOk = method(50, 41)
export const queueUnbindOk = method(50, 51)

export const confirmSelect = method(85, 10)
export const confirmSelectOk = method(85, 11)
export const txSelect = method(90, 10)
export const txSelectOk = method(90, 11)
export const txCommit = method(90, 20)
export const txCommitOk = method(90, 21)
export const txRollback = method(90, 30)
export const txRollbackOk = method(90, 31)

export const classBasic = 60
export const basicQosOk = method(classBasic, 11)
export const basicConsumeOk = method(classBasic, 21)
export const basicCancel = method(classBasic, 30)
export const basicCancelOk = method(classBasic, 31)
export const basicPublish = method(classBasic, 40)
export const basicReturn = method(classBasic, 50)
export const basicDeliver = method(classBasic, 60)
export const basicGet = method(classBasic, 70)
export const basicGetOk = method(classBasic, 71)
export const basicGetEmpty = method(classBasic, 72)
export const basicAck = method(classBasic, 80)
export const basicReject = method(classBasic, 90)
export const basicRecoverOk = method(classBasic, 111)
export const basicNack = method(classBasic, 120)

const operations: Readonly<Record<number, string>> = {
  [method(20, 10)]: "channel.open",
  [channelFlow]: "channel.flow",
  [channelClose]: "channel.close",
  [method(40, 10)]: "exchange.declare",
  [method(40, 20)]: "exchange.delete",
  [method(40, 30)]: "exchange.bind",
  [method(40, 40)]: "exchange.unbind",
  [method(50, 10)]: "queue.declare",
  [method(50, 20)]: "queue.bind",
  [method(50, 30)]: "queue.purge",
  [method(50, 40)]: "queue.delete",
  [method(50, 50)]: "queue.unbind",
  [method(classBasic, 10)]: "basic.qos",
  [method(classBasic, 20)]: "basic.consume",
  [basicCancel]: "basic.cancel",
  [basicPublish]: "basic.publish",
  [basicGet]: "basic.get",
  [basicAck]: "basic.ack",
  [basicReject]: "basic.reject",
  [method(classBasic, 110)]: "basic.recover",
  [basicNack]: "basic.nack",
  [confirmSelect]: "confirm.select",
  [txSelect]: "tx.select",
  [txCommit]: "tx.commit",
  [txRollback]: "tx.rollback"
}

/** Methods that are not the name of an operation. */
const others: Readonly<Record<number, string>> = {
  [connectionStart]: "connection.start",
  [connectionSecure]: "connection.secure",
  [connectionTune]: "connection.tune",
  [connectionOpenOk]: "connection.open-ok",
  [connectionClose]: "connection.close",
  [connectionCloseOk]: "connection.close-ok",
  [connectionBlocked]: "connection.blocked",
  [connectionUnblocked]: "connection.unblocked",
  [connectionUpdateSecretOk]: "connection.update-secret-ok",
  [basicReturn]: "basic.return",
  [basicDeliver]: "basic.deliver",
  [basicGetEmpty]: "basic.get-empty"
}

/** The name of any method in AMQP, if it is known; otherwise its class and number. */
export const methodName = (id: number): string => {
  const replyTo = operations[id - 1]
  return (
    others[id] ?? operations[id] ?? (replyTo === undefined ? `method ${id >>> 16}.${id & 0xffff}` : `${replyTo}-ok`)
  )
}

/**
 * The name of a client's method in AMQP. `undefined` if the broker did not say which (0, 0), or if the library never
 * sends it.
 */
export const operationOf = (classId: number, methodId: number): string | undefined =>
  operations[method(classId, methodId)]
