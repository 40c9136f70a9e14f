/** What a program under test inherits: nothing that leads it to another broker or port, or is the test runner's own. */
const foreign = /^(?:AMQP_|PORT$|NODE_|VITEST|EFFECT_AMQP_)/

/** This process' environment without that. */
export const environment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)))
