export * as TestBroker from "./TestBroker.ts"
