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
