// The page as a whole: what the buttons do, tabs, theme, language.

import { Diagram } from './diagram.js'
import { ScanScenes } from './scan.js'
import { TEXT, say, speak, spoken } from './text.js'
import { Vault } from './vault.js'
import { remember, remembered } from './wire.js'

const at = (id) => document.getElementById(id)

const diagram = new Diagram()
const scenes = new ScanScenes(diagram)

/** Run one scene at a time. Clicks during a scene are ignored. */
let running = false
async function run(what) {
  if (running) return
  running = true
  document.body.classList.add('running')
  const shown = [...document.querySelectorAll('.chips button, #phone-buttons button, #ask, #empty-redis')]
  for (const button of shown) button.setAttribute('aria-disabled', 'true')
  const pressed = document.activeElement
  try {
    await what()
  } finally {
    running = false
    document.body.classList.remove('running')
    for (const button of shown) button.removeAttribute('aria-disabled')
    // The pressed button may be hidden now. Focus the one that replaces it, for keyboard users.
    if (shown.includes(pressed) && document.activeElement === document.body) {
      at('phone-buttons').querySelector('button:not([hidden])')?.focus({ preventScroll: true })
    }
  }
}

for (const [id, what] of Object.entries({ login: 'login', whoami: 'whoami', logout: 'logout', ask: 'offer' })) {
  at(id).addEventListener('click', () => run(() => scenes.play(what)))
}
const steps = { scan: () => scenes.scan(), approve: () => scenes.answer(true), deny: () => scenes.answer(false) }
for (const [id, step] of Object.entries(steps)) {
  at(id).addEventListener('click', () => run(() => scenes.guarded(step)))
}
at('cure').addEventListener('click', () => run(() => scenes.cure()))
for (const chip of document.querySelectorAll('.chips button')) {
  chip.addEventListener('click', () => {
    history.replaceState(null, '', `#${chip.dataset.scene}`)
    run(() => scenes.play(chip.dataset.scene))
  })
}
at('empty-redis').addEventListener('click', () => run(() => Vault.clear()))
at('bytes').addEventListener('click', ({ target }) => {
  target.setAttribute('aria-pressed', String(document.body.classList.toggle('with-bytes')))
})
at('plug').addEventListener('click', () => Vault.plugIn())

/** The logins of the mini program and of a website share one panel. */
function choose(tab, focus = false) {
  const { chapter } = tab.dataset
  if (chapter && chapter !== document.body.dataset.chapter) {
    if (running) return
    history.replaceState(null, '', chapter === 'scan' ? '#scan' : location.pathname)
    scrollTo(0, 0)
    enter(chapter)
  }
  for (const other of tabs) {
    other.setAttribute('aria-selected', String(other === tab))
    other.tabIndex = other === tab ? 0 : -1
  }
  for (const panel of document.querySelectorAll('[role=tabpanel]')) panel.hidden = panel.id !== tab.getAttribute('aria-controls')
  showLines()
  if (chapter) at('panel-flow').setAttribute('aria-labelledby', tab.id)
  diagram.fit()
  if (focus) tab.focus()
}

function enter(chapter) {
  document.body.dataset.chapter = chapter
  for (const part of document.querySelectorAll('[data-of]')) part.hidden = part.dataset.of !== chapter
  return chapter === 'scan' ? scenes.arrive() : scenes.rest()
}

const tabs = [...document.querySelectorAll('[role=tab]')]
for (const [place, tab] of tabs.entries()) {
  tab.addEventListener('click', () => choose(tab))
  tab.addEventListener('keydown', (event) => {
    const steps = { ArrowRight: place + 1, ArrowLeft: place - 1 + tabs.length, Home: 0, End: tabs.length - 1 }
    if (!(event.key in steps)) return
    event.preventDefault()
    choose(tabs[steps[event.key] % tabs.length], true)
  })
}

/** Open what the address names: #scan, or a failure such as #gone. */
function follow(name) {
  const chip = [...document.querySelectorAll('[data-scene]')].find(({ dataset }) => dataset.scene === name)
  const chapter = chip ? chip.closest('[data-of]').dataset.of : name
  const tab = tabs.find(({ dataset }) => dataset.chapter === chapter)
  if (tab) choose(tab)
  chip?.click()
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

// --- The code snippets. The mini program has the address from the input field, the commands by hand that of this sandbox.

const WRITTEN = 'http://127.0.0.1:8000'

function fillSnippets() {
  const field = document.getElementById('address')
  const snippets = [...document.querySelectorAll('article .snippet')].map((box) => {
    const code = box.querySelector('code')
    box.querySelector('.copy').addEventListener('click', (event) => copy(code.textContent, event.target, code))
    return [code, code.textContent]
  })
  const fill = () => {
    const address = field.value.trim().replace(/\/+$/, '') || WRITTEN
    snippets.forEach(([code, text], place) => {
      code.textContent = text.replaceAll(WRITTEN, [address, WRITTEN, WRITTEN, location.origin][place])
    })
  }
  const happened = at('happened').querySelector('code')
  at('happened').querySelector('.copy').addEventListener('click', (event) => copy(happened.textContent, event.target, happened))
  field.value = location.origin
  field.addEventListener('input', fill)
  fill()
}

async function copy(text, button, shown) {
  try {
    await navigator.clipboard.writeText(text)
    say(button, 'copied')
    setTimeout(() => say(button, 'copy'), 2000)
  } catch {
    // Without access to the clipboard, select the text.
    getSelection().selectAllChildren(shown)
  }
}

at('copy-token').addEventListener('click', (event) => copy(scenes.phone.token, event.target, at('pocket-token')))

/** Show the lines of a client that make what the diagram shows. */
function showLines() {
  const found = [...document.querySelectorAll(`template[data-lines~="${diagram.scene}"]`)]
  at('happened').hidden = found.length === 0
  say(at('happened-told'), `scene.${diagram.scene}`)
  at('happened').querySelector('code').textContent = found.map(({ content }) => content.textContent).join('\n')
}

paint(remembered('wxauth theme') ?? (dark.matches ? 'dark' : 'light'))
const chosen = remembered('wxauth language')
translate(Object.hasOwn(TEXT, chosen) ? chosen : navigator.language.startsWith('zh') ? 'zh' : 'en')
fillSnippets()
enter('mini')
await run(() => scenes.wake())
follow(location.hash.slice(1))
document.documentElement.dataset.ready = 'yes'
