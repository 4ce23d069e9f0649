'use strict'
// Text from the server is only ever set as text, never as markup.
const $ = id => document.getElementById(id), low = +document.body.dataset.low, high = +document.body.dataset.high
const can = document.body.dataset.can.split(' '), {word, words, rated: areRatings} = document.body.dataset
const rated = new Map()   // JSON of an id -> {id, rating}
const ordered = can.includes('session')   // the model reads an order: it is told a visit, and says what comes next
const visit = []   // ids, oldest first; one may come again
const known = () => ordered ? visit.length : rated.size
let token = null, asked = 0

function make(tag, props = {}, ...kids) {
  const {aria = {}, ...rest} = props, e = Object.assign(document.createElement(tag), rest)
  for (const k in aria) e.setAttribute('aria-' + k, aria[k])
  e.append(...kids)
  return e
}

async function ask(path, body, signal) {
  if (window.answer) return window.answer(path, body)   // a page that is a file has its answers inside
  const headers = {...(body && {'content-type': 'application/json'}), ...(token && {authorization: 'Bearer ' + token})}
  let got
  try { got = await fetch(path, {method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), signal}) }
  catch (e) { throw e.name == 'AbortError' ? e : new Error('The server does not answer.') }
  if (got.status == 401) { $('door').hidden = false; $('token').focus() }
  if (got.ok) return got.json()
  throw new Error((await got.json().catch(() => ({}))).detail || 'The server answered ' + got.status + '.')
}

function titled(id) {   // with its picture, where the page has one
  const src = window.face?.(id), title = make('span', {className: 'title'}, String(id))
  return src ? [make('img', {src, alt: '', className: 'face'}), title] : [title]
}

function say(text, wrong = false) { $('status').textContent = text; $('status').classList.toggle('wrong', wrong) }
function later(f, ms) { let t; return (...args) => { clearTimeout(t); t = setTimeout(() => f(...args), ms) } }

// search as you type: a combobox with a list
let hits = [], at = -1, flight = null
function show(rows) {
  hits = rows; at = -1
  $('found').replaceChildren(...rows.map((o, j) => {
    const li = make('li', {id: 'hit' + j, aria: {selected: false}}, make('span', {}, String(o.item_id)), make('small', {}, o.n_ratings + (o.n_ratings == 1 ? ' rating' : ' ratings')))
    li.setAttribute('role', 'option')
    li.addEventListener('pointerdown', e => e.preventDefault())   // the field keeps the focus
    li.addEventListener('click', () => choose(j))
    return li
  }))
  if (!rows.length && $('q').value.trim()) $('found').append(make('li', {className: 'none'}, 'No ' + word + ' has these words.'))
  open(!!$('found').children.length)
}
function open(yes) {
  $('found').hidden = !yes
  $('q').setAttribute('aria-expanded', yes)
  if (!yes) { at = -1; $('q').removeAttribute('aria-activedescendant') }
}
function point(j) {
  at = (j + hits.length) % hits.length
  hits.forEach((_, i) => $('hit' + i).setAttribute('aria-selected', i == at))
  $('q').setAttribute('aria-activedescendant', 'hit' + at)
  $('hit' + at).scrollIntoView({block: 'nearest'})
}
async function search() {
  flight?.abort()
  flight = new AbortController()
  try { show(await ask('items?limit=8&q=' + encodeURIComponent($('q').value), null, flight.signal)) }
  catch (e) { if (e.name != 'AbortError') say(e.message, true) }
}
const searchSoon = later(search, 120)
function choose(j) { rate(hits[j].item_id); $('q').value = ''; open(false) }

$('q').addEventListener('input', searchSoon)
$('q').addEventListener('click', () => { if ($('found').hidden) search() })
$('q').addEventListener('blur', () => open(false))
$('q').addEventListener('keydown', e => {
  const up = e.key == 'ArrowUp', down = e.key == 'ArrowDown'
  if (up || down) { e.preventDefault(); if ($('found').hidden) search(); else if (hits.length) point(down ? at + 1 : at < 0 ? -1 : at - 1) }
  else if (e.key == 'Enter' && !$('found').hidden && hits.length) { e.preventDefault(); choose(at < 0 ? 0 : at) }
  else if (e.key == 'Escape') open(false)
})

