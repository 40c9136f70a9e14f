// What the built site promises in a browser: every page at the width of a phone and of a desktop. No page scrolls
// sideways, a wide table scrolls in itself, every image is there, and the plots can be read.
import { Effect } from "effect"
import { createServer } from "node:http"
import { globSync } from "node:fs"
import * as Chromium from "../packages/http/test/support/chromium.ts"
import { answer } from "./serve.mjs"

/** Widths of the window, in pixels. */
const widths = [390, 1280]

/** Width of the column in which the repository's host shows README.md and docs, in pixels. */
const columnWidth = 830

/** The least size of a text in a plot, in pixels. */
const leastText = 11

/** Runs in a page. What is wrong with it at its width, each as a sentence. */
const problemsOfPage = () => {
  const found = []
  const width = document.documentElement.clientWidth
  const nameOf = (element) =>
    `<${element.localName}${element.className ? ` class="${element.className}"` : ""}> "${element.textContent.trim().replace(/\s+/g, " ").slice(0, 40)}"`
  const scrolls = (element) => ["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(element).overflowX)
  const scrollerOf = (element) => {
    for (
      let parent = element.parentElement;
      parent !== null && parent !== document.body;
      parent = parent.parentElement
    ) {
      if (scrolls(parent)) return parent
    }
    return undefined
  }
  const pageWidth = document.documentElement.scrollWidth
  if (pageWidth > width) {
    const wide = [...document.body.querySelectorAll("*")].filter(
      (element) =>
        element.checkVisibility() && element.getBoundingClientRect().right > width + 1 && !scrollerOf(element)
    )
    const last = wide.at(-1)
    found.push(`it scrolls sideways: it is ${pageWidth} pixels wide${last ? `, by ${nameOf(last)}` : ""}`)
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.checkVisibility()) continue
    const { left, right } = table.getBoundingClientRect()
    const scroller = scrollerOf(table)
    if (scroller === undefined ? left < -1 || right > width + 1 : getComputedStyle(scroller).overflowX === "hidden") {
      const column = scroller?.getBoundingClientRect()
      if (column === undefined || right > column.right + 1) found.push(`a table is cut off: ${nameOf(table)}`)
    }
    if (table.scrollWidth > table.clientWidth + 1 && !["auto", "scroll"].includes(getComputedStyle(table).overflowX)) {
      found.push(`a table is wider than its column, and does not scroll: ${nameOf(table)}`)
    }
    for (const cell of table.querySelectorAll("th, td")) {
      if (cell.scrollWidth > cell.clientWidth + 1) found.push(`a cell of a table is too narrow: ${nameOf(cell)}`)
    }
  }
  for (const image of document.images) {
    const { left, right } = image.getBoundingClientRect()
    const name = image.currentSrc.split("/").at(-1)
    if (image.checkVisibility() && (left < -1 || right > width + 1)) found.push(`an image is cut off: ${name}`)
    if (image.complete && image.naturalWidth === 0) found.push(`an image cannot be loaded: ${name}`)
  }
  const titles = new Map()
  const main = document.querySelector(".tsd-typography")
  // Each version of the changelog has sections of the same titles.
  if (!location.pathname.endsWith("/changelog.html")) {
    for (const heading of main?.querySelectorAll("h1, h2, h3") ?? []) {
      const title = heading.textContent.trim()
      if (titles.has(title) && titles.get(title) === heading.parentElement)
        found.push(`two sections are titled "${title}"`)
      titles.set(title, heading.parentElement)
    }
  }
  return found
}

/** Runs in a plot that is `shown` pixels wide. What is wrong with it, each as a sentence. */
const problemsOfPlot = ({ leastText, shown }) => {
  const found = []
  const svg = document.documentElement
  const { height, width } = svg.viewBox.baseVal
  const scale = Math.min(1, shown / width)
  const texts = [...svg.querySelectorAll("text")].map((text) => ({ box: text.getBBox(), text }))
  for (const { box, text } of texts) {
    const name = `"${text.textContent}"`
    const isInside = box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height
    if (!isInside) found.push(`a text is cut off: ${name}`)
    const size = parseFloat(getComputedStyle(text).fontSize) * scale
    if (size < leastText) found.push(`a text has ${size.toFixed(1)} pixels, expected at least ${leastText}: ${name}`)
    // A text that is pressed into its room cannot be read.
    const natural = text.hasAttribute("textLength") ? text.cloneNode(true) : undefined
    if (natural !== undefined) {
      natural.removeAttribute("textLength")
      text.parentElement.append(natural)
      const ratio = box.width / natural.getBBox().width
      natural.remove()
      if (ratio < 0.8) found.push(`a text is drawn at ${Math.round(100 * ratio)} % of its width: ${name}`)
    }
  }
  const meet = (a, b) =>
    a.x + a.width > b.x + 1 && b.x + b.width > a.x + 1 && a.y + a.height > b.y + 3 && b.y + b.height > a.y + 3
  texts.forEach((one, i) => {
    for (const other of texts.slice(i + 1)) {
      if (meet(one.box, other.box))
        found.push(`two texts overlap: "${one.text.textContent}", "${other.text.textContent}"`)
    }
  })
  const bars = [...svg.querySelectorAll("rect[class]")].filter((rect) => !rect.classList.contains("page"))
  for (const bar of bars) {
    const box = bar.getBBox()
    if (box.x + box.width > width) found.push(`a bar is cut off: ${box.width} pixels`)
  }
  if (bars.length > 0 && bars.every((bar) => bar.classList.contains("peer")))
    found.push("all bars are in the peers' grey")
  return { colours: Object.fromEntries(bars.map((bar) => [bar.classList[0], getComputedStyle(bar).fill])), found }
}

