'use strict'
// All items as dots, written straight into pixels; names and lines above them.
;(() => {
  const $ = id => document.getElementById(id), data = JSON.parse($('data').textContent), {titles, words} = data, n = titles.length
  const kinds = {f4: Float32Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array}
  const table = o => new kinds[o.type](Uint8Array.from(atob(o.data), c => c.charCodeAt(0)).buffer)
  const xy = table(data.xy), counts = table(data.counts), near = data.near && {k: data.near.k, who: table(data.near.who)}
  const byCount = [...counts.keys()].sort((a, b) => counts[b] - counts[a] || a - b), known = byCount.slice(0, 3000)
  const top = $('top'), above = top.getContext('2d', {alpha: false}), edge = 256   // pixels drawn beyond each side, to move without drawing again
  const dark = matchMedia('(prefers-color-scheme: dark)')
  let view = {x: 0, y: 0, zoom: 1}, size = {w: 0, h: 0, px: 1}, pixels, image, drawn = null, hover = -1, chosen = -1, due = false, colours = new Uint32Array(n)
  window.map = {frames: 0, get view() { return view }, move(x, y, zoom) { view = {x, y, zoom: zoom || view.zoom}; draw() }}

  // colours: a ramp for numbers, ten hues for kinds, grey for what is not known
  const hues = {light: ['#3366cc', '#dc7014', '#109618', '#b82e8e', '#7a52c7', '#0b8f9e', '#a86b00', '#c5352b', '#5b7f00', '#8a4f3d'],
    dark: ['#7aa7ff', '#ffb066', '#6fdc7a', '#f08bd0', '#b99aff', '#5fd7e5', '#e8c15a', '#ff8f86', '#b7dd57', '#d8a48f']}
  const ramps = {light: ['#b9c6d6', '#5b8fd0', '#1d4f9e', '#3a0f5c'], dark: ['#3c4756', '#3f7fc4', '#6fc3df', '#fff3b0']}
  const grey = () => dark.matches ? '#5a6270' : '#b4bac3', rgb = s => [1, 3, 5].map(i => parseInt(s.slice(i, i + 2), 16))
  const word = ([r, g, b]) => 255 << 24 | b << 16 | g << 8 | r
  const mode = () => dark.matches ? 'dark' : 'light'
  function between(ramp, t) {
    const at = Math.min(ramp.length - 1.001, Math.max(0, t * (ramp.length - 1))), i = Math.floor(at), a = rgb(ramp[i]), b = rgb(ramp[i + 1])
    return a.map((o, j) => Math.round(o + (at - i) * (b[j] - o)))
  }
  function paint() {
    const o = data.colours[$('colour').value], key = $('key')
    drawn = null
    key.replaceChildren()
    const sample = (colour, text) => { const e = document.createElement('span'), dot = document.createElement('i'); dot.style.background = colour; e.append(dot, text); key.append(e) }
    if (o.of) {
      const list = hues[mode()]
      o.values.slice(0, list.length).forEach((v, i) => sample(list[i], v))
      if (o.values.length > list.length) sample(grey(), 'others')
      for (let i = 0; i < n; i++) colours[i] = word(rgb(o.of[i] === null || o.of[i] >= list.length ? grey() : list[o.of[i]]))
    } else {
      const v = table(o.numbers), ramp = ramps[mode()], bar = document.createElement('i')
      bar.className = 'ramp'
      bar.style.background = 'linear-gradient(90deg,' + ramp + ')'
      key.append(String(o.low), bar, String(o.high))
      for (let i = 0; i < n; i++) colours[i] = word(Number.isNaN(v[i]) ? rgb(grey()) : between(ramp, v[i]))
    }
    draw()
  }

  const scale = () => Math.min(size.w, size.h) * .46 * view.zoom
  const toX = i => size.w / 2 + (xy[2 * i] - view.x) * scale(), toY = i => size.h / 2 - (xy[2 * i + 1] - view.y) * scale()
  function fit() {
    const px = Math.min(2, window.devicePixelRatio || 1)
    size = {w: innerWidth, h: innerHeight, px}
    top.width = Math.round(size.w * px); top.height = Math.round(size.h * px)
    image = above.createImageData(top.width + 2 * edge, top.height + 2 * edge); drawn = null
    pixels = new Uint32Array(image.data.buffer)
    draw()
  }

  // a dot is the cells of a disc; its rim is half of what is below it
  let disc = {r: 0, whole: [], rim: []}
  function discOf(r, w) {
    if (disc.r == r && disc.w == w) return disc
    const whole = [], rim = [], m = Math.ceil(r)
    for (let y = -m; y <= m; y++) for (let x = -m; x <= m; x++) {
      const d = Math.hypot(x, y)
      if (d <= r - .4) whole.push(y * w + x); else if (d <= r + .2) rim.push(y * w + x)
    }
    return disc = {r, w, m, whole, rim}
  }
  function drawDots() {
    const s = scale() * size.px, x = view.x * s, y = view.y * s
    const there = drawn && drawn.s == s && Math.abs(x - drawn.x) <= edge && Math.abs(y - drawn.y) <= edge
    if (!there) { drawn = {s, x, y}; write(s, x, y) }
    above.putImageData(image, Math.round(drawn.x - x) - edge, Math.round(y - drawn.y) - edge)
  }
  function write(s, left, up) {
    const {width: w, height: h} = image, back = word(rgb(dark.matches ? '#14171b' : '#f6f7f9'))
    const r = Math.min(7, 1.1 + .55 * Math.log2(1 + view.zoom) + (n < 5000 ? 1.2 : 0)) * size.px, {m, whole, rim} = discOf(Math.round(r * 2) / 2, w)
    const x0 = w / 2 - left, y0 = h / 2 + up
    pixels.fill(back)
    for (let c = n; c--;) {   // the most known on top
      const i = byCount[c], x = Math.round(x0 + xy[2 * i] * s), y = Math.round(y0 - xy[2 * i + 1] * s)
      if (x <= m || y <= m || x >= w - m - 1 || y >= h - m - 1) continue
      const at = y * w + x, colour = colours[i], half = colour >>> 1 & 0x7f7f7f
      for (let j = 0; j < whole.length; j++) pixels[at + whole[j]] = colour
      for (let j = 0; j < rim.length; j++) { const to = at + rim[j]; pixels[to] = 0xff000000 | (pixels[to] >>> 1 & 0x7f7f7f) + half }
    }
  }

  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name)
  let ink = {}
  function inks() { for (const o of ['fg', 'bg', 'accent', 'told', 'next', 'quiet']) ink[o] = css('--' + o) }
  function text(s, x, y, colour, strong) {
    above.font = (strong ? '600 13px' : '12px') + ' system-ui,sans-serif'
    above.lineWidth = 3; above.strokeStyle = ink.bg; above.strokeText(s, x, y)
    above.fillStyle = colour; above.fillText(s, x, y)
  }
  function ring(i, r, colour, filled) {
    above.beginPath(); above.arc(toX(i), toY(i), r, 0, 7); above.lineWidth = 2; above.strokeStyle = colour; above.stroke()
    if (filled) { above.fillStyle = colour; above.fill() }
  }
  function path(points, colour, dash = []) {
    above.beginPath(); points.forEach((i, j) => above[j ? 'lineTo' : 'moveTo'](toX(i), toY(i)))
    above.setLineDash(dash); above.lineWidth = 1.5; above.strokeStyle = colour; above.stroke(); above.setLineDash([])
  }
  const widths = new Map(), short = i => titles[i].length > 34 ? titles[i].slice(0, 33) + '…' : titles[i]
  function names(taken) {   // as many of the most known as have room
    let left = Math.min(60, Math.round(size.w * size.h / 20000))
    above.font = '12px system-ui,sans-serif'
    for (const i of known) {
      if (!left) break
      const x = toX(i), y = toY(i)
      if (x < 0 || y < 0 || x > size.w || y > size.h) continue
      if (!widths.has(i)) widths.set(i, above.measureText(short(i)).width)
      const box = [x + 6, y - 8, x + 10 + widths.get(i), y + 8]
      if (box[2] > size.w || taken.some(o => box[0] < o[2] && o[0] < box[2] && box[1] < o[3] && o[1] < box[3])) continue
      taken.push(box); left--
      text(short(i), x + 7, y + 4, ink.fg)
    }
  }
  const nearest = i => near ? [...near.who.slice(i * near.k, (i + 1) * near.k)].filter(o => o < n) : []
  function drawTop() {
    above.setTransform(size.px, 0, 0, size.px, 0, 0)
    const taken = [], mark = (i, colour, strong) => {
      const x = toX(i) + 9, y = toY(i) + 4
      const box = [x - 2, y - 13, x + 7.5 * Math.min(34, titles[i].length), y + 5]
      if (!strong && taken.some(o => box[0] < o[2] && o[0] < box[2] && box[1] < o[3] && o[1] < box[3])) return
      text(short(i), x, y, colour, strong); taken.push(box)
    }
    if (data.history.length) {
      if (data.ordered) path(data.history, ink.told)
      for (const i of data.next) ring(i, 7, ink.next)
      for (const i of data.history) ring(i, 5, ink.told, true)
      for (const i of data.history) mark(i, ink.told)
      for (const i of data.next) mark(i, ink.next)
    }
    const centre = hover >= 0 ? hover : chosen
    if (centre >= 0) {
      for (const j of nearest(centre)) { path([centre, j], ink.accent, [3, 3]); ring(j, 4, ink.accent) }
      ring(centre, 7, ink.accent, true)
      mark(centre, ink.accent, true)
      for (const j of nearest(centre)) mark(j, ink.fg)
    }
    names(taken)
  }
  function draw() {
    if (due) return
    due = true
    requestAnimationFrame(() => { due = false; drawDots(); drawTop(); window.map.frames++ })
  }

  // moving: drag, wheel, two fingers, keys
  const held = new Map()
  function zoom(by, x = size.w / 2, y = size.h / 2) {
    const s = scale(), to = Math.min(400, Math.max(.5, view.zoom * by)), k = 1 / s - 1 / (s * to / view.zoom)
    view = {x: view.x + (x - size.w / 2) * k, y: view.y - (y - size.h / 2) * k, zoom: to}
    draw()
  }
  function shift(dx, dy) { view = {...view, x: view.x - dx / scale(), y: view.y + dy / scale()}; draw() }
  function at(x, y, most = 14) {
    let best = -1, least = most * most
    for (let i = 0; i < n; i++) { const d = (toX(i) - x) ** 2 + (toY(i) - y) ** 2; if (d < least) { least = d; best = i } }
    return best
  }
  let moved = 0
  top.addEventListener('pointerdown', e => { top.setPointerCapture(e.pointerId); held.set(e.pointerId, e); moved = 0; top.style.cursor = 'grabbing' })
  top.addEventListener('pointermove', e => {
    const before = held.get(e.pointerId)
    if (!before) { const i = at(e.clientX, e.clientY); if (i != hover) { hover = i; top.style.cursor = i < 0 ? 'grab' : 'pointer'; draw() } return }
    const other = [...held.values()].find(o => o.pointerId != e.pointerId)
    if (other) {
      const gap = o => Math.hypot(o.clientX - other.clientX, o.clientY - other.clientY)
      zoom(gap(e) / Math.max(1, gap(before)), (e.clientX + other.clientX) / 2, (e.clientY + other.clientY) / 2)
    } else shift(e.clientX - before.clientX, e.clientY - before.clientY)
    moved += Math.abs(e.clientX - before.clientX) + Math.abs(e.clientY - before.clientY)
    held.set(e.pointerId, e)
  })
  for (const o of ['pointerup', 'pointercancel']) top.addEventListener(o, e => {
    if (held.delete(e.pointerId) && o == 'pointerup' && moved < 6) choose(at(e.clientX, e.clientY), false)
    top.style.cursor = 'grab'
  })
  top.addEventListener('pointerleave', () => { if (hover >= 0) { hover = -1; draw() } })
  top.addEventListener('wheel', e => { e.preventDefault(); zoom(Math.exp(-e.deltaY / 400), e.clientX, e.clientY) }, {passive: false})
  const everything = () => { view = {x: 0, y: 0, zoom: 1}; draw() }
  const moves = {ArrowLeft: () => shift(60, 0), ArrowRight: () => shift(-60, 0), ArrowUp: () => shift(0, 60), ArrowDown: () => shift(0, -60),
    '+': () => zoom(1.3), '=': () => zoom(1.3), '-': () => zoom(1 / 1.3), Home: everything, Escape: () => choose(-1)}
  top.addEventListener('keydown', e => { const f = moves[e.key]; if (f) { e.preventDefault(); f() } })
  $('in').addEventListener('click', () => zoom(1.5)); $('out').addEventListener('click', () => zoom(1 / 1.5)); $('all').addEventListener('click', everything)

  // one item: what it is and what is near
  function make(tag, s) { const e = document.createElement(tag); e.textContent = s; return e }
  function choose(i, go = true) {
    chosen = i
    const box = $('about')
    box.hidden = i < 0
    if (i >= 0) {
      const close = make('button', '×'), list = document.createElement('ol'), also = nearest(i)
      close.setAttribute('aria-label', 'Close'); close.addEventListener('click', () => choose(-1))
      box.replaceChildren(close, make('h2', titles[i]), make('p', counts[i] + (counts[i] == 1 ? ' row' : ' rows') + (data.facts[i] ? ', ' + data.facts[i] : '')))
      for (const j of also) { const li = make('li', titles[j]); li.tabIndex = 0; li.addEventListener('click', () => choose(j)); li.addEventListener('keydown', e => { if (e.key == 'Enter') choose(j) }); list.append(li) }
      if (also.length) box.append(make('p', 'Nearest ' + words + ':'), list)
      if (go) view = {x: xy[2 * i], y: xy[2 * i + 1], zoom: Math.max(view.zoom, 6)}
    }
    draw()
  }

  // search: every word, the most known first
  const bare = s => s.toLowerCase().normalize('NFKD').replace(/\p{Mn}/gu, ''), texts = titles.map(bare)
  let hits = [], mark = -1
  function open(yes) { $('found').hidden = !yes; $('q').setAttribute('aria-expanded', yes); if (!yes) { mark = -1; $('q').removeAttribute('aria-activedescendant') } }
  function point(j) {
    mark = (j + hits.length) % hits.length
    hits.forEach((_, i) => $('hit' + i).setAttribute('aria-selected', i == mark))
    $('q').setAttribute('aria-activedescendant', 'hit' + mark)
    $('hit' + mark).scrollIntoView({block: 'nearest'})
  }
  function take(j) { open(false); $('q').value = ''; choose(hits[j]) }
  $('q').addEventListener('input', () => {
    const asked = bare($('q').value).split(/\s+/).filter(Boolean)
    hits = []
    for (const i of byCount) { if (asked.length && asked.every(o => texts[i].includes(o))) hits.push(i); if (hits.length == 8) break }
    $('found').replaceChildren(...hits.map((i, j) => {
      const li = make('li', titles[i])
      li.id = 'hit' + j; li.setAttribute('role', 'option'); li.setAttribute('aria-selected', false)
      li.addEventListener('pointerdown', e => e.preventDefault()); li.addEventListener('click', () => take(j))
      return li
    }))
    if (!hits.length && asked.length) $('found').append(make('li', 'Nothing has these words.'))
    open(asked.length > 0)
  })
  $('q').addEventListener('blur', () => open(false))
  $('q').addEventListener('keydown', e => {
    if (e.key == 'ArrowDown' && hits.length) { e.preventDefault(); point(mark + 1) } else if (e.key == 'ArrowUp' && hits.length) { e.preventDefault(); point(mark < 0 ? -1 : mark - 1) }
    else if (e.key == 'Enter' && hits.length && !$('found').hidden) take(Math.max(0, mark)); else if (e.key == 'Escape') open(false)
  })

  $('colour').replaceChildren(...data.colours.map((o, i) => { const e = make('option', o.name); e.value = i; return e }))
  $('colour').addEventListener('change', paint)
  dark.addEventListener('change', () => { inks(); paint() })
  addEventListener('resize', fit)
  inks(); fit(); paint()
})()
