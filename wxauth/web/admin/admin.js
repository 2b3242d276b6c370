// The operator's page: look a user up, end sessions, ban; health and counters.

import { TEXT, say, speak, spoken, text } from './text.js'

const at = (id) => document.getElementById(id)
// Without user and password, which the address of the page may contain: fetch refuses them.
const HERE = location.origin + location.pathname

/** The answers that are shown. They are drawn again when the language changes. */
const shown = { user: null, sessions: null, checks: null, counters: null, told: null }

class Problem extends Error {}

/** Send a request below /admin. Return the JSON of its answer, if there is any. */
async function ask(path, method = 'GET') {
  const options = { method, headers: { 'X-WXAuth-Admin': '1' } }
  const answer = await fetch(`${HERE}/${path}`, options).catch(() => { throw new Problem('offline') })
  if (answer.ok) return answer.status === 204 ? null : answer.json()
  const { code } = await answer.json().catch(() => ({ code: answer.status }))
  throw new Problem(code)
}

/** Run what a button does. The button is off until it is done, and keeps the focus. */
async function busy(button, what, tell) {
  const hadFocus = document.activeElement === button
  button.disabled = true
  try {
    await what()
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    const key = `wrong.${error.message}`
    tell(key in TEXT.en ? key : 'wrong.other', { code: error.message }, true)
  } finally {
    button.disabled = false
    if (hadFocus && button.isConnected) button.focus()
  }
}

function make(tag, content = '', className = '') {
  const element = document.createElement(tag)
  element.textContent = content
  element.className = className
  return element
}

const place = () => (spoken() === 'zh' ? 'zh-CN' : 'en-GB')
const timed = (value) => new Date(value).toLocaleString(place())
const now = () => ({ time: new Date().toLocaleTimeString(place()) })

/** Return a function that says what has happened, in an element. */
function teller(id) {
  return (key, values = {}, wrong = false) => {
    at(id).classList.toggle('wrong', wrong)
    shown[id] = [key, values, wrong]
    at(id).textContent = key ? text(key, values) : ''
  }
}

const tell = teller('told')

// The user

const pathOf = (user) => `users/${encodeURIComponent(user.appid)}/${encodeURIComponent(user.openid)}`

async function look(user) {
  const answer = await ask(pathOf(user))
  Object.assign(shown, { user, sessions: answer.sessions, banned: answer.banned })
  drawUser()
}

function drawUser() {
  if (!shown.user) return
  at('found').hidden = false
  at('shown').textContent = shown.user.openid
  at('state').className = `badge ${shown.banned ? 'failure' : 'ok'}`
  say(at('state'), shown.banned ? 'state.banned' : 'state.allowed')
  at('ban').hidden = shown.banned
  at('unban').hidden = !shown.banned
  at('none').hidden = shown.sessions.length > 0
  at('table').hidden = at('end-all').hidden = shown.sessions.length === 0
  at('sessions').replaceChildren(...shown.sessions.map(rowOf))
}

function rowOf(session) {
  const row = make('tr')
  const label = session.device ?? text('session.unlabelled')
  const end = make('button', text('end.one'))
  end.type = 'button'
  end.setAttribute('aria-label', `${text('end.one')}: ${label}, ${timed(session.created_at * 1000)}`)
  end.addEventListener('click', () => change(end, 'end.one', 'DELETE', `/sessions/${session.id}`))
  const cells = [make('td', label), make('td', text(`kind.${session.kind}`)), make('td', timed(session.created_at * 1000))]
  const last = make('td')
  last.append(end)
  row.append(...cells, last)
  return row
}

/** Change something about the user that is shown, then show the new state. */
function change(button, what, method, path) {
  const question = `ask.${what}`
  if (question in TEXT.en && !confirm(text(question))) return
  const user = shown.user
  busy(button, async () => {
    await ask(pathOf(user) + path, method)
    await look(user)
    tell(`done.${what}`)
    if (!button.isConnected || button.hidden) at('openid').focus()
  }, tell)
}

