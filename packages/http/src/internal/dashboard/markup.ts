/** The markup of the page, before its script runs. */
export const markup = (style: string, script: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AMQP</title>
<link rel="icon" href="data:,">
<style>${style}</style>
</head>
<body>
<header>
<h1 id="name">AMQP</h1>
<p id="stream" class="connecting">connecting</p>
<p id="controls">
<button id="range" type="button">Range: 5 minutes</button>
<button id="zone" type="button">Times: UTC</button>
<button id="freeze" type="button">Freeze</button>
</p>
<p id="peer"></p>
<p id="service"></p>
</header>
<main>
<p id="lost" hidden><b id="lost-title"></b> <span id="lost-text"></span> <span id="age"></span>
<button id="again" type="button" hidden>Try again</button></p>
<noscript><p>This page needs JavaScript, which is disabled.</p></noscript>
<div id="say" class="vh" role="log"></div>
<ul id="findings" aria-label="What is wrong"></ul>
<dl id="tiles"></dl>
<section id="consumers" aria-labelledby="consumers-title">
<h2 id="consumers-title">Consumers</h2>
<label for="filter">Filter by queue</label> <input id="filter" type="search" autocomplete="off" spellcheck="false">
<p id="filtered" role="status"></p>
</section>
<div id="plots"></div>
</main>
<script>${script}</script>
</body>
</html>
`
