/** Programs for the browser, as text, that find accessibility problems in a page. */

/** Problems with the names, the structure and the width of a page; empty if there are none. */
export const accessibilityProblems = String.raw`(() => {
  const wrong = []
  const check = (isFine, what) => isFine || wrong.push(what)
  const all = (selector) => [...document.querySelectorAll(selector)]
  check(document.documentElement.lang !== "", "no language")
  for (const one of ["h1", "header", "main"]) check(all(one).length === 1, all(one).length + " of " + one)
  const ids = all("[id]").map(({ id }) => id)
  check(new Set(ids).size === ids.length, "a duplicate id: " + ids)
  const named = (id) => document.getElementById(id)?.textContent.trim()
  check(all("figure").length >= 10, "figures are missing")
  for (const figure of all("figure")) {
    check(named(figure.getAttribute("aria-labelledby")), "a figure without a name")
    check(figure.querySelector("table tbody tr"), "no table in " + figure.firstChild.textContent)
  }
  for (const svg of all("svg")) {
    const label = svg.getAttribute("aria-label") ?? ""
    check(svg.getAttribute("role") === "img" && /Now: .+\./.test(label), "a plot without a description: " + label)
  }
  for (const th of all("th")) {
    check(th.scope !== "" && th.textContent.trim() !== "", "a table header without a name or a scope: " + th.outerHTML)
  }
  for (const row of all("tbody tr")) check(row.firstChild.scope === "row", "a row without a header: " + row.textContent)
  for (const button of all("button").filter((button) => button.checkVisibility())) {
    check(button.textContent.trim() !== "", "a button without a name")
    const { height, width } = button.getBoundingClientRect()
    check(height >= 24 && width >= 24, "a small button")
  }
  // The order of the keyboard must be the order of the source.
  check(all("[tabindex]").every(({ tabIndex }) => tabIndex <= 0), "a tab order that differs from the source")
  check(document.documentElement.scrollWidth <= innerWidth, "wider than the window: " + document.documentElement.scrollWidth)
  for (const element of all("body *")) {
    const { right, width } = element.getBoundingClientRect()
    if (!element.closest(".vh") && width > 0) {
      check(right <= innerWidth + 1, "beyond the edge: " + element.outerHTML.slice(0, 100))
    }
  }
  return wrong
})()`

export interface Contrasts {
  readonly compared: number
  /** Elements with too little contrast to their background. */
  readonly low: ReadonlyArray<string>
}

/** The contrast of all texts with their background, and of all lines and states that the page can have (WCAG 2.2). */
export const contrasts = String.raw`(() => {
  const low = []
  let compared = 0
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true })
  const rgb = (colour) => {
    paint.clearRect(0, 0, 1, 1)
    paint.fillStyle = colour
    paint.fillRect(0, 0, 1, 1)
    return [...paint.getImageData(0, 0, 1, 1).data]
  }
  const luminance = (colour) => {
    const [r, g, b] = rgb(colour).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const compare = (what, front, back, least) => {
    compared++
    const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a)
    const ratio = (light + 0.05) / (dark + 0.05)
    if (ratio < least) low.push(what + ": " + front + " on " + back + " is " + ratio.toFixed(2) + ", expected " + least)
  }
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at)
      if (rgb(backgroundColor)[3] === 255) return backgroundColor
    }
    return "white"
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement
    if (texts.currentNode.data.trim() === "" || !element.checkVisibility() || element.closest(".vh, .on, noscript, script")) continue
    const style = getComputedStyle(element)
    compare(texts.currentNode.data, element.closest("svg") ? style.fill : style.color, behind(element), 4.5)
  }
  // The states that the page does not show now are checked too.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim()
  for (const word of ["text", "soft", "good", "warn", "bad"]) {
    for (const back of ["card", "page"]) compare(word, colour(word), colour(back), 4.5)
  }
  for (const state of ["good", "warn", "bad"]) compare("a word on " + state, colour("card"), colour(state), 4.5)
  for (const line of ["a", "b", "c", "soft"]) compare("line " + line, colour(line), colour("card"), 3)
  return { compared, low }
})()`
