#!/usr/bin/env node
/**
 * The command `effect-amqp`.
 *
 * This file imports nothing of the library, so that an old Node gets a sentence and not a syntax error, and so that the
 * compile cache is on before the program is loaded: it halves the time of `--help`.
 */
import * as Module from "node:module"

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)

if (major < 22 || (major === 22 && minor < 19)) {
  console.error(`effect-amqp: expected Node 22.19 or later, got ${process.versions.node}. Install a later Node.`)
  process.exitCode = 2
} else {
  Module.enableCompileCache()
  void import("./program.ts").then(({ run }) => run())
}
