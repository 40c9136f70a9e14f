/** Progress, on stderr: one line that changes on a terminal, and otherwise only the lines that matter. */

const isTerminal = process.stderr.isTTY === true

const clear = () => isTerminal && process.stderr.write("\r\u001B[K")

export const show = (text: string) => {
  if (!isTerminal) return
  clear()
  process.stderr.write(text.slice(0, (process.stderr.columns ?? 80) - 1))
}

export const line = (text: string) => {
  clear()
  process.stderr.write(`${text}\n`)
}
