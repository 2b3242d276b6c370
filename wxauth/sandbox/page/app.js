// The page as a whole: what the buttons do, tabs, theme, language.

import { Diagram } from './diagram.js'
import { Scenes } from './scenes.js'
import { fillSnippets } from './snippets.js'
import { TEXT, say, speak, spoken } from './text.js'
import { Vault } from './vault.js'

const at = (id) => document.getElementById(id)

const diagram = new Diagram()
const scenes = new Scenes(diagram)

/** Run one scene at a time. Clicks during a scene are ignored. */
let running = false
async function run(what) {
  if (running) return
  running = true
  document.body.classList.add('running')
  const shown = [...document.querySelectorAll('#chips button, #phone-buttons button')]
  for (const button of shown) button.setAttribute('aria-disabled', 'true')
  const hadFocus = at('phone-buttons').contains(document.activeElement)
  try {
    await what()
  } finally {
    running = false
    document.body.classList.remove('running')
    for (const button of shown) button.removeAttribute('aria-disabled')
    // The pressed button may be hidden now. Focus the one that replaces it, for keyboard users.
    if (hadFocus && document.activeElement === document.body) at('phone-buttons').querySelector('button:not([hidden])').focus()
  }
}

for (const [id, what] of Object.entries({ login: 'login', whoami: 'whoami', logout: 'logout' })) {
  at(id).addEventListener('click', () => run(() => scenes.play(what)))
}
at('cure').addEventListener('click', () => run(() => scenes.cure()))
for (const chip of document.querySelectorAll('#chips button')) {
  chip.addEventListener('click', () => run(() => scenes.play(chip.dataset.scene)))
}
at('plug').addEventListener('click', () => Vault.plugIn())

function choose(tab, focus = false) {
  for (const other of document.querySelectorAll('[role=tab]')) {
    const chosen = other === tab
    other.setAttribute('aria-selected', String(chosen))
    other.tabIndex = chosen ? 0 : -1
    at(other.getAttribute('aria-controls')).hidden = !chosen
  }
  if (focus) tab.focus()
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

function remembered(name) {
  try {
    return localStorage.getItem(name)
  } catch {
    return null
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value)
  } catch {
    // Without storage, the choice is lost when the page is closed.
  }
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

paint(remembered('wxauth theme') ?? (dark.matches ? 'dark' : 'light'))
const chosen = remembered('wxauth language')
translate(Object.hasOwn(TEXT, chosen) ? chosen : navigator.language.startsWith('zh') ? 'zh' : 'en')
fillSnippets()
scenes.rest()
document.documentElement.dataset.ready = 'yes'