// --- Colors as people see them who cannot tell all of them apart -------------------------------------------------------

const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)

/** Linear RGB as a person with a color vision deficiency sees it (Machado, Oliveira and Fernandes, 2009; severity 1). */
const visions = {
  normal: [1, 0, 0, 0, 1, 0, 0, 0, 1],
  protanopia: [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
  deuteranopia: [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
  tritanopia: [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039]
}

/** The color in Oklab, in which distances are as they are seen. */
const oklab = (colour, vision) => {
  const rgb = colour
    .match(/[\d.]+/g)
    .slice(0, 3)
    .map((part) => linear(Number(part) / 255))
  const [r, g, b] = [0, 3, 6].map((i) =>
    Math.max(0, vision[i] * rgb[0] + vision[i + 1] * rgb[1] + vision[i + 2] * rgb[2])
  )
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s
  ]
}

/** The least distance at which two bars are clearly of different colors. */
const leastDistance = 0.1

const confusions = (colours) => {
  const found = []
  for (const [vision, matrix] of Object.entries(visions)) {
    const roles = Object.entries(colours)
    roles.forEach(([role, colour], i) => {
      for (const [other, otherColour] of roles.slice(i + 1)) {
        const distance = Math.hypot(...oklab(colour, matrix).map((part, k) => part - oklab(otherColour, matrix)[k]))
        if (distance < leastDistance) {
          found.push(
            `bars of ${role} and ${other} look alike (${vision}, ${distance.toFixed(3)}, expected ${leastDistance})`
          )
        }
      }
    })
  }
  return found
}

// --- Visiting ----------------------------------------------------------------------------------------------------------

const serving = (folder) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const files = answer(folder)
      // A page reads the index of the search, which has 775 KB, after it is shown: that would take most of the time.
      const server = createServer((request, response) =>
        request.url.endsWith("/assets/search.js") ? response.writeHead(204).end() : files(request, response)
      )
      await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
      return server
    }),
    (server) =>
      Effect.promise(
        () =>
          new Promise((resolve) => {
            server.close(resolve)
            server.closeAllConnections()
          })
      )
  )

const visit = (folder) =>
  Effect.gen(function* () {
    const begin = performance.now()
    const { missing, path } = yield* Chromium.find
    if (path === undefined) return { missing }
    const browser = yield* Chromium.launch(path)
    const server = yield* serving(folder)
    const origin = `http://127.0.0.1:${server.address().port}`
    const context = yield* Effect.promise(() => browser.newContext())
    // The many pages of the reference are made by one template, whose script takes more time than all else.
    const withoutScript = yield* Effect.promise(() => browser.newContext({ javaScriptEnabled: false }))
    const found = []

    const pages = globSync("**/*.html", { cwd: folder }).map((path) => path.replaceAll("\\", "/"))
    const isReference = (path) => /^(?:classes|functions|interfaces|types|variables)\//.test(path)
    const visitor = async (context, paths) => {
      const page = await context.newPage()
      const order = [...widths]
      page.on("pageerror", (error) => found.push(`${page.url()}: ${error.message}`))
      for (const next of paths) {
        // The next page begins at the width at which this one ends: a page that is resized is laid out again.
        order.reverse()
        await page.setViewportSize({ width: order[0], height: 800 })
        await page.goto(`${origin}/${next}`)
        for (const width of order) {
          await page.setViewportSize({ width, height: 800 })
          for (const problem of await page.evaluate(problemsOfPage)) {
            found.push(`${next}, ${width} pixels wide: ${problem}`)
          }
        }
      }
      await page.close()
    }
    const reference = pages.filter(isReference)
    yield* Effect.promise(() =>
      Promise.all([
        visitor(
          context,
          pages.filter((path) => !isReference(path))
        ),
        visitor(withoutScript, reference)
      ])
    )

    const plots = globSync("media/*.svg", { cwd: folder }).map((path) => path.replaceAll("\\", "/"))
    const page = yield* Effect.promise(() => context.newPage())
    yield* Effect.promise(async () => {
      for (const plot of plots) {
        await page.goto(`${origin}/${plot}`)
        // A window of 390 pixels leaves a column of about 358.
        const shown = plot.endsWith("-narrow.svg") ? 358 : columnWidth
        for (const colorScheme of ["light", "dark"]) {
          await page.emulateMedia({ colorScheme })
          const result = await page.evaluate(problemsOfPlot, { leastText, shown })
          for (const problem of new Set([...result.found, ...confusions(result.colours)])) {
            found.push(`${plot}, ${colorScheme}: ${problem}`)
          }
        }
      }
    })
    const seconds = ((performance.now() - begin) / 1000).toFixed(1)
    return { found, pages: pages.length, plots: plots.length, seconds }
  }).pipe(Effect.scoped)

/** What is wrong with a built site in a browser, each as a sentence; or why there is no browser. */
export const lookAt = (folder) => Effect.runPromise(visit(folder))