// ratings: stars where the scale is short, else a slider
const stars = high >= 2 && high <= 10 && low >= 0
function control(key, title) {
  const o = rated.get(key), set = v => { o.rating = v; recommend() }
  if (low == high) return make('span', {className: 'quiet'}, 'liked')
  if (!stars) {
    const out = make('output', {}, String(o.rating))
    const bar = make('input', {type: 'range', min: low, max: high, step: (high - low) / 20, value: o.rating, aria: {label: 'Your rating of ' + title}})
    bar.addEventListener('input', () => { out.textContent = bar.value; set(+bar.value) })
    return make('span', {className: 'bar'}, bar, out)
  }
  const box = make('fieldset', {className: 'stars'}, make('legend', {className: 'hidden'}, 'Your rating of ' + title))
  const paint = () => [...box.querySelectorAll('label')].forEach(l => l.classList.toggle('on', +l.firstChild.value <= o.rating))
  for (let v = Math.max(1, Math.ceil(low)); v <= high; v++) {
    const dot = make('input', {type: 'radio', name: 'r' + key, value: v, checked: v == o.rating, aria: {label: v + ' of ' + high}})
    dot.addEventListener('change', () => { set(v); paint() })
    box.append(make('label', {title: v + ' of ' + high}, dot, make('span', {aria: {hidden: true}}, '★')))
  }
  paint()
  return box
}
function out(li, id, forget) {
  const away = make('button', {type: 'button', className: 'plain', title: 'Remove', aria: {label: 'Remove ' + id}}, '×')
  away.addEventListener('click', () => { forget(); li.remove(); hints(); $('q').focus(); recommend() })
  return away
}
function take(id) {
  visit.push(id)
  const li = make('li', {tabIndex: -1})
  li.append(make('div', {className: 'row'}, ...titled(id), out(li, id, () => visit.splice([...$('rated').children].indexOf(li), 1))))
  $('rated').append(li)
  hints()
  recommend()
  return li
}
function rate(id) {
  if (ordered) return take(id)
  const key = JSON.stringify(id)
  if (rated.has(key)) return say('You have rated ' + id + ' already.')
  rated.set(key, {id, rating: high})
  const li = make('li', {})
  li.append(make('div', {className: 'row'}, ...titled(id), control(key, id), out(li, id, () => rated.delete(key))))
  $('rated').prepend(li)
  hints()
  recommend()
  return li
}

// what to begin with: the most rated
function hints() { $('hint').hidden = known() > 0; $('start').hidden = known() > 0 || !$('start').lastElementChild.children.length }
async function begin() {
  try {
    const rows = await ask('items?limit=12')
    await offer()
    $('start').lastElementChild.replaceChildren(...rows.map(o => make('li', {}, knows(o.item_id, String(o.item_id)))))
    hints()
  } catch (e) { if ($('door').hidden) say(e.message, true) }
}

