/** Numbers of AMQP 0-9-1, section 1.4 and 2.3 (https://www.rabbitmq.com/amqp-0-9-1-reference). */

export const methodFrame = 1
export const headerFrame = 2
export const bodyFrame = 3
export const frameEnd = 0xce
/** Of a frame, before its payload: type, channel and size. */
export const prefix = 7
/** Of a frame, beside its payload: what is before it, and the end behind it. */
export const overhead = prefix + 1

/** A method, as it is on the wire: its class and its own number. */
export const method = (classId: number, methodId: number) => (classId << 16) | methodId

export const connectionClose = method(10, 50)
export const channelOpenOk = method(20, 11)
export const channelFlow = method(20, 20)
export const channelFlowOk = method(20, 21)

/** Also what amqplib calls a content header, by its class. */
export const classBasic = 60
export const basicPublish = method(classBasic, 40)
export const basicReturn = method(classBasic, 50)
export const basicDeliver = method(classBasic, 60)
export const basicGetOk = method(classBasic, 71)
export const basicGetEmpty = method(classBasic, 72)
export const basicAck = method(classBasic, 80)
export const basicNack = method(classBasic, 120)

const operations: Readonly<Record<number, string>> = {
  [method(20, 10)]: "channel.open",
  [channelFlow]: "channel.flow",
  [method(20, 40)]: "channel.close",
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
  [method(classBasic, 30)]: "basic.cancel",
  [basicPublish]: "basic.publish",
  [method(classBasic, 70)]: "basic.get",
  [basicAck]: "basic.ack",
  [method(classBasic, 90)]: "basic.reject",
  [method(classBasic, 110)]: "basic.recover",
  [basicNack]: "basic.nack",
  [method(85, 10)]: "confirm.select",
  [method(90, 10)]: "tx.select",
  [method(90, 20)]: "tx.commit",
  [method(90, 30)]: "tx.rollback"
}

/** A client's method in AMQP's words. `undefined`: the broker did not say which (0, 0), or none that is sent here. */
export const operationOf = (classId: number, methodId: number): string | undefined =>
  operations[method(classId, methodId)]
