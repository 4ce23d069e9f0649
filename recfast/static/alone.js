'use strict'
// What a page asks a server, answered from the tables inside the file. Every table is by place: place i is row i+1 of the model.
;(() => {
  const data = JSON.parse(document.getElementById('data').textContent), {titles, kind} = data, n = titles.length
  const kinds = {f4: Float32Array, f8: Float64Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array}
  const table = o => new kinds[o.type](Uint8Array.from(atob(o.data), c => c.charCodeAt(0)).buffer)
  const place = new Map(titles.map((o, i) => [o, i])), free = table(data.free), counts = table(data.counts)

  // the best k by score, ties by the lower place
  function best(scores, k, ok) {
    const at = []
    for (let i = 0; i < n; i++) if (ok(i)) at.push(i)
    return at.sort((a, b) => scores[b] - scores[a] || a - b).slice(0, k)
  }

  // neighbours: each item has the items that speak for it; turned round once, so that a history is read by its own
  function linear() {
    const sides = data.tables.map(o => {
      const who = table(o.who), weight = table(o.weight), k = o.k, starts = new Uint32Array(n + 1)
      for (let c = 0; c < n * k; c++) if (weight[c]) starts[who[c] + 1]++
      for (let i = 0; i < n; i++) starts[i + 1] += starts[i]
      const next = starts.slice(), target = new Uint32Array(starts[n]), share = new Float32Array(starts[n])
      for (let i = 0; i < n; i++) for (let c = i * k; c < (i + 1) * k; c++) if (weight[c]) {
        const to = next[who[c]]++
        target[to] = i; share[to] = weight[c]
      }
      return {starts, target, share, speed: o.speed, reach: o.reach}
    })
    const values = told => sides.map(s => told.map(([, v], j) => {   // the last of an ordered history speaks loudest
      const back = told.length - 1 - j
      return s.speed === null ? v : back < s.reach ? s.speed ** back : 0
    }))
    function spread(told, each) {
      const all = values(told)
      sides.forEach((s, a) => told.forEach(([i], j) => {
        for (let c = s.starts[i]; c < s.starts[i + 1]; c++) each(j, s.target[c], all[a][j] * s.share[c])
      }))
    }
    return {
      score(told) { const out = new Float64Array(n); spread(told, (j, i, v) => { out[i] += v }); return out },
      parts(told, wanted) {
        const out = told.map(() => new Map(wanted.map(i => [i, 0])))
        spread(told, (j, i, v) => { if (out[j].has(i)) out[j].set(i, out[j].get(i) + v) })
        return out
      },
    }
  }

  // A x = b for a symmetric, positive A, by Cholesky
  function solve(A, b, D) {
    const L = Float64Array.from(A), x = Float64Array.from(b)
    for (let j = 0; j < D; j++) {
      for (let c = 0; c < j; c++) L[j * D + j] -= L[j * D + c] ** 2
      L[j * D + j] = Math.sqrt(L[j * D + j])
      for (let i = j + 1; i < D; i++) {
        for (let c = 0; c < j; c++) L[i * D + j] -= L[i * D + c] * L[j * D + c]
        L[i * D + j] /= L[j * D + j]
      }
    }
    for (let i = 0; i < D; i++) { for (let c = 0; c < i; c++) x[i] -= L[i * D + c] * x[c]; x[i] /= L[i * D + i] }
    for (let i = D; i--;) { for (let c = i + 1; c < D; c++) x[i] -= L[c * D + i] * x[c]; x[i] /= L[i * D + i] }
    return x
  }
  const dot = (X, i, u, D) => { let s = 0; for (let d = 0; d < D; d++) s += X[i * D + d] * u[d]; return s }

  // implicit least squares: one ridge regression on what was met
  function ials() {
    const {D, alpha, l2, nu, filled} = data, Q = table(data.items), G = table(data.gram)
    return {score(told) {
      const A = Float64Array.from(G), b = new Float64Array(D), m = told.length
      for (const [i] of told) for (let a = 0; a < D; a++) {
        b[a] += Q[i * D + a]
        for (let c = 0; c < D; c++) A[a * D + c] += (1 - alpha) * Q[i * D + a] * Q[i * D + c]
      }
      const l = l2 * (m + alpha * (filled - m)) ** nu
      for (let a = 0; a < D; a++) A[a * D + a] += l
      const u = solve(A, b, D)
      return Float64Array.from({length: n}, (_, i) => dot(Q, i, u, D))
    }}
  }

  // a dot product: the trained people are what is expected of somebody, ridge regressions lead from there to who they are
  function factors() {
    const {D, range, noise, temperature, moves} = data, X = table(data.items), offset = table(data.offset), mean = table(data.mean)
    const through = z => range ? range[0] + (range[1] - range[0]) / (1 + Math.exp(-z)) : z
    const scores = u => Float64Array.from({length: n}, (_, i) => through(dot(X, i, u, D) + offset[i]))
    const trained = free.reduce((all, o, i) => { if (o) all.push(i); return all }, [])
    const sides = moves && {by: table(moves.by), left: table(moves.left), said: table(moves.said)}
    function expected(told) {   // who they are expected to be by what they rated, whatever they said of it
      const m = Float64Array.from(mean)
      if (!sides) return [m, table(data.precision)]
      const h = told.length, sure = Math.min(1, h / (h + moves.doubt) / moves.usual)
      for (const [i] of told) for (let d = 0; d < D; d++) m[d] += sides.by[i * D + d] / (h + moves.doubt)
      const open = sides.left.map((o, c) => o + (1 - sure) * sides.said[c]), out = new Float64Array(D * D), e = new Float64Array(D)
      for (let d = 0; d < D; d++) { e.fill(0); e[d] = 1; out.set(solve(open, e, D), d * D) }
      return [m, out]
    }
    function add(A, i, slope, w) { for (let a = 0; a < D; a++) { const x = w * slope * slope * X[i * D + a]; for (let c = 0; c < D; c++) A[a * D + c] += x * X[i * D + c] } }
    function squared(u, told, A, g) {   // (cost); A and g grow by its curvature and gradient
      let cost = 0
      for (const [i, r] of told) {
        const s = through(dot(X, i, u, D) + offset[i]), slope = range ? (s - range[0]) * (range[1] - s) / (range[1] - range[0]) : 1
        cost += (s - r) ** 2 / (2 * noise)
        for (let d = 0; d < D; d++) g[d] += (s - r) / noise * slope * X[i * D + d]
        add(A, i, slope, 1 / noise)
      }
      return cost
    }
    function softmax(u, told, A, g) {
      const z = trained.map(i => (dot(X, i, u, D) + offset[i]) / temperature), top = z.reduce((a, b) => Math.max(a, b), -Infinity)
      const p = z.map(o => Math.exp(o - top)), sum = p.reduce((a, b) => a + b, 0), level = top + Math.log(sum), h = told.length
      const mid = new Float64Array(D)
      trained.forEach((i, j) => { for (let d = 0; d < D; d++) mid[d] += p[j] / sum * X[i * D + d] / temperature })
      trained.forEach((i, j) => { if (p[j] > 1e-12 * sum) add(A, i, 1 / temperature, h * p[j] / sum) })
      for (let a = 0; a < D; a++) for (let c = 0; c < D; c++) A[a * D + c] -= h * mid[a] * mid[c]
      let cost = 0
      for (const [i] of told) {
        cost += level - (dot(X, i, u, D) + offset[i]) / temperature
        for (let d = 0; d < D; d++) g[d] += mid[d] - X[i * D + d] / temperature
      }
      return cost
    }
    const likely = kind == 'softmax' ? softmax : squared
    function look(u, told, m, P) {
      const A = Float64Array.from(P), g = new Float64Array(D)
      let cost = likely(u, told, A, g)
      for (let a = 0; a < D; a++) { const pull = dot(P, a, u.map((o, d) => o - m[d]), D); g[a] += pull; cost += pull * (u[a] - m[a]) / 2 }
      return [cost, g, A]
    }
    return {score(told) {
      const [m, P] = expected(told)
      let u = m, now = look(u, told, m, P)
      for (let turn = 0; turn < 20; turn++) {
        let step = solve(now[2], now[1], D)
        const gain = step.reduce((s, o, d) => s + o * now[1][d], 0)
        let there = null
        for (let half = 0; half < 12; half++) {
          const next = u.map((o, d) => o - step[d]), seen = look(next, told, m, P)
          if (seen[0] <= now[0]) { there = [next, seen]; break }
          step = step.map(o => o / 2)
        }
        if (!there) break
        ;[u, now] = there
        if (gain <= 1e-9 * Math.abs(now[0])) break
      }
      return scores(u)
    }}
  }
  const model = kind == 'linear' ? linear() : kind == 'ials' ? ials() : factors()

  // search as the server does: every word, the most known first
  const bare = s => s.toLowerCase().normalize('NFKD').replace(/\p{Mn}/gu, '')
  const known = best(counts, n, i => free[i]), texts = titles.map(bare)
  function items(q, limit) {
    q = bare(q).trim()
    const words = q.split(/\s+/), begins = new RegExp('(?<![\\p{L}\\p{N}_])' + q.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'u')
    const rank = i => texts[i].startsWith(q) ? 0 : begins.test(texts[i]) ? 1 : 2
    const hits = known.filter(i => words.every(o => texts[i].includes(o))).map(i => [rank(i), i])
    return hits.sort((a, b) => a[0] - b[0]).slice(0, limit).map(([, i]) => ({item_id: titles[i], n_ratings: counts[i]}))
  }

  const codes = Object.fromEntries(Object.entries(data.columns).map(([name, o]) => [name, {values: o.values, of: o.of}]))
  function meets(where = {}) {
    const asked = Object.entries(where).map(([name, v]) => [codes[name].of, codes[name].values.indexOf(v)])
    return i => asked.every(([of, v]) => of[i] === v || Array.isArray(of[i]) && of[i].includes(v))
  }
  const told = body => (body.session ? body.session.map(o => [place.get(o), 1]) : body.history.map(o => [place.get(o.item_id), o.rating]))
  const verbs = {
    recommend(body) {
      const mine = told(body), own = new Set(mine.map(o => o[0])), ok = meets(body.where), scores = model.score(mine)
      return best(scores, body.k, i => free[i] && !own.has(i) && ok(i)).map((i, j) => ({item_id: titles[i], score: scores[i], rank: j + 1}))
    },
    explain(body) {
      const mine = told(body), wanted = body.item_ids.map(o => place.get(o)), parts = model.parts(mine, wanted)
      return wanted.flatMap(i => mine.map(([j], m) => ({item_id: titles[i], because_item_id: titles[j], contribution: parts[m].get(i)})))
    },
    similar(body) {
      const k = data.near.k, near = table(data.near.who), i = place.get(body.item_ids)
      return [...near.slice(i * k, (i + 1) * k)].filter(o => o < n).slice(0, body.k).map((o, j) => ({query_id: titles[i], item_id: titles[o], rank: j + 1}))
    },
  }
  // one name for each verb; what the page would ask over HTTP it asks here
  window.answer = async (path, body) => {
    const [verb, query] = path.split('?'), asked = new URLSearchParams(query)
    if (verb == 'items') return items(asked.get('q') || '', +asked.get('limit') || 10)
    if (verb == 'choices') return Object.fromEntries(Object.entries(codes).map(([name, o]) => [name, o.values]))
    if (verb == 'explain' && body.history === undefined) body = {...body, history: []}
    return verbs[verb](body)
  }
  window.face = id => data.pictures[id]
})()
