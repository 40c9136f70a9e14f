/**
 * Prints the time since the process began, and ends the process. Each program here is what a reader of a README would
 * write.
 */
export const confirmed = () => {
  const milliseconds = performance.now()
  const { system, user } = process.cpuUsage()
  process.stdout.write(`${JSON.stringify({ milliseconds, cpu: (system + user) / 1000 })}\n`, () => process.exit())
}

export const [url, queue] = process.argv.slice(2)
