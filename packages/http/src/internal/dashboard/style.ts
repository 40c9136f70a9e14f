/**
 * How the page looks. Colours of words have a contrast of 4.5 to 1 with what is behind them, lines and areas 3 to 1 (WCAG 2.2,
 * 1.4.3 and 1.4.11), light and dark; the tests compute them. No colour says anything that a word does not say as well.
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
#peer { color: var(--soft); flex: 1 1 auto; overflow-wrap: anywhere }
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
.stale main svg { opacity: .45 }
dl {
  display: grid; grid-template-columns: repeat(6, 1fr); gap: 1px; margin-bottom: 10px; overflow: hidden;
  background: var(--line); border: 1px solid var(--line); border-radius: 8px;
}
dl div { background: var(--card); padding: 8px 12px 9px; min-width: 0 }
dt { color: var(--soft); font-size: 12px }
dd { font-size: 21px; font-weight: 600; line-height: 1.25; overflow-wrap: anywhere }
dd small { display: block; font-size: 12px; font-weight: 400; color: var(--soft) }
#plots { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 10px }
figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 9px 12px 8px; min-width: 0; grid-column: span 2 }
figure.wide { grid-column: span 3 }
svg { display: block; width: 100%; height: 118px; margin: 5px 0 4px; overflow: visible; touch-action: pan-y }
.wide svg { height: 46px }
svg text { font-size: 11px; fill: var(--soft) }
svg .on { fill: var(--card); font-weight: 650 }
table { width: 100%; border-collapse: collapse; font-size: 13px; table-layout: fixed }
.wide table { table-layout: auto }
th:first-child { width: 34% }
th, td { text-align: right; font-weight: 400; padding: 2px 0 2px 10px; white-space: nowrap }
.wide th:first-child { width: auto }
th:first-child, .wide th, .wide td { text-align: left; padding-left: 0; padding-right: 10px }
.wide td:last-child { width: 99%; white-space: normal; overflow-wrap: anywhere }
table + table { margin-top: 6px }
thead th { color: var(--soft); font-size: 12px }
tbody tr { border-top: 1px solid var(--grid) }
td:nth-child(2) { font-weight: 600 }
.wide td:nth-child(2) { font-weight: 400 }
.none { color: var(--soft); font-weight: 400 }
.key { display: inline-block; width: 16px; height: 0; border-top: 3px solid; margin-right: 7px; vertical-align: middle }
.key.dash { border-top-style: dashed }
.key.dot { border-top-style: dotted }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) }
td.good, td.warn, td.bad { font-weight: 600 }
@media (max-width: 1000px) {
  figure { grid-column: span 3 }
  figure.wide { grid-column: 1 / -1 }
  dl { grid-template-columns: repeat(3, 1fr) }
}
@media (max-width: 640px) {
  figure { grid-column: 1 / -1 }
  .wide td { white-space: normal }
  dl { grid-template-columns: repeat(2, 1fr) }
  dd { font-size: 18px }
  #peer { flex-basis: 100%; order: 1 }
  #stream { margin-left: auto }
}
@media (prefers-reduced-motion: no-preference) {
  #stream.live::before { animation: beat 2s ease-in-out infinite }
  @keyframes beat { 50% { opacity: .35 } }
}
`