// the list, and why
const told = o => o.predicted ?? o.score   // stars, where a rater says them beside the score that ranks
const shown = score => (areRatings ? Math.min(high, Math.max(low, score)) : score).toFixed(2)   // no star above the scale
const ranges = JSON.parse(document.body.dataset.likely || '[]')   // [expected, from, to], rising
function likely(score) {
  if (!ranges.length) return ''
  const above = ranges.findIndex(o => o[0] > score), b = ranges.at(above), a = ranges[ranges.indexOf(b) - 1] || b
  const way = b === a ? 0 : Math.min(1, (score - a[0]) / (b[0] - a[0]))   // on a straight line between two
  const end = i => (a[i] + way * (b[i] - a[i])).toFixed(1)
  return ', likely ' + end(1) + ' to ' + end(2)
}
async function because(history, rows) {
  return can.includes('explain') && rows.length ? ask('explain', {history, item_ids: rows.map(o => o.item_id)}) : []   // not every model can say
}
function reasons(why, item) {
  const mine = why.filter(o => JSON.stringify(o.item_id) == JSON.stringify(item) && o.because_item_id !== null && o.contribution > 0)
  const top = mine.sort((a, b) => b.contribution - a.contribution).slice(0, 3).map(o => [o.because_item_id, (rated.get(JSON.stringify(o.because_item_id)) || {}).rating])
  const good = top.filter(([, r]) => r >= (low + high) / 2).map(o => o[0]), bad = top.filter(([, r]) => r < (low + high) / 2).map(o => o[0])
  const what = why.filter(o => JSON.stringify(o.item_id) == JSON.stringify(item) && o.because_feature && o.contribution > 0)
  if (what.length) return 'new, because of ' + what.sort((a, b) => b.contribution - a.contribution).slice(0, 3).map(o => o.because_feature).join(', ')
  if (ordered) return top.length ? 'because of ' + top.map(o => o[0]).join(', ') : ''
  return [good.length && 'because you liked ' + good.join(', '), bad.length && (good.length ? '' : 'because you ') + 'did not like ' + bad.join(', ')].filter(Boolean).join(', and ')
}
function likeness(id, li) {
  const b = make('button', {type: 'button', aria: {expanded: false, label: words[0].toUpperCase() + words.slice(1) + ' similar to ' + id}}, 'Similar')
  b.addEventListener('click', async () => {
    const old = li.querySelector('.near')
    b.setAttribute('aria-expanded', !old)
    if (old) return old.remove()
    const box = make('div', {className: 'near'})
    li.append(box)
    try {
      const rows = await ask('similar', {item_ids: id, k: 6})
      box.append(make('p', {className: 'quiet'}, 'Nearest ' + words + (ordered ? ', to take:' : ', to rate if you know them:')), make('ul', {}, ...rows.map(o => make('li', {}, knows(o.item_id, String(o.item_id))))))
    } catch (e) { box.append(make('p', {className: 'wrong'}, e.message)) }
  })
  return b
}
function knows(id, text) {
  const b = make('button', {type: 'button', title: ordered ? 'Take it' : 'Rate it', aria: {label: (ordered ? 'Take ' : 'Rate ') + id}}, text)
  b.addEventListener('click', () => { const li = rate(id), to = ordered ? li : (li || document).querySelector('input:checked, input[type=range]'); to?.focus() })
  return b
}
function card(o, why) {
  const li = make('li', {})
  li.append(make('div', {className: 'row'}, ...titled(o.item_id), make('span', {className: 'score'}, told(o) === null ? '' : shown(told(o)) + likely(told(o)))))
  const text = reasons(why, o.item_id)
  if (text) li.append(make('p', {className: 'why'}, text))
  li.append(make('div', {className: 'tools'}, ...(can.includes('similar') ? [likeness(o.item_id, li)] : []), knows(o.item_id, ordered ? 'Take it' : 'I know it')))
  return li
}
// only what is of a kind: a choice for each column of few values
let choices = []
const named = name => name.replace(/_/g, ' '), value = v => typeof v == 'boolean' ? (v ? 'yes' : 'no') : String(v)
async function offer() {
  choices = Object.entries(await ask('choices'))
  $('only').replaceChildren(...choices.map(([name, values], i) => {
    const box = make('select', {id: 'only' + i}, make('option', {value: ''}, 'any'), ...values.map((v, j) => make('option', {value: j}, value(v))))
    box.addEventListener('change', () => { if (known()) recommend() })
    return make('span', {}, make('label', {htmlFor: box.id}, named(name)), box)
  }))
  $('only').hidden = !choices.length
}
function where() {
  const on = choices.map(([name, values], i) => [name, values[$('only' + i).value || -1]]).filter(([, v]) => v !== undefined)
  return on.length ? {where: Object.fromEntries(on)} : {}
}
async function list() {
  const turn = ++asked, history = ordered ? visit.map(id => ({item_id: id})) : [...rated.values()].map(o => ({item_id: o.id, rating: o.rating}))
  if (!history.length) { $('recs').replaceChildren(); return say(nothing) }
  try {
    const rows = await ask('recommend', {...(ordered ? {session: history.map(o => o.item_id)} : {history}), k: 10, ...where()}), why = await because(history, rows)
    if (turn != asked) return   // a newer question is on its way
    $('recs').replaceChildren(...rows.map(o => card(o, why)))
    say(rows.length + ' ' + words + ', from ' + history.length + (ordered ? ' in order' : history.length == 1 ? ' rating' : ' ratings') + '; on the right, ' + (areRatings ? 'the rating the model expects' + (ranges.length ? ', and where two of three such ratings lie' : '') : 'the score of the model'))
  } catch (e) { if (turn == asked) { $('recs').replaceChildren(); say(e.message, true) } }
}
const recommend = later(list, 150)
const nothing = 'Nothing yet: ' + (ordered ? 'take' : 'rate') + ' something first.'
if (ordered) {
  $('pick').textContent = 'What you took, the latest last'
  $('hint').textContent = 'Take a few ' + words + ' one after the other: the order counts. Arrow keys move through a list, Enter takes what is marked.'
  $('next').textContent = 'What comes next'
  $('rated').replaceWith(make('ol', {id: 'rated', className: 'cards'}))
  say(nothing)
}

if ($('map')) $('map').hidden = !can.includes('map')   // a page that is one file has none
if (can.includes('history')) begin()
else say('This model knows only the people it was trained on: it has no list for you.', true)

$('door').addEventListener('submit', e => {
  e.preventDefault()
  token = $('token').value   // kept by this page only, gone with it
  $('door').hidden = true
  $('token').value = ''
  $('q').focus()
  say('')
  if (can.includes('history')) begin()
  if (known()) recommend()
})
