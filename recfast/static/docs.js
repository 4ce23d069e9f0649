'use strict'
// The description of the API, drawn from openapi.json, with a form to try each path.
function make(tag, props = {}, ...kids) { const e = Object.assign(document.createElement(tag), props); e.append(...kids); return e }
let api
const deref = s => s && s.$ref ? s.$ref.slice(2).split('/').reduce((o, k) => o[k], api) : s || {}
const isRef = s => s.$ref && s.$ref.split('/').pop()

function words(s) {
  if (isRef(s)) return isRef(s)
  if (s.anyOf) return s.anyOf.filter(o => o.type != 'null').map(words).join(', or ')
  if (s.enum) return s.enum.map(o => JSON.stringify(o)).join(', ')
  if (s.type == 'array') return 'list of ' + (s.maxItems ? 'at most ' + s.maxItems + ' ' : '') + '(' + words(s.items || {}) + ')'
  const range = [s.minimum !== undefined && 'from ' + s.minimum, s.maximum !== undefined && 'to ' + s.maximum, s.maxLength !== undefined && 'at most ' + s.maxLength + ' letters'].filter(Boolean)
  return [s.type || 'anything', ...range].join(' ')
}
function table(fields, needed) {
  const rows = Object.entries(fields).map(([name, s]) => make('tr', {}, make('td', {}, make('code', {}, name)), make('td', {}, words(s)),
    make('td', {}, needed.includes(name) ? 'needed' : s.default === undefined ? '' : JSON.stringify(s.default))))
  return make('div', {className: 'scroll'}, make('table', {}, make('thead', {}, make('tr', {}, ...['name', 'what', 'default'].map(o => make('th', {}, o)))), make('tbody', {}, ...rows)))
}
async function send(method, path, body, out) {
  const token = document.getElementById('token').value
  const headers = {...(body !== null && {'content-type': 'application/json'}), ...(token && {authorization: 'Bearer ' + token})}
  try {
    const got = await fetch(path.slice(1), {method, headers, body: body === null ? undefined : body}), text = await got.text()
    let shown = text
    try { const o = JSON.parse(text); shown = Array.isArray(o) ? o.map(row => JSON.stringify(row)).join('\n') : JSON.stringify(o, null, 1) } catch { /* not JSON: as it is */ }
    out.textContent = got.status + ' ' + got.statusText + '\n' + shown.slice(0, 20000)
  } catch (e) { out.textContent = e.message }
  out.hidden = false
}
function operation(path, method, op) {
  const box = make('details', {}, make('summary', {}, make('code', {}, method.toUpperCase() + ' ' + path), ' ' + (op.summary || '')))
  const schema = deref(op.requestBody?.content['application/json'].schema), out = make('pre', {hidden: true}), go = make('button', {type: 'button'}, 'Send')
  out.setAttribute('role', 'status')
  out.tabIndex = 0
  if (op.requestBody) {
    const area = make('textarea', {rows: 4, value: JSON.stringify((schema.examples || [{}])[0]), spellcheck: false})
    area.setAttribute('aria-label', 'Body of ' + path)
    box.append(table(schema.properties, schema.required || []), area)
    go.addEventListener('click', () => send('POST', path, area.value, out))
  } else {
    const fields = (op.parameters || []).map(p => [p, make('input', {type: 'text', value: p.schema.default ?? ''})])
    if (fields.length) box.append(table(Object.fromEntries(op.parameters.map(p => [p.name, p.schema])), op.parameters.filter(p => p.required).map(p => p.name)))
    for (const [p, f] of fields) box.append(make('label', {}, p.name, f))
    go.addEventListener('click', () => send('GET', path + (fields.length ? '?' + new URLSearchParams(fields.map(([p, f]) => [p.name, f.value])) : ''), null, out))
  }
  const answers = Object.entries(op.responses).map(([k, o]) => k + ' ' + o.description).join(' · ')
  box.append(make('p', {className: 'quiet'}, answers), go, out)
  return box
}
document.getElementById('door').addEventListener('submit', e => e.preventDefault())
fetch('openapi.json').then(o => o.json()).then(o => {
  api = o
  for (const [path, ops] of Object.entries(api.paths)) for (const [method, op] of Object.entries(ops)) document.getElementById('paths').append(operation(path, method, op))
}).catch(e => document.getElementById('paths').append(e.message))
