/**
 * The environment of a program under test: without variables that point to another broker or port, or belong to the
 * test runner.
 */
const foreign = /^(?:AMQP_|PORT$|NODE_|VITEST|EFFECT_AMQP_)/

/** This process's environment without those variables. */
export const environment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)))
