/** What the page is made of before its script has run. */
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
<p id="peer"></p>
<p id="stream" class="connecting">connecting</p>
<button id="pause" type="button" aria-pressed="false">Pause</button>
</header>
<main>
<p id="lost" hidden><b>Stream lost.</b> <span id="age"></span> Trying again.</p>
<noscript><p>This page draws with JavaScript, which is off.</p></noscript>
<div id="say" class="vh" role="log"></div>
<ul id="conditions" hidden></ul>
<dl id="tiles"></dl>
<div id="plots"></div>
</main>
<script>${script}</script>
</body>
</html>
`