at('lookup').addEventListener('submit', (event) => {
  event.preventDefault()
  at('found').hidden = true
  shown.user = null
  tell('')
  busy(event.submitter, () => look({ appid: at('appid').value, openid: at('openid').value.trim() }), tell)
})
at('end-all').addEventListener('click', () => change(at('end-all'), 'end.all', 'DELETE', '/sessions'))
at('ban').addEventListener('click', () => change(at('ban'), 'ban', 'PUT', '/ban'))
at('unban').addEventListener('click', () => change(at('unban'), 'unban', 'DELETE', '/ban'))

// Health

const tellHealth = teller('health-told')

function checkHealth() {
  tellHealth('checking')
  return busy(at('check'), async () => {
    shown.checks = (await ask('health')).checks
    drawChecks()
    tellHealth('checked.at', now())
  }, tellHealth)
}

function drawChecks() {
  at('checks').replaceChildren(...(shown.checks ?? []).map((check) => {
    const row = make('li')
    const body = make('div')
    body.append(make('p', text(`check.${check.check}`)), make('p', toldOf(check), 'muted'))
    row.append(make('span', text(check.status), `badge ${check.status}`), body)
    return row
  }))
}

/** Return what a check has found: a value that needs no words, or what doctor says. */
function toldOf(check) {
  const key = `value.${check.check}`
  const value = key in TEXT.en ? text(key, check) : check.value
  const words = spoken() === 'zh' ? check.chinese : check.english
  const told = check.status === 'ok' && !check.chinese ? value : words ?? value
  return check.app ? `${check.app}: ${told}` : told
}

at('check').addEventListener('click', checkHealth)

// Counters

const tellCounters = teller('counters-told')

function count() {
  return busy(at('refresh'), async () => {
    const answer = await ask('counters')
    shown.counters = answer.counters
    if (!at('appid').options.length) at('appid').append(...answer.apps.map((appid) => new Option(appid)))
    drawCounters()
    tellCounters('counted.at', now())
  }, tellCounters)
}

function drawCounters() {
  const counters = shown.counters ?? {}
  at('counters').replaceChildren(...Object.entries(counters).map(([name, rows]) => {
    const block = make('div')
    const list = make('dl')
    for (const { labels, value } of rows) {
      const term = make('dt')
      term.append(make('code', Object.values(labels).join(' · ')))
      list.append(term, make('dd', value.toLocaleString()))
    }
    block.append(make('h3', text(`counter.${name}`)), rows.length ? list : make('p', text('counter.none'), 'muted'))
    return block
  }))
}

at('refresh').addEventListener('click', count)

// Theme and language

function remember(name, value) {
  try { localStorage[name] = value } catch { /* the browser forbids it */ }
}

function remembered(name) {
  try { return localStorage[name] ?? null } catch { return null }
}

const dark = matchMedia('(prefers-color-scheme: dark)')

function paint(theme) {
  document.documentElement.dataset.theme = theme
  say(at('theme'), theme === 'dark' ? 'theme.light' : 'theme.dark')
}

function translate(language) {
  speak(language)
  at('language').textContent = language === 'zh' ? 'English' : '中文'
  at('language').lang = language === 'zh' ? 'en' : 'zh-CN'
  drawUser()
  drawChecks()
  drawCounters()
  for (const [id, again] of [['told', tell], ['health-told', tellHealth], ['counters-told', tellCounters]]) {
    if (shown[id]) again(...shown[id])
  }
}

at('theme').addEventListener('click', () => {
  const theme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'
  paint(theme)
  remember('wxauth theme', theme)
})
dark.addEventListener('change', () => remembered('wxauth theme') ?? paint(dark.matches ? 'dark' : 'light'))
at('language').addEventListener('click', () => {
  const language = spoken() === 'zh' ? 'en' : 'zh'
  translate(language)
  remember('wxauth language', language)
})

paint(remembered('wxauth theme') ?? (dark.matches ? 'dark' : 'light'))
const chosen = remembered('wxauth language')
translate(Object.hasOwn(TEXT, chosen) ? chosen : navigator.language.startsWith('zh') ? 'zh' : 'en')
await Promise.all([count(), checkHealth()])
document.documentElement.dataset.ready = 'yes'
