/**
 * The style of the page. Text has a contrast of 4.5 to 1 with its background, lines and areas 3 to 1 (WCAG 2.2, 1.4.3
 * and 1.4.11), in the light and in the dark scheme; the tests compute them. Every color is accompanied by a word.
 */
export const style = `
:root {
  color-scheme: light dark;
  --page: #f3f5f8; --card: #ffffff; --line: #dde2ea; --grid: #e8ecf1;
  --text: #1b222c; --soft: #566173;
  --a: #0b5cc0; --b: #a8480a; --c: #6d3fd0;
  --good: #14713d; --warn: #8f5400; --bad: #b3202c; --shade: #b3202c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1218; --card: #161d26; --line: #2a3440; --grid: #232d38;
    --text: #e4e9f0; --soft: #9aa7b8;
    --a: #6cb0ff; --b: #f2a45c; --c: #bb9cff;
    --good: #58c98b; --warn: #e5b454; --bad: #ff8982; --shade: #ff8982;
  }
}
* { box-sizing: border-box; margin: 0 }
body {
  background: var(--page); color: var(--text); padding: 14px clamp(10px, 2vw, 24px) 24px;
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
body > * { max-width: 1440px; margin-inline: auto }
.vh { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 14px; margin-bottom: 10px }
h1 { font-size: 17px; font-weight: 650 }
h2 { font-size: 13px; font-weight: 650 }
h2 small { font-weight: 400; font-size: 12px; color: var(--soft) }
#peer, #service { color: var(--soft); flex: 1 1 100%; overflow-wrap: anywhere; font-size: 13px }
#controls { display: flex; flex-wrap: wrap; gap: 6px; margin-left: auto }
#stream { display: flex; align-items: center; gap: 6px; color: var(--good); font-weight: 600 }
#stream::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: currentColor }
#stream.lost { color: var(--bad) }
#stream.paused, #stream.connecting { color: var(--warn) }
button {
  font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--soft); border-radius: 6px;
  padding: 3px 12px; min-height: 28px; cursor: pointer;
}
:focus-visible { outline: 2px solid var(--a); outline-offset: 2px }
#lost { border: 1px solid var(--bad); border-left-width: 5px; border-radius: 6px; background: var(--card); padding: 8px 12px; margin-bottom: 10px }
#lost b { color: var(--bad) }
#findings { list-style: none; padding: 0; margin: 0 0 10px; display: grid; grid-template-columns: minmax(0, 1fr); gap: 4px }
#findings li {
  background: var(--card); border: 1px solid var(--line); border-left: 5px solid; border-radius: 6px;
  padding: 6px 12px; overflow-wrap: anywhere;
}
#findings li span, #findings li b { color: var(--text) }
#findings li.bad b { color: var(--bad) }
#findings li.warn b { color: var(--warn) }
#findings li.good b { color: var(--good) }
#findings bdi, th bdi { font-weight: 600 }
.name {
  border: 0; border-bottom: 1px dotted; border-radius: 0; background: none; padding: 0 2px; min-height: 24px; min-width: 24px;
  max-width: min(18em, 100%); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; vertical-align: bottom; text-align: start;
}
.name[aria-expanded="true"] { max-width: 100%; white-space: normal; overflow-wrap: anywhere }
/* A lost stream leaves values behind that look like present ones. */
.stale main :is(#findings, dl, section, figure) * { color: var(--soft) !important }
.stale main svg { opacity: .4; filter: grayscale(1) }
.stale #findings li, .stale #tiles div, .stale section, .stale figure { border-style: dashed }
dl {
  display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 1px; margin-bottom: 10px; overflow: hidden;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
}
dl:has(div:nth-child(11)) { grid-template-columns: repeat(6, minmax(0, 1fr)) }
dl div { box-shadow: 0 0 0 1px var(--line); padding: 8px 12px 9px; min-width: 0 }
dt { color: var(--soft); font-size: 12px }
dd { font-size: 21px; font-weight: 600; line-height: 1.25; overflow-wrap: anywhere }
dd small { display: block; font-size: 12px; font-weight: 400; color: var(--soft) }
#plots { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 10px }
figure, section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 9px 12px 8px; min-width: 0 }
figure { grid-column: span 2 }
section { margin-bottom: 10px }
section label { color: var(--soft); font-size: 13px }
#filtered { color: var(--soft); font-size: 13px; display: inline }
input { font: inherit; color: var(--text); background: var(--page); border: 1px solid var(--soft); border-radius: 6px; padding: 2px 8px; min-height: 28px; max-width: 100% }
figure.wide { grid-column: span 3 }
svg { display: block; width: 100%; height: 118px; margin: 5px 0 4px; overflow: visible; touch-action: pan-y }
.wide svg { height: 46px }
svg text { font-size: 11px; fill: var(--soft) }
svg .on { fill: var(--card); font-weight: 650 }
table { width: 100%; border-collapse: collapse; font-size: 13px; table-layout: fixed }
.wide table { table-layout: auto }
th:first-child { width: 36% }
table:has(th:nth-child(5)) th:first-child { width: 32% }
figure:not(:has(svg)) table:has(th:nth-child(5)) th:first-child { width: 26% }
figure table:not(:has(th:nth-child(3))) th:first-child { width: 75% }
th, td { text-align: right; font-weight: 400; padding: 2px 0 2px 8px; vertical-align: top; overflow-wrap: break-word }
.wide th:first-child { width: auto }
th:first-child, :is(.wide, section) :is(th, td) { text-align: left; padding-left: 0; padding-right: 10px }
.wide :is(th, td) { white-space: nowrap }
.wide td:last-child { width: 99%; white-space: normal; overflow-wrap: anywhere }
section table { margin-top: 6px }
@media (min-width: 1001px) {
  #consumers [data-kind="name"] { width: 22% }
  #consumers [data-kind="state"] { width: 16% }
  #consumers [data-kind="few"] { width: 7% }
  #consumers [data-kind="broker"] { width: 11% }
  #consumers [data-kind="long"] { width: 16% }
}
section > button { margin-top: 6px }
figure.names { grid-column: span 3 }
figure.names > table:first-of-type th:first-child { width: 52% }
.advice { color: var(--soft); font-size: 13px; margin-top: 6px }
table + table { margin-top: 6px }
thead th { color: var(--soft); font-size: 12px; line-height: 1.25; vertical-align: bottom }
details { margin-top: 4px; font-size: 13px }
summary { color: var(--soft); cursor: pointer; min-height: 24px }
tbody tr { border-top: 1px solid var(--grid) }
figure > table:first-of-type td:nth-child(2) { font-weight: 600 }
figure.wide td:nth-child(2) { font-weight: 400 }
.none { color: var(--soft); font-weight: 400 }
.key { display: inline-block; width: 16px; height: 0; border-top: 3px solid; margin-right: 7px; vertical-align: middle }
.key.dash { border-top-style: dashed }
.key.dot { border-top-style: dotted }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) }
td.good, td.warn, td.bad { font-weight: 600 }
@media (max-width: 1000px) {
  figure { grid-column: span 3 }
  figure.wide, figure.names { grid-column: 1 / -1 }
}
@media (max-width: 1000px) {
  th, td { padding-left: 4px }
  figure thead th { font-size: 11px }
  /* A row becomes a block with the titles of its columns. */
  section :is(table, tbody, th, td) { display: block; width: auto }
  section thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
  section tbody tr { display: flex; flex-wrap: wrap; padding: 5px 0 }
  section tbody th { flex: 1 1 100%; min-width: 0 }
  section tbody td { max-width: 100% }
  section td::before { content: attr(data-title) " "; color: var(--soft); font-weight: 400 }
  section td[data-none] { display: none }
}
@media (max-width: 640px) {
  figure { grid-column: 1 / -1 }
  .wide td { white-space: normal }
  dd { font-size: 18px }
  dl, dl:has(div:nth-child(11)) { grid-template-columns: repeat(2, minmax(0, 1fr)) }
  dl div:nth-child(11) { grid-column: 1 / -1 }
  #controls { margin-left: 0 }
}
@media (forced-colors: active) {
  :root {
    --page: Canvas; --card: Canvas; --line: CanvasText; --grid: GrayText; --text: CanvasText; --soft: CanvasText;
    --a: CanvasText; --b: LinkText; --c: Highlight; --good: CanvasText; --warn: CanvasText; --bad: CanvasText;
    --shade: GrayText;
  }
  svg { forced-color-adjust: none }
  svg .on { fill: Canvas }
  .key { forced-color-adjust: none }
}
@media print {
  :root {
    color-scheme: light; --page: #fff; --card: #fff; --line: #999; --grid: #ddd; --text: #000; --soft: #444;
    --a: #0b5cc0; --b: #a8480a; --c: #6d3fd0; --good: #14713d; --warn: #8f5400; --bad: #b3202c; --shade: #b3202c;
  }
  body { padding: 0; font-size: 11px }
  #controls, #again, section > button, section label, #filter, details:not([open]) { display: none }
  figure, section tr, #findings li { break-inside: avoid }
  svg, .key, #stream::before { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  .name { max-width: 100%; white-space: normal; overflow-wrap: anywhere }
}
@media (prefers-reduced-motion: no-preference) {
  /* The dot beats with the samples. An animation would make the browser paint all the time. */
  #stream.live[data-beat]::before { opacity: .35 }
}
`
