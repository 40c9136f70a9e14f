/** Removes secrets from texts that leave the process, as far as they can be recognized. */

const hidden = "<redacted>"

// The user information of a URL: drivers and HTTP clients quote their URLs in errors.
const userInfo = /\b([a-z][a-z0-9+.-]*:\/\/)[^\s/?#@"']*@/gi

// `password=...`, `"apiKey": "..."`, `Authorization: Bearer ...`. What follows counts up to the next delimiter.
const named =
  /(["']?\b(?:[a-z0-9_-]*(?:password|passwd|secret|token|api[_-]?key|authorization)|pwd)["']?\s*[:=]\s*)(?:(?:bearer|basic)\s+)?("[^"]*"|'[^']*'|[^\s,;&"'}\])]+)/gi

const scheme = /\b(bearer|basic)\s+[a-z0-9+/._~=-]{8,}/gi

/** Returns the text without user information of URLs, and without the values of names that say that they are secret. */
export const redactText = (text: string): string =>
  text.replace(userInfo, `$1${hidden}@`).replace(named, `$1${hidden}`).replace(scheme, `$1 ${hidden}`)
