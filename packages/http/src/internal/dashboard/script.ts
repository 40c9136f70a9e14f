/**
 * What the page does: it listens, remembers what came, and draws that at most once a frame. By hand, without a library, in what
 * all browsers know; without `innerHTML`, so that nothing it is told becomes markup.
 */
export const script = String.raw`
"use strict";
(function () {
  var SVG = "http://www.w3.org/2000/svg";
  var kinds = ["regular", "confirm", "transaction"];
  var colours = ["var(--a)", "var(--b)", "var(--c)"];
  var dashes = ["", "6 3", "2 3"], keys = ["", " dash", " dot"];
  var words = {
    connecting: ["connecting", "warn"], open: ["open", "good"], blocked: ["blocked", "warn"],
    reconnecting: ["reconnecting", "bad"], closed: ["closed", "bad"], none: ["none", "soft"]
  };
  var hello = { window: 300000, interval: 1000, max: null }, samples = [], phases = [], consumers = [], totals = null;
  var frozen = null, at = null, heardAt = 0, isLost = false, toldFull = [], drawn = 0;

  // --- Making elements ---

  function make(tag, attributes, children) {
    var element = document.createElement(tag);
    return fill(element, attributes, children);
  }
  function draw(tag, attributes, children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
  }
  function fill(element, attributes, children) {
    for (var name in attributes) element.setAttribute(name, attributes[name]);
    [].concat(children === undefined ? [] : children).forEach(function (child) {
      element.append(child);
    });
    return element;
  }
  function byId(id) { return document.getElementById(id); }
  // What has not changed is left alone: screen readers lose their place otherwise.
  function put(element, text, kind) {
    if (element.textContent !== text) element.textContent = text;
    if (kind !== undefined && element.className !== kind) element.className = kind;
  }
  function say(text) {
    byId("say").append(make("p", {}, text));
    while (byId("say").children.length > 5) byId("say").firstChild.remove();
  }

  // --- Words for numbers ---

  var whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  var tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  var precise = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
  function count(value) { return whole.format(value); }
  function rate(value) { return value > 0 && value < 100 ? tenths.format(value) : whole.format(value); }
  function time(value) { return value >= 1000 ? precise.format(value / 1000) + " s" : precise.format(value) + " ms"; }
  function span(milliseconds) {
    var s = Math.max(0, Math.round(milliseconds / 1000));
    // A number and its unit are one word.
    if (s < 60) return s + "\u00a0s";
    if (s < 3600) return Math.floor(s / 60) + "\u00a0min " + (s % 60) + "\u00a0s";
    return Math.floor(s / 3600) + "\u00a0h " + Math.floor((s % 3600) / 60) + "\u00a0min";
  }
  function clock(milliseconds) {
    return new Date(milliseconds).toLocaleTimeString("en-GB");
  }

  // --- The plots ---

  function kindsOf(index) {
    return kinds.map(function (kind, i) {
      return { name: kind, value: function (sample) { return sample.pools[i][index]; } };
    });
  }
  function listOf(name, names) {
    return names.map(function (word, i) {
      return { name: word, value: function (sample) { return sample[name] && sample[name][i]; } };
    });
  }
  function listed(counts) {
    return Object.keys(counts).map(function (name) {
      return [name.replace("timedOut", "timed out").replace(/_/g, " "), counts[name]];
    });
  }
  var ranks = ["median", "95 %", "99 %"];
  var plots = [
    { title: "Channels in use", unit: "by kind", format: count, series: kindsOf(0), limit: true, idle: kindsOf(1) },
    { title: "Borrowers in line", unit: "by kind", format: count, series: kindsOf(2) },
    { title: "Publisher", unit: "messages", hasFlow: true, format: count, series: listOf("publisher", ["on their way", "in line"]) },
    { title: "Published", unit: "a second", format: rate, series: listOf("published", ["confirmed", "failed"]) },
    { title: "Time to the confirm", format: time, isLog: true, series: listOf("confirming", ranks) },
    { title: "Published since the start", counts: function (all) {
      return [{ head: ["Outcome", "messages"], rows: listed(all.published) }];
    } },
    { title: "Consumed", unit: "a second", format: rate, series: listOf("consumed", ["delivered", "acknowledged", "otherwise settled"]) },
    { title: "Time in handlers", format: time, isLog: true, series: listOf("handling", ranks) },
    { title: "Channels and deliveries since the start", counts: function (all) {
      var tables = [{ head: ["Channels", "opened", "recycled", "discarded", "timeouts"], rows: kinds.map(function (kind, i) {
        return [kind].concat(all.pools[i]);
      }) }];
      if (all.settled) tables.push({ head: ["Deliveries", "count"], rows: listed(all.settled) });
      return tables;
    } }
  ];
  function table(head) {
    var body = make("tbody"), row = make("tr");
    head.forEach(function (word) { row.append(make("th", { scope: "col" }, word)); });
    return { body: body, head: row, all: make("table", {}, [make("thead", {}, row), body]) };
  }
  function figure(title, unit, id) {
    var heading = make("h2", { id: id }, unit ? [title + " ", make("small", {}, unit)] : title);
    var element = make("figure", { "aria-labelledby": id }, heading);
    byId("plots").append(element);
    return element;
  }
  function watch(svg) {
    function look(event) {
      var box = svg.getBoundingClientRect(), seen = view();
      at = seen.from + ((event.clientX - box.left - left) / (box.width - left)) * (seen.to - seen.from);
      if (at > seen.to || at < seen.from) at = null;
      later();
    }
    svg.addEventListener("pointermove", look);
    svg.addEventListener("pointerdown", look);
    svg.addEventListener("pointerleave", function () { at = null; later(); });
  }

  // The connections' own figures come first.
  function history(title, unit, id) {
    var element = figure(title, unit, id), strip = draw("svg", { role: "img" }), told = table(["Since", "State", "For", "Why"]);
    element.className = "wide";
    element.append(strip, told.all);
    watch(strip);
    return { title: title, strip: strip, told: told };
  }
  var ofConnection = history("Connection", "of pool and publisher", "plot-connection");
  var ofConsumers = history("Consumers’ connection", "while there are any", "plot-consumers");

  plots.forEach(function (plot, i) {
    var element = figure(plot.title, plot.unit, "plot-" + i);
    plot.small = element.querySelector("small");
    if (plot.counts) {
      element.append(make("p", { class: "none" }, "no data"));
      plot.element = element;
      plot.made = [];
      return;
    }
    plot.svg = draw("svg", { role: "img" });
    var made = table(["", "now", "lowest", "highest"].concat(plot.idle ? ["idle"] : []));
    made.head.firstChild.append(make("span", { class: "vh" }, plot.title));
    plot.now = made.head.children[1];
    plot.cells = plot.series.map(function (series, k) {
      var key = make("span", { class: "key" + keys[k], "aria-hidden": "true" });
      key.style.borderColor = colours[k];
      var cells = [0, 0, 0].concat(plot.idle ? [0] : []).map(function () { return make("td"); });
      made.body.append(make("tr", {}, [make("th", { scope: "row" }, [key, series.name])].concat(cells)));
      return cells;
    });
    element.append(plot.svg, made.all);
    watch(plot.svg);
  });
  var tiles = {};
  ["Connection", "Channels in use", "In line", "Published", "Consumed", "Confirm, 95 %"].forEach(function (name) {
    tiles[name] = make("dd", {}, "–");
    byId("tiles").append(make("div", {}, [make("dt", {}, name), tiles[name]]));
  });
  function tile(name, value, unit, kind) {
    var dd = tiles[name], text = value + (unit ? " " + unit : "");
    if (dd.textContent !== text) dd.replaceChildren(value, unit ? make("small", {}, " " + unit) : "");
    dd.className = kind || "";
  }

  // --- Drawing ---

  var left = 46, top = 8, bottom = 16;
  function present() {
    var phase = phases[phases.length - 1], sample = samples[samples.length - 1];
    return Math.max(phase ? phase.at : 0, sample ? sample.at : 0);
  }
  function view() {
    var to = frozen === null ? present() : frozen;
    // A history that is short is shown larger.
    var age = samples.length > 0 ? to - samples[0].at : 0;
    var wide = age <= 60000 ? 60000 : age <= 120000 ? 120000 : hello.window;
    return { from: to - wide, to: to, words: wide === 60000 ? "the last minute" : "the last " + wide / 60000 + " minutes" };
  }
  function nearest(list, moment) {
    var best = null;
    list.forEach(function (sample) {
      if (best === null || Math.abs(sample.at - moment) < Math.abs(best.at - moment)) best = sample;
    });
    return best && Math.abs(best.at - moment) < 2.5 * hello.interval ? best : null;
  }
  function nice(value) {
    if (!(value > 0)) return 1;
    var power = Math.pow(10, Math.floor(Math.log10(value))), part = value / power;
    return (part <= 1 ? 1 : part <= 2 ? 2 : part <= 4 ? 4 : part <= 6 ? 6 : part <= 8 ? 8 : 10) * power;
  }
  function known(value) { return value !== null && value !== undefined; }
  function axis(svg, size, seen) {
    var wide = (seen.to - seen.from) / 1000, step = wide === 60 ? 20 : wide === 120 ? 30 : 60;
    for (var ago = 0; ago < wide; ago += step) {
      svg.append(draw("text", { x: size.x(seen.to - ago * 1000), y: size.height - 2, "text-anchor": ago ? "middle" : "end" },
        ago === 0 ? "now" : "−" + (ago % 60 ? ago + " s" : ago / 60 + " min")));
    }
  }
  function scale(svg, seen) {
    var width = svg.clientWidth;
    return { width: width, height: svg.clientHeight, x: function (moment) {
      return left + (Math.max(0, moment - seen.from) / (seen.to - seen.from)) * (width - left);
    } };
  }
  // Where the connection was not open, every plot has a shade.
  function shades(svg, size, seen, height) {
    phases.forEach(function (phase, i) {
      var end = phases[i + 1] ? phases[i + 1].at : seen.to;
      if (phase.name === "open" || end < seen.from || phase.at > seen.to) return;
      svg.append(draw("rect", { x: size.x(phase.at), y: top, width: Math.max(1, size.x(Math.min(end, seen.to)) - size.x(phase.at)),
        height: height, fill: phase.name === "blocked" ? "var(--warn)" : "var(--shade)", "fill-opacity": .13 }));
    });
  }
  function pointer(svg, size, height) {
    if (at === null) return;
    svg.append(draw("line", { x1: size.x(at), x2: size.x(at), y1: top, y2: height, stroke: "var(--soft)" }));
  }

  function drawPlot(plot, seen, shown, moment) {
    var size = scale(plot.svg, seen), low = size.height - bottom, most = 0, least = Infinity, sentences = [];
    var limit = plot.limit && hello.max !== null ? hello.max : null;
    plot.series.forEach(function (series, k) {
      var values = shown.map(series.value).filter(known), value = moment && series.value(moment), cells = plot.cells[k];
      series.last = value;
      if (values.length > 0) most = Math.max(most, Math.max.apply(null, values)), least = Math.min(least, Math.min.apply(null, values));
      var numbers = values.length === 0 ? [null, null, null] : [value, Math.min.apply(null, values), Math.max.apply(null, values)];
      numbers.forEach(function (number, i) {
        put(cells[i], known(number) ? plot.format(number) : values.length === 0 ? (i ? "" : "no data") : "–", known(number) ? "" : "none");
      });
      if (plot.idle) put(cells[3], moment ? plot.format(plot.idle[k].value(moment)) : "–");
      sentences.push(series.name + " " + cells[0].textContent);
    });
    if (limit !== null) sentences.push("at most " + count(limit) + " of each kind");
    if (plot.hasFlow && totals) put(plot.small, "messages, " + totals.flow.toLowerCase());
    put(plot.now, at === null || !moment ? "now" : clock(moment.at));
    var paper = document.createDocumentFragment(), peak, floor, ticks, y;
    if (plot.isLog) {
      // What takes ten seconds after an outage would make all the rest flat.
      floor = Math.floor(Math.log10(most > 0 ? Math.max(least, 0.01) : 1));
      peak = Math.max(floor + 1, Math.ceil(Math.log10(Math.max(most, 0.01))));
      var step = peak - floor > 3 ? 2 : 1;
      ticks = [];
      for (var power = floor; power <= peak; power += step) ticks.push(Math.pow(10, power));
      y = function (value) { return low - ((Math.log10(Math.max(value, 0.01)) - floor) / (peak - floor)) * (low - top); };
    } else {
      peak = nice(Math.max(most, limit || 0) || (plot.format === count ? 1 : 0));
      ticks = peak === 1 && plot.format === count ? [0, 1] : [0, peak / 2, peak];
      y = function (value) { return low - (value / peak) * (low - top); };
    }
    shades(paper, size, seen, low - top);
    ticks.forEach(function (tick, i) {
      paper.append(draw("line", { x1: left, x2: size.width, y1: y(tick), y2: y(tick), stroke: i ? "var(--grid)" : "var(--line)" }));
      if (most > 0 || limit !== null || (i === 0 && !plot.isLog)) {
        paper.append(draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick ? plot.format(tick).replace(",000", "k") : "0"));
      }
    });
    if (limit !== null) {
      paper.append(draw("line", { x1: left, x2: size.width, y1: y(limit), y2: y(limit), stroke: "var(--soft)", "stroke-dasharray": "2 4" }));
    }
    var isEmpty = true;
    plot.series.slice().reverse().forEach(function (series, back) {
      var k = plot.series.length - 1 - back, path = "", area = "", run = null, before = null;
      function close() { if (run !== null) area += "L" + run.end + " " + low + "L" + run.start + " " + low + "Z"; run = null; }
      shown.forEach(function (sample) {
        var value = series.value(sample), isNext = before !== null && sample.at - before < 2.5 * hello.interval;
        before = sample.at;
        if (!known(value)) return close();
        isEmpty = false;
        if (!isNext) close();
        var point = size.x(sample.at).toFixed(1) + " " + y(value).toFixed(1);
        path += (run === null ? "M" : "L") + point;
        area += (run === null ? "M" : "L") + point;
        if (run === null) path += "h.1", run = { start: size.x(sample.at).toFixed(1) };
        run.end = size.x(sample.at).toFixed(1);
      });
      close();
      if (path === "") return;
      if (k === 0 && !plot.isLog) paper.append(draw("path", { d: area, fill: colours[k], "fill-opacity": .14 }));
      paper.append(draw("path", { d: path, fill: "none", stroke: colours[k], "stroke-width": 1.8, "stroke-linejoin": "round",
        "stroke-linecap": dashes[k] ? "butt" : "round", "stroke-dasharray": dashes[k] }));
    });
    if (isEmpty) {
      paper.append(draw("text", { x: left + (size.width - left) / 2, y: (top + low) / 2 + 4, "text-anchor": "middle" }, "no data"));
    }
    axis(paper, size, seen);
    pointer(paper, size, low);
    plot.svg.replaceChildren(paper);
    plot.svg.setAttribute("aria-label", plot.title + (plot.unit ? ", " + plot.unit : "") + ", " + seen.words + ". Now: " + sentences.join(", ") + ".");
  }

  function drawConnection(seen, figure, phases) {
    var strip = figure.strip, told = figure.told, size = scale(strip, seen), low = size.height - bottom, paper = document.createDocumentFragment();
    phases.forEach(function (phase, i) {
      var end = Math.min(phases[i + 1] ? phases[i + 1].at : seen.to, seen.to);
      if (end < seen.from || phase.at > seen.to) return;
      var from = size.x(phase.at), width = Math.max(2, size.x(end) - from), word = words[phase.name];
      paper.append(draw("rect", { x: from, y: top, width: width, height: low - top - 2, fill: "var(--" + word[1] + ")" }));
      if (width > word[0].length * 6.8 + 8) {
        paper.append(draw("text", { class: "on", x: from + 6, y: (top + low) / 2 + 3 }, word[0]));
      }
    });
    axis(paper, size, seen);
    pointer(paper, size, low);
    strip.replaceChildren(paper);
    var last = phases[phases.length - 1];
    strip.setAttribute("aria-label", figure.title + ", " + seen.words + ". Now: " + (last ? last.name : "no data") + ". Each state is in the table.");
    var rows = phases.slice(-6).reverse();
    rows.forEach(function (phase, i) {
      var row = told.body.children[i];
      if (!row) {
        row = make("tr", {}, [make("th", { scope: "row" }), make("td"), make("td"), make("td")]);
        told.body.append(row);
      }
      var next = phases[phases.indexOf(phase) + 1], word = words[phase.name], why = phase.reason || "";
      if (phase.attempt) why += (why ? ", " : "") + phase.attempt + (phase.attempt === 1 ? " attempt" : " attempts") + " failed";
      if (phase.name === "open") why = "connection " + phase.generation + " to " + phase.peer;
      put(row.children[0], clock(phase.at));
      put(row.children[1], word[0], word[1]);
      put(row.children[2], span((next ? next.at : seen.to) - phase.at));
      put(row.children[3], why);
    });
    while (told.body.children.length > rows.length) told.body.lastChild.remove();
  }

  function drawCounts(plot) {
    if (totals === null) return;
    plot.counts(totals).forEach(function (wanted, t) {
      var made = plot.made[t];
      if (!made) {
        made = plot.made[t] = table(wanted.head);
        if (t === 0) plot.element.lastChild.replaceWith(made.all);
        else plot.element.append(made.all);
      }
      wanted.rows.forEach(function (row, i) {
        var cells = made.body.children[i];
        if (!cells) {
          cells = make("tr", {}, row.map(function (_, k) { return k ? make("td") : make("th", { scope: "row" }); }));
          made.body.append(cells);
        }
        row.forEach(function (value, k) { put(cells.children[k], k ? count(value) : value); });
      });
    });
  }

  function drawTiles(moment, seen) {
    var phase = phases[phases.length - 1], of = hello.max === null ? "" : "of " + count(hello.max);
    if (phase) tile("Connection", words[phase.name][0], "for " + span(seen.to - phase.at), words[phase.name][1]);
    if (!moment) return;
    var regular = moment.pools[0], isFull = hello.max !== null && regular[0] >= hello.max;
    var waiting = moment.pools.reduce(function (sum, pool) { return sum + pool[2]; }, 0);
    tile("Channels in use", count(regular[0]), of, isFull ? "warn" : "");
    tile("In line", count(waiting), waiting === 1 ? "borrower" : "borrowers", waiting > 0 ? "warn" : "");
    tile("Published", moment.published ? rate(moment.published[0]) : "–", "a second");
    tile("Consumed", moment.consumed ? rate(moment.consumed[0]) : "–", moment.consumed ? "a second" : "no data");
    tile("Confirm, 95 %", moment.confirming ? time(moment.confirming[1]) : "–", moment.confirming ? "" : "no data");
  }

  function render() {
    drawn = 0;
    if (at !== null && at < view().from) at = null;
    var seen = view(), shown = samples.filter(function (sample) { return sample.at >= seen.from && sample.at <= seen.to; });
    var moment = nearest(shown, at === null ? seen.to : at);
    plots.forEach(function (plot) { if (plot.counts) drawCounts(plot); else drawPlot(plot, seen, shown, moment); });
    drawConnection(seen, ofConnection, phases);
    drawConnection(seen, ofConsumers, consumers);
    drawTiles(at === null ? moment : nearest(shown, seen.to), seen);
    if (hello.name) put(byId("name"), "AMQP: " + hello.name);
    var last = phases[phases.length - 1], named = phases.filter(function (phase) { return phase.peer; }).pop();
    if (named) put(byId("peer"), (last.peer ? "" : "last on ") + named.product + " at " + named.peer);
    document.title = (isLost ? "stream lost" : last ? last.name : "") + " · " + byId("name").textContent;
  }
  function later() {
    if (drawn === 0) drawn = requestAnimationFrame(render);
  }

  // --- Listening ---

  function state() {
    var badge = byId("stream");
    if (isLost) put(badge, "stream lost", "lost");
    else if (frozen !== null) put(badge, "paused", "paused");
    else put(badge, heardAt ? "live" : "connecting", heardAt ? "live" : "connecting");
    byId("lost").hidden = !isLost;
    put(byId("age"), heardAt ? "What is below is " + span(Date.now() - heardAt) + " old." : "Nothing has come yet.");
    document.body.classList.toggle("stale", isLost);
  }
  function heard() {
    heardAt = Date.now();
    if (isLost) say("The stream is back.");
    isLost = false;
    state();
    later();
  }
  function lost() {
    if (!isLost && heardAt) say("Stream lost. Trying again.");
    isLost = true;
    state();
    later();
  }
  function tell(phase, before) {
    if (!before || before.name === phase.name) return;
    if (phase.name === "open") say(before.name === "blocked" ? "The broker takes messages again." : "Connection open.");
    else if (phase.name === "blocked") say("The broker blocks publishers: " + phase.reason + ".");
    else if (phase.name === "closed") say("Connection closed for good: " + phase.reason + ".");
    else say("Connection lost: " + phase.reason + ". Reconnecting.");
  }
  // That consumers come and go is no news.
  function tellOfConsumers(phase, before) {
    if (!before || before.name === phase.name) return;
    if (phase.name === "reconnecting") say("The consumers’ connection is lost: " + phase.reason + ". Reconnecting.");
    else if (phase.name === "closed") say("The consumers’ connection is closed for good: " + phase.reason + ".");
    else if (phase.name === "open" && before.name === "reconnecting") say("The consumers’ connection is open.");
  }
  function remember(phases, phase, tell) {
    var last = phases[phases.length - 1];
    if (last && phase.number < last.number) return;
    if (last && last.number === phase.number) phases.pop();
    phases.push(phase);
    if (phases.length > 50) phases.shift();
    tell(phase, last);
  }
  // Each with its text, which says what has ended and why.
  function showConditions(conditions) {
    var list = byId("conditions");
    var texts = conditions.map(function (condition) {
      return condition[0] + " since " + new Date(condition[2]).toLocaleTimeString() + ": " + condition[1] +
        (condition[3] ? " (not ready)" : "");
    });
    if (texts.join(" | ") === shownConditions) return;
    shownConditions = texts.join(" | ");
    list.hidden = texts.length === 0;
    list.textContent = "";
    texts.forEach(function (text) {
      var item = document.createElement("li");
      item.textContent = text;
      list.appendChild(item);
    });
    if (texts.length > 0) say(texts[texts.length - 1]);
  }
  var shownConditions = "";
  var listeners = {
    hello: function (data) {
      hello = data;
      samples = [];
      phases = data.phases;
      consumers = data.consumers;
    },
    phase: function (phase) { remember(phases, phase, tell); },
    consumers: function (phase) { remember(consumers, phase, tellOfConsumers); },
    sample: function (sample) {
      samples.push(sample);
      while (samples[0].at < sample.at - hello.window - 2 * hello.interval) samples.shift();
      sample.pools.forEach(function (pool, i) {
        var isFull = hello.max !== null && pool[0] >= hello.max;
        if (!isFull || sample.at - (toldFull[i] || 0) < 30000) return;
        toldFull[i] = sample.at;
        say("All " + count(hello.max) + " " + kinds[i] + " channels are in use.");
      });
    },
    totals: function (data) {
      totals = data;
      if (frozen === null) showConditions(data.conditions);
    }
  };
  var source;
  function listen() {
    source = new EventSource(location.pathname.replace(/[/]+$/, "") + "/events");
    Object.keys(listeners).forEach(function (name) {
      source.addEventListener(name, function (event) {
        listeners[name](JSON.parse(event.data));
        heard();
      });
    });
    var mine = source;
    source.onerror = function () {
      lost();
      // It comes back by itself, unless it was refused.
      if (mine.readyState === 2) setTimeout(function () { if (mine === source) listen(); }, 3000);
    };
  }
  setInterval(function () {
    if (isLost) return state();
    // A network that has gone silent says nothing of it.
    if (heardAt && Date.now() - heardAt > 6 * hello.interval) {
      source.close();
      lost();
      listen();
    }
  }, 1000);
  byId("pause").addEventListener("click", function () {
    frozen = frozen === null ? present() : null;
    this.setAttribute("aria-pressed", String(frozen !== null));
    state();
    later();
  });
  new ResizeObserver(later).observe(document.body);
  listen();
})();
`
